"""DataManager: the dataset of a run and its data loaders."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch.utils.data import DataLoader, Dataset

from safeio.errors import UserError

from ..config import Config, complete_config
from ..utils import choose_device
from .broken_images import check_classes_left, without_broken
from .dataset_wrapper import DatasetWrapper, Transform
from .datasets import Datum, build_dataset, refuse_one_class
from .datasets.overlaps import Overlaps
from .image_files import check_files
from .samplers import EpochSampler, build_sampler
from .transforms import build_transform

GRACE_SECONDS = 20  # from SIGTERM to the end of a loader worker
_PARTS = {"train_x": "training", "train_u": "unlabelled", "val": "validation", "test": "test"}


class EndingLoader(DataLoader[Any]):
    """DataLoader that ends its workers at once when reading an item fails.

    PyTorch ends them when the garbage collector finds the iterator in the error's traceback, maybe
    after their queues, and then waits for them: half a minute for one sentence about an image.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield batches."""
        iterator = super().__iter__()
        try:
            yield from iterator
        except Exception:
            if end := getattr(iterator, "_shutdown_workers", None):
                end()
                self._iterator = None  # of persistent workers
            raise


def build_data_loader(
    cfg: Config,
    sampler_type: str = "SequentialSampler",
    data_source: Sequence[Datum] | None = None,
    batch_size: int = 64,
    n_domain: int = 0,
    n_ins: int = 2,
    tfm: Transform | Sequence[Transform] | None = None,
    is_train: bool = True,
    dataset_wrapper: Callable[..., Dataset[Any]] | None = None,
    drop_last: bool = True,
) -> DataLoader[Any]:
    """Build the data loader of a list of images.

    Args:
        cfg: SEED, DATALOADER and INPUT are read.
        sampler_type: see `build_sampler`.
        data_source: the images.
        batch_size: images in a batch.
        n_domain: domains in a batch, for the domain samplers.
        n_ins: images of a class in a batch, for RandomClassSampler.
        tfm: transform or transforms.
        is_train: whether the images are trained on.
        dataset_wrapper: replaces `DatasetWrapper`.
        drop_last: training drops an incomplete last batch, unless it is the only one.

    Raises:
        UserError: the list is empty, or the sampler is unknown.
    """
    if not data_source:
        raise UserError(
            f"The {'training' if is_train else 'test'} part of {cfg.DATASET.NAME or 'the dataset'} "
            "contains no images"
        )
    sampler = build_sampler(
        sampler_type,
        cfg=cfg,
        data_source=data_source,
        batch_size=batch_size,
        n_domain=n_domain,
        n_ins=n_ins,
    )
    wrapper = DatasetWrapper if dataset_wrapper is None else dataset_wrapper
    # Batches do not depend on the number of workers; more workers than cores would only wait.
    workers = min(cfg.DATALOADER.NUM_WORKERS, os.cpu_count() or 1)
    # The loader has its own generator: if it drew from the global one, an evaluation during
    # training would change the random numbers of the training after it.
    generator = torch.Generator()
    generator.manual_seed(sampler.seed)
    return EndingLoader(
        wrapper(cfg, data_source, transform=tfm, is_train=is_train),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0 and is_train,
        drop_last=drop_last and is_train and len(data_source) >= batch_size,
        pin_memory=choose_device(cfg).type == "cuda",
        generator=generator,
        worker_init_fn=outlive_signals,
    )


def outlive_signals(worker: int) -> None:
    """Make a loader worker ignore SIGINT and delay SIGTERM; the trainer ends it after saving.

    Terminals and schedulers send signals to all processes of a run, but a trainer needs its
    workers to finish the current batch.
    """
    del worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_SECONDS))


def set_loader_epoch(loader: Any, epoch: int) -> None:
    """Set the epoch of a loader's sampler, if the sampler is an `EpochSampler`."""
    sampler = getattr(loader, "sampler", None)
    if isinstance(sampler, EpochSampler):
        sampler.set_epoch(epoch)


