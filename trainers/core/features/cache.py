"""Cache of frozen image features, shared by all runs.

A frozen image encoder computes the same features of an image for every seed and method. They are
stored under a key of everything that determines them: weights, architecture, precision, device
type, transform, files and the versions of this code and of the packages that compute them.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
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
        "NO_FEATURE_CACHE": False,  # compute image features in every run
    },
)

# Local features are M times as large as pooled ones, so they are rounded to fp16, which changes a
# normalised feature by less than 0.0005. The first run, too, uses the rounded features.
RAW = "raw"  # pooled features before their normalisation
STORED_AS = {"pooled": None, RAW: None, "local": torch.float16}

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# Increase it when this code computes other features from the same weights and images.
VERSION = 3
# Views are computed in batches of this size, the last one padded: then an image's features do not
# depend on which images are computed with it.
VIEW_BATCH = 32
_COMPUTING_PACKAGES = ("torch", "torchvision", "pillow")


def computing_device(device: torch.device) -> dict[str, Any]:
    """Return what decides the last bits of features: on CUDA also the card and its settings."""
    if device.type != "cuda":
        return {"device": device.type}
    return {
        "device": torch.cuda.get_device_name(device),
        "precision_fp32": torch.get_float32_matmul_precision(),
        "cudnn": [torch.backends.cudnn.version(), torch.backends.cudnn.allow_tf32],
        "benchmark": torch.backends.cudnn.benchmark,
    }


def is_frozen(encoder: nn.Module) -> bool:
    """Return whether no parameter requires a gradient and no module has a forward hook."""
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in encoder.modules())
    return not hooked and not any(p.requires_grad for p in encoder.parameters())


class FeatureCache:
    """Cached image features of one frozen CLIP."""

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
            **computing_device(device),
            **({"compile": True} if cfg.MODEL.COMPILE else {}),
            # Matrix products of other sizes round differently in the last bit.
            "batch_size": cfg.DATALOADER.TEST.BATCH_SIZE,
            "packages": {name: versions[name] for name in _COMPUTING_PACKAGES},
        }

    @cached_property
    def identity(self) -> str:
        """Hash of everything that determines features but the images."""
        return _digest(self._computed_by)

    def key(self, source: DatasetWrapper, kind: str, view: int | None = None) -> str | None:
        """Return the key of an entry; None if the transform is not the configured one.

        Args:
            source: the images in order, with their transform.
            kind: pooled, raw or local.
            view: index of the cached augmentation; None without augmentation.
        """
        transform = _configured_transform(source)
        if transform is None:
            return None
        found = (item.impath for item in source.data_source)
        paths = [path if path.startswith("/") else str(Path(path).absolute()) for path in found]
        parts = {
            **{"kind": kind, "view": view, "paths": paths},
            **{"transform": transform, "decode": source.decode},
            **({} if view is None else {"batch_size": VIEW_BATCH, "padded": True}),
        }
        return _digest({**self._computed_by, **parts})

    def has(self, source: DatasetWrapper, kind: str, view: int) -> bool:
        """Return whether a view of these images is stored."""
        key = self.key(source, kind, view) if self.enabled else None
        return key is not None and self.store.path(key).is_file()

    def get(
        self,
        source: DatasetWrapper,
        kind: str,
        make: Callable[[], Iterable[Tensor]],
        view: int | None = None,
    ) -> StoredRows | None:
        """Return the features of images from the cache, after computing them if needed.

        Args:
            source: see `key`.
            kind: see `key`.
            make: computes the features of all images in order, batch by batch.
            view: see `key`.

        Returns:
            One row per image; None if they cannot be cached: the cache is disabled or cannot be
            written, the transform is not the configured one, or an image file is missing.
        """
        key = self.key(source, kind, view) if self.enabled else None
        fingerprint = files_fingerprint(source.data_source) if key else None
        if key is None or fingerprint is None:
            return None
        if (key, fingerprint) in self._opened:
            return self._opened[key, fingerprint]
        rows = self.store.get(key, fingerprint, len(source), make, STORED_AS[kind])
        if rows is None:
            self.enabled = False  # do not retry, and print the reason only once
        else:
            print(f"The features of {len(rows):,} images are cached in {self.store.path(key)}")
            self._opened[key, fingerprint] = rows
        return rows


@torch.no_grad()
def weights_fingerprint(encoder: nn.Module) -> dict[str, int]:
    """Return the exact sum of each tensor's bits, read as integers; equal on every device.

    They identify random weights, and weights that were changed after loading.
    """
    sums = {
        name: value.contiguous().view(_INTEGERS[value.element_size()]).sum(dtype=torch.int64)
        for name, value in encoder.state_dict().items()
    }
    return dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True))


def files_fingerprint(items: Sequence[Datum]) -> str | None:
    """Return a hash of the files' sizes and modification times; None if one cannot be read."""
    try:
        # Constructing a Path of each of thousands of files takes longer than os.stat itself.
        stats = [os.stat(item.impath) for item in items]  # noqa: PTH116
    except OSError:
        return None  # opening the image reports the error
    return _digest([[stat.st_size, stat.st_mtime_ns] for stat in stats])


def _configured_transform(source: DatasetWrapper) -> str | None:
    """Return the `repr` of the images' transform; None for a transform that is not configured.

    Only the `repr` of the configured transforms is known to describe them completely.
    """
    if source.transform is None:
        return repr(source.to_tensor)
    configured = repr(build_transform(source.cfg, is_train=source.is_train))
    return configured if repr(source.transform) == configured else None


def _digest(value: Any) -> str:
    """Return the SHA-256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
