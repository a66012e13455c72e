"""Which cached image features belong to a run.

A frozen image tower gives the same features of an image in every run, whatever the seed and the
method. They are stored under a key of all that decides about them: the weights, the architecture,
the precision, the transform, the files and the versions of what computes.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clip.weights import LoadedCLIP
from dassl.config import CfgNode, declare_config
from dassl.data import DatasetWrapper
from dassl.data.datasets import Datum
from dassl.data.transforms import build_transform
from dassl.utils import package_versions

from .store import FeatureStore, StoredRows

declare_config(
    "TEST",
    {
        "FEATURE_CACHE": "",  # folder of cached image features; "" is <DATASET.ROOT>/features
        "NO_FEATURE_CACHE": False,  # compute them anew in every run
    },
)

# Local features are M times as large as pooled ones. Rounding moves a normalised feature by less
# than 0.0005, and everything is computed from the rounded ones, also the first time.
STORED_AS = {"pooled": None, "local": torch.float16}

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# To be raised when the code computes other features from the same weights and images.
VERSION = 3
_COMPUTING_PACKAGES = ("torch", "torchvision", "pillow")


def is_frozen(tower: nn.Module) -> bool:
    """Whether nothing in the tower learns and no hook changes what it computes."""
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in tower.modules())
    return not hooked and not any(p.requires_grad for p in tower.parameters())


class FeatureCache:
    """The cached image features of a frozen CLIP, for all runs that use it alike.

    Args:
        cfg: DATASET.ROOT and TEST are read.
        loaded: the weights.
        precision: one of `PRECISIONS`.
        device: where features are computed.
    """

    def __init__(
        self, cfg: CfgNode, loaded: LoadedCLIP, precision: str, device: torch.device
    ) -> None:
        self.enabled = not cfg.TEST.NO_FEATURE_CACHE
        folder = cfg.TEST.FEATURE_CACHE or Path(cfg.DATASET.ROOT) / "features"
        self.store = FeatureStore(Path(folder).expanduser().absolute())
        self._opened: dict[tuple[str, str], StoredRows] = {}
        config = dataclasses.asdict(loaded.model.config)
        versions = package_versions()
        self._computed_by = {
            "version": VERSION,
            "weights": loaded.sha256 or loaded.source,
            "tower": weights_fingerprint(loaded.model.visual),
            "architecture": {key: value for key, value in config.items() if "text" not in key},
            "precision": precision,
            "device": device.type,
            "packages": {name: versions[name] for name in _COMPUTING_PACKAGES},
        }

    def key(self, source: DatasetWrapper, kind: str, view: int | None = None) -> str | None:
        """Digest of what is computed; None if the transform is not the configuration's.

        Args:
            source: the images in order, and what is done to them.
            kind: pooled or local.
            view: number of the random view of each image; None without randomness.
        """
        transform = _configured_transform(source)
        if transform is None:
            return None
        paths = [_absolute(item.impath) for item in source.data_source]
        parts = {
            **{"kind": kind, "view": view, "paths": paths},
            **{"transform": transform, "decode": source.decode},
        }
        return _digest({**self._computed_by, **parts})

    def get(
        self,
        source: DatasetWrapper,
        kind: str,
        make: Callable[[], Iterable[Tensor]],
        view: int | None = None,
    ) -> StoredRows | None:
        """The features of images, from the cache or made and stored there.

        Args:
            source: see `key`.
            kind: see `key`.
            make: computes the features of all images in order, batch by batch.
            view: see `key`.

        Returns:
            One row an image; None when they cannot be cached: the cache is off or cannot be
            written, the transform is not the configuration's, or an image is not there.
        """
        key = self.key(source, kind, view) if self.enabled else None
        fingerprint = files_fingerprint(source.data_source) if key else None
        if key is None or fingerprint is None:
            return None
        if (key, fingerprint) in self._opened:  # checked once, for all runs that share this cache
            return self._opened[key, fingerprint]
        rows = self.store.get(key, fingerprint, len(source), make, STORED_AS[kind])
        if rows is None:
            self.enabled = False  # what could not be written once is not tried again
        else:
            print(f"The features of {len(rows):,} images are cached in {self.store.path(key)}")
            self._opened[key, fingerprint] = rows
        return rows


@torch.no_grad()
def weights_fingerprint(tower: nn.Module) -> dict[str, int]:
    """The exact sum of each tensor's bits, read as integers: the same on every device.

    They identify random weights, and a tower that was changed after its file was read.
    """
    sums = {
        name: value.contiguous().view(_INTEGERS[value.element_size()]).sum(dtype=torch.int64)
        for name, value in tower.state_dict().items()
    }
    return dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True))


def files_fingerprint(items: Sequence[Datum]) -> str | None:
    """Digest of the files' sizes and times of change, in order; None if one cannot be read."""
    try:
        # For thousands of files: making a Path of each takes longer than asking the system.
        stats = [os.stat(item.impath) for item in items]  # noqa: PTH116
    except OSError:
        return None  # whoever opens the image says what is wrong
    return _digest([[stat.st_size, stat.st_mtime_ns] for stat in stats])


def _configured_transform(source: DatasetWrapper) -> str | None:
    """The `repr` of the images' transform; None for one that is not the configuration's.

    Only the configured ones are known to describe themselves completely in it.
    """
    if source.transform is None:
        return repr(source.to_tensor)
    configured = repr(build_transform(source.cfg, is_train=source.is_train))
    return configured if repr(source.transform) == configured else None


def _absolute(path: str) -> str:
    return path if path.startswith("/") else str(Path(path).absolute())


def _digest(value: Any) -> str:
    """SHA-256 of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
