"""Download OpenAI's weights by name: once, resumable, and verified.

A file gets its final name only after its SHA-256 matches the published one.
"""

import re
from pathlib import Path

from safeio.checksums import file_digest
from safeio.http_download import DownloadError, RefusedError, download

from .errors import WeightsError

DEFAULT_ROOT = Path("~/.cache/clip")

_BASE = "https://openaipublic.azureedge.net/clip/models"
SHA256 = {
    "RN50": "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
    "RN101": "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599",
    "RN50x4": "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd",
    "RN50x16": "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa",
    "RN50x64": "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c",
    "ViT-B/32": "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    "ViT-B/16": "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
    "ViT-L/14": "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
    "ViT-L/14@336px": "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
}
MODELS = {
    name: f"{_BASE}/{digest}/{re.sub('[/@]', '-', name)}.pt" for name, digest in SHA256.items()
}


def fetch(url: str, root: str | Path | None = None) -> Path:
    """Download a URL `.../<sha256>/<file name>` to `root` (`~/.cache/clip`) unless the file exists.

    Returns:
        The path of the verified file.

    Raises:
        WeightsError: the download failed, or the file is not the published one.
    """
    expected, name = url.split("/")[-2:]
    target = Path(root or DEFAULT_ROOT).expanduser() / name
    if target.exists():
        found = file_digest(target) if target.is_file() else "undefined, because it is a folder"
        if found != expected:
            raise WeightsError(
                f"{target} is not the published file (its SHA-256 is {found}, not {expected}); "
                "move it away and run again to download it."
            )
        return target
    try:
        download(url, target, checksum=f"sha256:{expected}")
    except RefusedError as error:
        raise WeightsError(
            f"{name} from {url} was refused because {error}; run again, or put the right file "
            f"at {target} by hand."
        ) from None
    except DownloadError as error:
        raise WeightsError(
            f"{name} could not be downloaded from {url} ({error}); run again to resume it, or "
            f"put the file at {target} by hand."
        ) from None
    return target
