"""Weights by a name of Hugging Face's hub: `openai/clip-vit-base-patch32`, or `hf:` before it.

huggingface_hub downloads them once and finds them again without the network; the files are then
read by our own code.
"""

import re
from pathlib import Path

from . import hugging_face, open_clip_names
from .checkpoint import INDEX_SUFFIX, parts_of
from .errors import WeightsError
from .files import ADAPTER, choose_weights

HUB_PREFIXES = ("hf:", "hf-hub:")
_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?")


def hub_name(name: str) -> str | None:
    """The name of a repository on the hub, `<owner>/<model>` or `...@<revision>`, or None."""
    for prefix in HUB_PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name if _NAME.fullmatch(name) else None


def fetch_from_hub(name: str, download_root: str | Path | None) -> Path:
    """Download the weights of a repository and what describes them, unless they are there.

    Args:
        name: `<owner>/<model>`, with `@<revision>` behind it where not the newest is wanted.
        download_root: folder of downloads; None for the one that huggingface_hub uses.

    Returns:
        The path of the weights, in a folder with their descriptions.

    Raises:
        WeightsError: huggingface_hub is not installed, the repository cannot be had, or it holds
            no CLIP.
    """
    repository, _, revision = name.partition("@")
    if not _NAME.fullmatch(name):
        raise WeightsError(
            f"{name[:200]!r} is no name of Hugging Face's hub; its form is '<owner>/<model>'."
        )
    hub = _Repository(repository, revision or None, download_root)
    folder = _fetch_descriptions(hub)
    try:
        path = choose_weights(folder, lambda file: hub.cached(file) is not None)
    except WeightsError:
        path = choose_weights(folder, lambda file: hub.fetch(file) is not None)
    if path.name.endswith(INDEX_SUFFIX):
        for part in parts_of(path):
            hub.fetch(part)
    return path


def _fetch_descriptions(hub: "_Repository") -> Path:
    """Fetch what is small, and refuse what is no CLIP before its weights are fetched."""
    config = hub.fetch(hugging_face.CONFIG)
    if config is not None and hugging_face.describes_clip(config.parent):
        for name in hugging_face.PREPROCESSORS:
            if hub.fetch(name):
                break
        hugging_face.describe(config.parent)
        return config.parent
    own = hub.fetch(open_clip_names.CONFIG)
    if own is not None:
        open_clip_names.describe(own.parent)
    elif config is not None:
        hugging_face.describe(config.parent)
    found = own or config or hub.fetch(ADAPTER)
    if found is None:
        raise WeightsError(
            f"{hub.name!r} on Hugging Face's hub has neither {hugging_face.CONFIG} nor "
            f"{open_clip_names.CONFIG}; give the name of a CLIP, or the path of a weights file."
        )
    return found.parent


class _Repository:
    """A repository on the hub, whose files are fetched one by one."""

    def __init__(self, name: str, revision: str | None, root: str | Path | None) -> None:
        self.name, self.revision = name, revision
        self.root = str(Path(root).expanduser()) if root is not None else None
        try:
            import huggingface_hub
        except ImportError:
            raise WeightsError(
                f"{name!r} is no file here, and to fetch it from Hugging Face's hub the package "
                "huggingface_hub is needed; install it with `pip install huggingface_hub`, or give "
                "the path of a weights file."
            ) from None
        self.hub = huggingface_hub

    def cached(self, file: str) -> Path | None:
        """A file's path, if it was fetched before."""
        found = self._look_up(file)
        return Path(found) if isinstance(found, str) else None

    def _look_up(self, file: str) -> object:
        return self.hub.try_to_load_from_cache(
            self.name, file, cache_dir=self.root, revision=self.revision
        )

    def fetch(self, file: str) -> Path | None:
        """A file's path in the cache; None where the repository has no such file."""
        found = self._look_up(file)
        if isinstance(found, str):
            return Path(found)
        if found is not None:  # it was looked for before, and there is none
            return None
        errors = self.hub.errors
        try:
            path = self.hub.hf_hub_download(
                self.name, file, cache_dir=self.root, revision=self.revision
            )
        except Exception as error:  # whatever the network and the hub raise
            absent = isinstance(error, errors.EntryNotFoundError)
            if absent and not isinstance(error, errors.LocalEntryNotFoundError):
                return None
            raise self._unreachable(file, error) from None
        return Path(path)

    def _unreachable(self, file: str, error: Exception) -> WeightsError:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = (lines[0] if lines else type(error).__name__).rstrip(".")[:200]
        return WeightsError(
            f"{self.name!r} is no file here, and {file} of that name could not be fetched from "
            f"Hugging Face's hub ({reason}); give the path of a weights file or folder, or try "
            "again with a network."
        )
