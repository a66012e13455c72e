"""Files from the network, for datasets that download themselves."""

import importlib
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit

from safeio.errors import UserError
from safeio.files import mkdir_if_missing


def download_url(url: str, dst: str) -> None:
    """Download a file; a download that fails leaves no part of it.

    Args:
        url: http or https.
        dst: the file that it becomes.

    Raises:
        UserError: another kind of address, or the file cannot be had.
    """
    from torch.hub import download_url_to_file

    if urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"{url} cannot be downloaded: it is no address of http or https")
    mkdir_if_missing(Path(dst).parent)
    try:
        download_url_to_file(url, str(dst))
    except (URLError, OSError) as error:
        raise UserError(f"{url} cannot be downloaded: {error}") from error


def download_from_drive(url: str, dst: str) -> None:
    """Download a file from Google Drive.

    Args:
        url: as Google Drive gives it to share the file.
        dst: the file that it becomes.

    Raises:
        UserError: the file cannot be had, or the package gdown is missing.
    """
    try:
        gdown = importlib.import_module("gdown")
    except ImportError as error:
        raise UserError(
            f"{url} is on Google Drive, from where the package gdown downloads: pip install gdown, "
            f"or put the file at {dst} yourself"
        ) from error
    mkdir_if_missing(Path(dst).parent)
    try:
        gdown.download(url, str(dst), quiet=False)
    except Exception as error:  # gdown and requests have many
        raise UserError(f"{url} cannot be downloaded: {error}") from error
