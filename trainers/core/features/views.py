"""INPUT.TRAIN_VIEWS: train on K cached augmentations ("views") of every image, encoded once.

With `epochs` instead of K, epoch e trains on view e: a new augmentation in every epoch, as in the
papers.

View v of an image depends only on the file's content and v. So all runs, seeds and methods that
train on the same images share the features. Every item of a batch draws one of the K views with the
seed that the sampler assigns, which depends only on the run's seed and the epoch.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dassl.config import CfgNode, declare_config, declare_word
from dassl.data import DatasetWrapper
from dassl.data.data_manager import outlive_signals
from dassl.data.samplers import EpochSampler
from dassl.engine.build import TRAINER_CHECKS
from dassl.engine.capabilities import Capability
from safeio.errors import UserError

from .evaluation import FeatureEncoder
from .store import StoredRows
from .view_pool import ViewImages, view_features

# 0: augment images anew in every epoch; K: draw from K cached augmentations of each image;
# epochs: as many cached augmentations as epochs, one for each.
declare_config("INPUT", {"TRAIN_VIEWS": 0})
declare_word("INPUT.TRAIN_VIEWS", "epochs")

EPOCHS = "epochs"
KEPT_BYTES = 1 << 30  # of a run's cached augmentations, held in memory

# `trains_on_features`: a training step accepts batches of features instead of images.
TRAINING = Capability(frozenset({"run_epoch", "forward_backward", "parse_batch_train"}))


def check_setting(trainer_class: Any, cfg: CfgNode) -> None:
    """Raise an error if INPUT.TRAIN_VIEWS is set for a trainer that needs images.

    Raises:
        UserError: the trainer needs images, or it is neither a number nor `epochs`.
    """
    views = cfg.INPUT.TRAIN_VIEWS
    if views != EPOCHS and (not isinstance(views, int) or views < 0):
        raise UserError(f"INPUT.TRAIN_VIEWS is {views}, but must be at least 0, or {EPOCHS}")
    if views and not getattr(trainer_class, "trains_on_features", False):
        raise UserError(
            f"INPUT.TRAIN_VIEWS is {views}, but {cfg.TRAINER.NAME} does not train "
            "on features of a frozen image encoder; leave it at 0"
        )


TRAINER_CHECKS.append(check_setting)


class FeatureBank:
    """The rows of several lists of views, in one tensor if they are few.

    Args:
        lists: the views; lists of the same views are held once.
        limit: bytes that may be held in memory; more are read from the files again and again.
        device: of the rows.
    """

    def __init__(
        self,
        lists: Sequence[Sequence[StoredRows]],
        limit: int,
        device: torch.device | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self._rows = list({id(rows): rows for views in lists for rows in views}.values())
        starts = [0, *accumulate(map(len, self._rows))]
        self._starts = {id(rows): start for rows, start in zip(self._rows, starts, strict=False)}
        # The first row of each list; its views follow each other.
        self.offsets = [self._starts[id(views[0])] for views in lists]
        self._kept: Tensor | None = None
        if sum(rows.nbytes for rows in self._rows) <= limit:
            self._kept = torch.cat([rows.read(0, len(rows), self.device) for rows in self._rows])
        # Where `take` wants the places.
        self.index_device = self.device if self._kept is not None else torch.device("cpu")

    def take(self, places: Int[Tensor, "*batch"]) -> Float[Tensor, "*features"]:
        """Return the rows at these places."""
        if self._kept is not None:
            return self._kept[places]
        rows = [self._read(place) for place in places.flatten().tolist()]
        return torch.cat(rows).unflatten(0, places.shape).to(self.device, non_blocking=True)

    def _read(self, place: int) -> Tensor:
        found = next(rows for rows in reversed(self._rows) if self._starts[id(rows)] <= place)
        return found.take([place - self._starts[id(found)]])


class ViewFeatures(Dataset[dict[str, Any]]):
    """Batches of features: {"features", "label", "domain", "impath", "index"}, perhaps "img".

    Args:
        source: the training images.
        views: the features of each view, one row per image.
        sampler: states the epoch if view e is that of epoch e; else None.
        with_images: add the augmented images.
    """

    def __init__(
        self,
        source: DatasetWrapper,
        views: Sequence[StoredRows],
        sampler: EpochSampler | None = None,
        with_images: bool = False,
    ) -> None:
        self.source = source
        self.views = views
        self.sampler = sampler
        self.with_images = with_images

    def __len__(self) -> int:
        return len(self.source)

    def places(self, indices: Sequence[Any]) -> list[int]:
        """Return the rows of a batch among all views' rows; each index's seed draws its view."""
        size, views = len(self), len(self.views)
        if self.sampler is not None:
            return [self.sampler.epoch % views * size + int(index) for index in indices]
        return [index.seed % views * size + int(index) for index in indices]

    @cached_property
    def _bank(self) -> FeatureBank:
        return FeatureBank([self.views], KEPT_BYTES)

    def __getitems__(self, indices: Sequence[Any]) -> dict[str, Any]:
        """Return a batch."""
        items = [self.source.data_source[index] for index in indices]
        places = self.places(indices)
        return {
            **({"img": self._images(places)} if self.with_images else {}),
            "features": self._bank.take(torch.tensor(places)),
            "label": torch.tensor([item.label for item in items]),
            "domain": torch.tensor([item.domain for item in items]),
            "impath": [item.impath for item in items],
            "index": torch.tensor([int(index) for index in indices]),
        }

    def _images(self, places: Sequence[int]) -> Float[Tensor, "batch 3 height width"]:
        where = [divmod(place, len(self)) for place in places]
        return torch.stack([ViewImages(self.source, view)[index]["img"] for view, index in where])


def check_views(trainer: FeatureEncoder, loader: Any, views: int | str) -> str:
    """Check that features can replace the images of a training loader.

    Returns:
        The kind of the features.

    Raises:
        UserError: the method or the loader needs the images.
    """
    kind, dataset = trainer.cached_features.kind(), loader.dataset
    standard = type(dataset) is DatasetWrapper and isinstance(loader.sampler, EpochSampler)
    if standard and (dataset.k_tfm > 1 or dataset.return_img0):
        raise UserError(
            f"INPUT.TRAIN_VIEWS is {views}, which gives one view of each image; leave "
            "DATALOADER.K_TRANSFORMS at 1 and RETURN_IMG0 at False"
        )
    if kind is None or not standard:
        raise UserError(
            f"INPUT.TRAIN_VIEWS is {views}, but {type(trainer).__name__} trains on the images "
            "themselves; leave it at 0"
        )
    return kind


def view_loader(
    trainer: FeatureEncoder,
    loader: Any,
    views: int | str,
    with_images: bool = False,
    kind: str | None = None,
) -> DataLoader[Any]:
    """Return a loader of features with the same items and batches as a loader of images.

    Args:
        trainer: computes the features.
        loader: the training images.
        views: K, or `epochs`.
        with_images: let batches have the augmented images, too.
        kind: of the features; None: those that the trainer classifies.

    Raises:
        UserError: see `check_views`.
    """
    kind, dataset = kind or check_views(trainer, loader, views), loader.dataset
    count = trainer.max_epoch if views == EPOCHS else int(views)
    print(f"Training draws from {count} cached augmentations of each of {len(dataset):,} images")
    rows = [view_features(trainer, loader, kind, view) for view in range(count)]
    # Without a generator, each epoch would draw from the global one.
    generator = torch.Generator()
    generator.manual_seed(loader.sampler.seed)
    return DataLoader(
        ViewFeatures(dataset, rows, loader.sampler if views == EPOCHS else None, with_images),
        batch_size=loader.batch_size,
        sampler=loader.sampler,
        drop_last=loader.drop_last,
        pin_memory=loader.pin_memory,
        collate_fn=_unchanged,
        generator=generator,
        # Not persistent: each epoch's workers get a copy of the sampler, which states the epoch.
        num_workers=loader.num_workers if with_images else 0,
        worker_init_fn=outlive_signals,
    )


def _unchanged(batch: Any) -> Any:
    return batch
