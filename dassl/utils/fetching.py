"""Downloads for datasets that fetch their own files."""

import importlib
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit

from safeio.errors import UserError
from safeio.files import mkdir_if_missing


def download_url(url: str, dst: str) -> None:
    """Download an http or https URL to a file; a failed download leaves no partial file.

    Raises:
        UserError: the URL has another scheme, or the download fails.
    """
    from torch.hub import download_url_to_file

    if urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"{url} cannot be downloaded: it is not an http or https URL")
    mkdir_if_missing(Path(dst).parent)
    try:
        download_url_to_file(url, str(dst))
    except (URLError, OSError) as error:
        raise UserError(f"{url} cannot be downloaded: {error}") from error


def download_from_drive(url: str, dst: str) -> None:
    """Download a file from Google Drive by the link that shares it.

    Raises:
        UserError: the download fails, or the package gdown is missing.
    """
    try:
        gdown = importlib.import_module("gdown")
    except ImportError as error:
        raise UserError(
            f"{url} is on Google Drive, which needs the package gdown; pip install gdown, or "
            f"download the file to {dst} yourself"
        ) from error
    mkdir_if_missing(Path(dst).parent)
    try:
        gdown.download(url, str(dst), quiet=False)
    except Exception as error:  # gdown and requests raise many kinds
        raise UserError(f"{url} cannot be downloaded: {error}") from error
