"""Download weights by a name on Hugging Face's hub: `openai/clip-vit-base-patch32`, also `hf:...`.

huggingface_hub downloads them once and then finds them offline; this package reads the files.
"""

import re
from pathlib import Path
from typing import Any

from . import hugging_face, open_clip_names
from .checkpoint import INDEX_SUFFIX, shard_names
from .errors import WeightsError
from .files import ADAPTER, choose_weights

HUB_PREFIXES = ("hf:", "hf-hub:")
_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?")


def hub_name(name: str) -> str | None:
    """Return the repository in a name, `<owner>/<model>` or `...@<revision>`, or None."""
    for prefix in HUB_PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name if _NAME.fullmatch(name) else None


def fetch_from_hub(name: str, download_root: str | Path | None) -> Path:
    """Download the weights and descriptions of a repository unless they are cached.

    Args:
        name: `<owner>/<model>`, or `<owner>/<model>@<revision>` for another than the newest.
        download_root: folder of downloads; None for the default of huggingface_hub.

    Returns:
        The path of the weights, in a folder with their descriptions.

    Raises:
        WeightsError: huggingface_hub is not installed, the download failed, or the repository
            contains no CLIP.
    """
    repository, _, revision = name.partition("@")
    if not _NAME.fullmatch(name):
        raise WeightsError(
            f"{name[:200]!r} is not a name on Hugging Face's hub; write '<owner>/<model>'."
        )
    hub = _Repository(repository, revision or None, download_root)
    folder = _fetch_descriptions(hub)
    try:
        path = choose_weights(folder, lambda file: hub.fetch(file, download=False) is not None)
    except WeightsError:
        path = choose_weights(folder, lambda file: hub.fetch(file) is not None)
    if path.name.endswith(INDEX_SUFFIX):
        for shard in shard_names(path):
            hub.fetch(shard)
    return path


def _fetch_descriptions(hub: "_Repository") -> Path:
    """Download the small files first, to refuse other models before downloading their weights."""
    config = hub.fetch(hugging_face.CONFIG)
    if config is not None and hugging_face.describes_clip(config.parent):
        for name in hugging_face.PREPROCESSORS:
            if hub.fetch(name):
                break
        hugging_face.describe(config.parent)
        return config.parent
    open_clip_config = hub.fetch(open_clip_names.CONFIG)
    if open_clip_config is not None:
        open_clip_names.describe(open_clip_config.parent)
    elif config is not None:
        hugging_face.describe(config.parent)
    found = open_clip_config or config or hub.fetch(ADAPTER)
    if found is None:
        raise WeightsError(
            f"{hub.name!r} on Hugging Face's hub has neither {hugging_face.CONFIG} nor "
            f"{open_clip_names.CONFIG}; pass the name of a CLIP, or the path of a weights file."
        )
    return found.parent


class _Repository:
    """A repository on the hub whose files are downloaded one by one."""

    def __init__(self, name: str, revision: str | None, root: str | Path | None) -> None:
        self.name, self.revision = name, revision
        self.root = str(Path(root).expanduser()) if root is not None else None
        try:
            import huggingface_hub
        except ImportError:
            raise WeightsError(
                f"{name!r} is not a local file, and downloading it from Hugging Face's hub needs "
                "the package huggingface_hub; install it with `pip install huggingface_hub`, or "
                "pass the path of a weights file."
            ) from None
        self.hub = huggingface_hub

    def fetch(self, file: str, download: bool = True) -> Path | None:
        """Return the path of a file, downloaded if needed; None if the repository lacks it."""
        place: dict[str, Any] = {"cache_dir": self.root, "revision": self.revision}
        found = self.hub.try_to_load_from_cache(self.name, file, **place)
        if isinstance(found, str):
            return Path(found)
        if found is not None or not download:  # the cache records that there is no such file
            return None
        errors = self.hub.errors
        try:
            return Path(self.hub.hf_hub_download(self.name, file, **place))
        except Exception as error:  # network and hub raise many types
            absent = isinstance(error, errors.EntryNotFoundError)
            if absent and not isinstance(error, errors.LocalEntryNotFoundError):
                return None
            raise self._unreachable(file, error) from None

    def _unreachable(self, file: str, error: Exception) -> WeightsError:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = (lines[0] if lines else type(error).__name__).rstrip(".")[:200]
        return WeightsError(
            f"{self.name!r} is not a local file, and its {file} could not be downloaded from "
            f"Hugging Face's hub ({reason}); pass the path of a weights file or folder, or try "
            "again with a network."
        )
