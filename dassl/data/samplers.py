"""Samplers whose order depends on the seed and the epoch alone.

Every index carries a seed for augmentation; a batch uses that of its first index. So the batches of
an epoch do not depend on the number of workers or on whether the run was resumed.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Literal

import torch
from torch.utils.data import Sampler

from safeio.errors import UserError

from .datasets import Datum


class SeededIndex(int):
    """Dataset index with the augmentation seed of the batch that starts with it."""

    seed: int

    def __new__(cls, index: int, seed: int = 0) -> "SeededIndex":
        """Create the index."""
        self = super().__new__(cls, index)
        self.seed = seed
        return self

    def __getnewargs__(self) -> tuple[int]:
        """Return the arguments for unpickling in a worker; the seed is in __dict__."""
        return (int(self),)


class EpochSampler(Sampler[int]):
    """Sampler whose order depends on the seed (random if negative), the epoch and the pass in it.

    Attributes:
        epoch: set by the training loop before each epoch.
    """

    def __init__(self, data_source: Sequence[Datum], seed: int = 0) -> None:
        self.data_source = data_source
        self.seed = seed if seed >= 0 else torch.seed() % 2**63
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next passes."""
        self.epoch = epoch
        self._passes = 0
        self._skip = 0

    def skip(self, count: int) -> None:
        """Skip the first `count` indices of the next pass only."""
        self._skip = count

    def order(self, rng: Random) -> Sequence[int]:
        """Return the indices of one pass."""
        raise NotImplementedError

    def next_rng(self) -> Random:
        """Return the random generator of the next pass."""
        # A string's hash differs between processes, so the three numbers go through SHA-256.
        name = f"{self.seed}/{self.epoch}/{self._passes}".encode()
        return Random(int.from_bytes(hashlib.sha256(name).digest()[:8], "big"))

    def __iter__(self) -> Iterator[int]:
        rng = self.next_rng()
        self._passes += 1
        skip, self._skip = self._skip, 0
        for place, index in enumerate(self.order(rng)):
            seeded = SeededIndex(index, rng.getrandbits(63))
            if place >= skip:
                yield seeded

    def __len__(self) -> int:
        return len(self.data_source)


class SequentialSampler(EpochSampler):
    """All images in their order."""

    def order(self, rng: Random) -> Sequence[int]:
        """Return the indices in their order."""
        return range(len(self.data_source))


class RandomSampler(EpochSampler):
    """All images, shuffled."""

    def order(self, rng: Random) -> Sequence[int]:
        """Return a permutation."""
        return rng.sample(range(len(self.data_source)), len(self.data_source))


class _GroupSampler(EpochSampler):
    """Sampler of batches with n_ins images from each of n_groups groups (labels or domains)."""

    groups_are: Literal["label", "domain"]

    def __init__(
        self, data_source: Sequence[Datum], seed: int, batch_size: int, n_groups: int, n_ins: int
    ) -> None:
        super().__init__(data_source, seed)
        self.groups: dict[int, list[int]] = defaultdict(list)
        for index, item in enumerate(data_source):
            self.groups[getattr(item, self.groups_are)].append(index)
        if n_ins > batch_size:
            raise UserError(
                f"DATALOADER.TRAIN_X.N_INS is {n_ins}, more than the batch of {batch_size} images"
            )
        if n_groups <= 0 and n_ins > 0:
            n_groups = batch_size // n_ins
        n_groups = min(n_groups, len(self.groups)) or len(self.groups)
        if batch_size % n_groups:
            raise UserError(
                f"A batch of {batch_size} images cannot be divided among {n_groups} groups; change "
                "DATALOADER.TRAIN_X.BATCH_SIZE or N_DOMAIN"
            )
        self.n_groups = n_groups
        self.n_ins = batch_size // n_groups

    def choose(self, open_groups: list[int], rng: Random) -> list[int]:
        return rng.sample(open_groups, self.n_groups)

    def order(self, rng: Random) -> Sequence[int]:
        """Return the indices of batches until too few groups have n_ins images left."""
        left = {group: rng.sample(indices, len(indices)) for group, indices in self.groups.items()}
        for group, indices in left.items():
            if len(indices) < self.n_ins:
                left[group] = rng.choices(indices, k=self.n_ins)
        order: list[int] = []
        while True:
            open_groups = [group for group, indices in left.items() if len(indices) >= self.n_ins]
            if len(open_groups) < self.n_groups:
                return order
            for group in self.choose(open_groups, rng):
                order += left[group][: self.n_ins]
                del left[group][: self.n_ins]

    def __len__(self) -> int:
        # The number of batches is random; trainers call this before each epoch.
        return len(self.order(self.next_rng()))


class RandomDomainSampler(_GroupSampler):
    """Batches of N_DOMAIN random domains with equally many images of each."""

    groups_are = "domain"


class SeqDomainSampler(RandomDomainSampler):
    """Batches of all domains, in their order, with equally many images of each."""

    def choose(self, open_groups: list[int], rng: Random) -> list[int]:
        """Return the domains in ascending order."""
        return sorted(open_groups)[: self.n_groups]


class RandomClassSampler(_GroupSampler):
    """Batches of random classes with N_INS images of each."""

    groups_are = "label"


def build_sampler(
    sampler_type: str,
    cfg: Any = None,
    data_source: Sequence[Datum] = (),
    batch_size: int = 32,
    n_domain: int = 0,
    n_ins: int = 16,
) -> EpochSampler:
    """Create a sampler by name.

    Args:
        sampler_type: RandomSampler, SequentialSampler, RandomDomainSampler, SeqDomainSampler or
            RandomClassSampler.
        cfg: its SEED is used.
        data_source: the images.
        batch_size: images in a batch.
        n_domain: domains in a batch; 0 for all.
        n_ins: images of a class in a batch, for RandomClassSampler.

    Raises:
        UserError: the name is unknown, or the batch cannot be divided among the groups.
    """
    seed = cfg.SEED if cfg is not None else -1
    ungrouped = {"RandomSampler": RandomSampler, "SequentialSampler": SequentialSampler}
    grouped: dict[str, tuple[type[_GroupSampler], int, int]] = {
        "RandomDomainSampler": (RandomDomainSampler, n_domain, 0),
        "SeqDomainSampler": (SeqDomainSampler, 0, 0),
        "RandomClassSampler": (RandomClassSampler, 0, n_ins),
    }
    if sampler_type in ungrouped:
        return ungrouped[sampler_type](data_source, seed)
    if sampler_type not in grouped:
        accepted = ", ".join([*ungrouped, *grouped])
        raise UserError(f'The sampler "{sampler_type}" is unknown; accepted: {accepted}')
    sampler, n_groups, n_ins = grouped[sampler_type]
    return sampler(data_source, seed, batch_size, n_groups, n_ins)


def skip_batches(loader: Any, count: int) -> bool:
    """Make a loader's next pass skip `count` batches without loading them.

    Returns:
        Whether its sampler supports this.
    """
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, EpochSampler) or loader.batch_size is None:
        return False
    sampler.skip(count * loader.batch_size)
    return True