class DataManager:
    """The dataset of a run with its loaders.

    Args:
        cfg: the configuration.
        custom_tfm_train: replaces the training transform.
        custom_tfm_test: replaces the test transform.
        dataset_wrapper: replaces `DatasetWrapper`.

    Attributes:
        dataset: the dataset, with all its images.
        items: the images of train_x, train_u, val and test that are loaded, or None.
        skipped_images: number of images that DATALOADER.ON_BAD_IMAGE skips.
        split_check: number of images that are twice in a list or in two lists, see `find_overlaps`.
        num_classes: number of classes.
        num_source_domains: number of source domains.
        lab2cname: label -> class name.
        train_loader_x, train_loader_u, val_loader, test_loader: loaders, None if there are no
            images.
        tfm_train, tfm_test: transforms.
    """

    def __init__(
        self,
        cfg: Config,
        custom_tfm_train: Transform | Sequence[Transform] | None = None,
        custom_tfm_test: Transform | None = None,
        dataset_wrapper: Callable[..., Dataset[Any]] | None = None,
    ) -> None:
        self.cfg = cfg = complete_config(cfg)
        self.dataset = build_dataset(cfg)
        self.tfm_train: Any = custom_tfm_train or build_transform(cfg, is_train=True)
        self.tfm_test: Any = custom_tfm_test or build_transform(cfg, is_train=False)
        self.num_classes: int = self.dataset.num_classes
        self.num_source_domains = len(cfg.DATASET.SOURCE_DOMAINS)
        self.lab2cname: dict[int, str] = self.dataset.lab2cname
        loaders = cfg.DATALOADER
        unlabelled = loaders.TRAIN_X if loaders.TRAIN_U.SAME_AS_X else loaders.TRAIN_U
        self._wrapper = dataset_wrapper
        self.items = {part: getattr(self.dataset, part) for part in _PARTS}
        if any(items is not None for items in self.items.values()):
            refuse_one_class(cfg.DATASET.NAME, self.lab2cname)
        self._checked: set[str] = set()  # parts whose images are known to exist
        self.split_check: Overlaps = dict(getattr(self.dataset, "split_check", {}))
        self.skipped_images = self._skip_broken() if loaders.ON_BAD_IMAGE == "skip" else 0
        self.train_loader_x = self._loader(self.items["train_x"], loaders.TRAIN_X, True)
        if self.train_loader_x is not None and self._wrapper is None:
            self.train_loader_x.dataset.pool = getattr(self.dataset, "pool", ())
        self.train_loader_u = self._loader(self.items["train_u"], unlabelled, True)
        self.val_loader = self._loader(self.items["val"], loaders.TEST, False)
        self.test_loader = self._loader(self.items["test"], loaders.TEST, False)
        if cfg.VERBOSE:
            self.show_dataset_summary(cfg)

    def check_images(self, *parts: str) -> None:
        """Make sure that the images of parts (default: all) exist, and warn of duplicates.

        Raises:
            UserError: images are missing.
        """
        requested = set(parts or _PARTS)
        # A custom dataset_wrapper may read something other than files.
        if self._wrapper is None and not requested <= self._checked:
            lists = {
                what: self.items[part] or () for part, what in _PARTS.items() if part in requested
            }
            self.split_check |= check_files(self.cfg.DATASET.NAME, lists, self.split_check)
            self._checked |= requested

    def _skip_broken(self) -> int:
        """Remove images that cannot be decoded from `items`; return how many."""
        self.check_images()
        folder = Path(self.cfg.DATASET.ROOT).expanduser().absolute() / "image_checks"
        skipped = 0
        for part, what in _PARTS.items():
            items = self.items[part]
            if items:
                self.items[part] = without_broken(items, what, folder)
                skipped += len(items) - len(self.items[part])
        if self.items["train_x"]:
            check_classes_left(self.dataset.train_x, self.items["train_x"])
        return skipped

    def _loader(self, data: Sequence[Datum] | None, group: Any, is_train: bool) -> Any:
        if not data:
            return None
        return build_data_loader(
            self.cfg,
            sampler_type=group.SAMPLER,
            data_source=data,
            batch_size=group.BATCH_SIZE,
            n_domain=group.get("N_DOMAIN", 0),
            n_ins=group.get("N_INS", 16),
            tfm=self.tfm_train if is_train else self.tfm_test,
            is_train=is_train,
            dataset_wrapper=self._wrapper,
            drop_last=group.get("DROP_LAST", True),
        )

    def show_dataset_summary(self, cfg: Config) -> None:
        """Print the table of the dataset's sizes."""
        data = cfg.DATASET
        table: list[list[str]] = [["Dataset", data.NAME]]
        if data.SOURCE_DOMAINS:
            table.append(["Source", ", ".join(data.SOURCE_DOMAINS)])
        if data.TARGET_DOMAINS:
            table.append(["Target", ", ".join(data.TARGET_DOMAINS)])
        table.append(["# classes", f"{self.num_classes:,}"])
        for part, items in self.items.items():
            if items:
                table.append([f"# {part}", f"{len(items):,}"])
        print(tabulate(table, tablefmt="simple"))
