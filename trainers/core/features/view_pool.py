"""Features of one augmentation ("view") of training images, taken from those of a common pool.

Seeds and numbers of shots draw overlapping samples of the same images. A process that trains many
runs encodes a view of all these images once, if they are not many more than the first sample; every
sample takes its rows. An image's features do not depend on the images beside it (`VIEW_BATCH`), so
they are the same bit for bit if a run computes only its own.
"""

import copy
import hashlib
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dassl.data import DatasetWrapper
from dassl.data.data_manager import EndingLoader, outlive_signals
from dassl.data.images import read_image
from dassl.utils import cached, is_reusing, isolated_rng
from safeio.checksums import file_digest
from safeio.errors import UserError

from .cache import STORED_AS, VIEW_BATCH, files_fingerprint
from .evaluation import FeatureEncoder
from .store import StoredRows

# The pool is encoded if it has at most this number of images for each one of the sample, and looked
# for if it has at most MOST_IN_POOL: its key is a hash of all its paths.
POOL_PER_IMAGE = 4
MOST_IN_POOL = 100_000


class ViewImages(Dataset[dict[str, Any]]):
    """One augmentation of every training image; an item is {"img"}."""

    def __init__(self, source: DatasetWrapper, view: int) -> None:
        self.source = source
        self.view = view

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path = self.source.data_source[index].impath
        image = read_image(path, self.source.decode)
        transform: Any = self.source.transform or self.source.to_tensor
        with isolated_rng(view_seed(path, self.view)):
            return {"img": transform(image)}


def view_seed(path: str, view: int) -> int:
    """Return the seed of an image's view, which depends on the file's content, not on its path."""
    return int.from_bytes(
        hashlib.sha256(f"{file_digest(path)}/{view}".encode()).digest()[:7], "big"
    )


def view_features(trainer: FeatureEncoder, loader: Any, kind: str, view: int) -> StoredRows:
    """Return the features of one augmentation of every image of a training loader, in order."""
    source: DatasetWrapper = loader.dataset
    cache = trainer.cached_features.cache
    if not is_reusing():
        return _from_pool_or_own(trainer, loader, kind, view)
    images = (
        tuple(item.impath for item in source.data_source),
        files_fingerprint(source.data_source),
    )
    key = (cache.identity, kind, view, images, repr(source.transform), source.decode)
    return cached("views", key, lambda: _from_pool_or_own(trainer, loader, kind, view))


def _from_pool_or_own(trainer: FeatureEncoder, loader: Any, kind: str, view: int) -> StoredRows:
    cache, source = trainer.cached_features.cache, loader.dataset
    if inside := _places_in_pool(source):
        pool = copy.copy(source)
        pool.data_source = source.pool
        worth_it = is_reusing() and len(pool) <= POOL_PER_IMAGE * len(source)
        if worth_it or cache.has(pool, kind, view):
            # A broken image of the pool costs only runs that train on it.
            with suppress(UserError):
                make = partial(_compute, trainer, loader, pool, kind, view)
                if (rows := cache.get(pool, kind, make, view)) is not None:
                    return rows.select(inside)

    make = partial(_compute, trainer, loader, source, kind, view)
    # Without the cache, this run computes the views in memory, rounded as on disk.
    rows = cache.get(source, kind, make, view)
    return StoredRows.in_memory(make(), STORED_AS[kind]) if rows is None else rows


def _places_in_pool(source: DatasetWrapper) -> list[int]:
    """Return where the images are in their pool; empty if there is none, or it is too large."""
    if len(source.pool) > MOST_IN_POOL:
        return []
    place = {item.impath: index for index, item in enumerate(source.pool)}
    found = [place.get(item.impath) for item in source.data_source]
    inside = [index for index in found if index is not None]
    return inside if len(inside) == len(found) else []


def _compute(
    trainer: FeatureEncoder, loader: Any, source: DatasetWrapper, kind: str, view: int
) -> Iterator[Tensor]:
    """Yield the features in padded batches of VIEW_BATCH images, without the padding."""
    left = len(source)
    images = EndingLoader(
        ViewImages(source, view),
        batch_size=VIEW_BATCH,
        sampler=[*range(left), *[left - 1] * (-left % VIEW_BATCH)],
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        generator=torch.Generator(),
        worker_init_fn=outlive_signals,
    )
    for block in trainer.cached_features.compute(images, kind):
        yield block[:left]
        left -= len(block)
