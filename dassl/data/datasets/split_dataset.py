"""CoOp's few-shot protocol for a folder of images with a split file."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from safeio.checksums import DamagedFile, read_verified_json, write_json_with_checksum
from safeio.errors import UserError
from safeio.untrusted import one_line, short_repr

from ...config import Config
from ...utils import cached, file_state, isolated_rng
from .base_dataset import DatasetBase, Datum
from .class_checks import check_classes, warn_of_numbers
from .coop_fewshot import compare_sample
from .overlaps import Overlaps, describe, find_overlaps, path_keys
from .source import Source, needed_paths, refuse_missing
from .splits import (
    Split,
    entries_digest,
    read_items,
    read_split,
    sample_total,
    save_split,
    subsample_classes,
    task_classes,
    to_entries,
)

T = TypeVar("T")

# Generated splits are the same on every machine and for every seed of a run.
SPLIT_SEED = 1


class SplitDataset(DatasetBase):
    """Dataset in one folder below the data root; subclasses set the attributes.

    Construction reads the split (or creates and saves it), takes the few-shot sample (or reads the
    saved one of the same shots and seed), and then selects all, base or new classes, and then
    those of tasks.

    Attributes:
        dataset_dir: folder below cfg.DATASET.ROOT.
        image_dir: folder below it to which the split file's paths are relative.
        split_file: name of the split file in dataset_dir; "" to make the split in every run.
        split_sources: files in dataset_dir that `make_split` reads, needed without a split file.
        sources: files and folders that dataset_dir must contain, and where to download them.
        naming_advice: end of the warning that class names are numbers.
        max_val_shots: maximum number of validation images a class in a few-shot sample.
        root, directory, images: the absolute paths of data root, dataset folder and image folder.
        split_check: number of images that are twice in a list of the split or in two lists.
    """

    naming_advice = "; name them"
    image_dir = "images"
    split_file = ""
    split_sources: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    max_val_shots = 4

    def __init__(self, cfg: Config) -> None:
        """Load the dataset.

        Raises:
            UserError: a folder is missing or a file is wrong.
        """
        self.cfg = cfg
        self.root = Path(cfg.DATASET.ROOT).expanduser().absolute()
        self.directory = self.root / self.dataset_dir
        self.images = self.directory / self.image_dir
        if self.domains:
            self.check_input_domains(cfg.DATASET.SOURCE_DOMAINS, cfg.DATASET.TARGET_DOMAINS)
        self.prepare()
        self.check_folders()
        split = self.load_split()
        self.split_check = self.check_overlaps(split)
        train, val, test = split["train"], split["val"], split["test"]
        if cfg.DATASET.SOURCE_DOMAINS:
            train, val = self.source_items(cfg.DATASET.SOURCE_DOMAINS, train, val)
        if cfg.DATASET.NUM_SHOTS >= 1 and train:
            self.report_small_classes(train)
            self.pool = train
            train, val = self.sample_fewshot(train, val)
        if cfg.DATASET.TARGET_DOMAINS:
            test = self.target_test(cfg.DATASET.TARGET_DOMAINS)
        train, val, test = subsample_classes(
            train, val, test, subsample=cfg.DATASET.SUBSAMPLE_CLASSES
        )
        if tasks := cfg.DATASET.TASKS:
            own = {"task": cfg.DATASET.TASK, "part": cfg.DATASET.TASK_CLASSES, "seed": cfg.SEED}
            train, val, test = task_classes(train, val, test, tasks=tasks, **own)
        super().__init__(train_x=train, val=val, test=test)
        if cfg.DATASET.NUM_TRAIN >= 1 and train:  # the class names are those of all images
            rng = Random(cfg.SEED) if cfg.SEED >= 0 else Random()
            self._train_x, self._val = sample_total(train, val, cfg.DATASET.NUM_TRAIN, rng)

    def prepare(self) -> None:
        """Hook: create or unpack missing images. Does nothing by default."""

    def make_split(self) -> Split:
        """Hook: return {"train", "val", "test"} if there is no split file.

        Raises:
            UserError: this dataset requires its split file.
        """
        raise UserError(
            f"{self.directory / self.split_file} is missing; {type(self).__name__} needs it"
        )

    def source_items(
        self, domains: Sequence[str], train: list[Datum], val: list[Datum]
    ) -> tuple[list[Datum], list[Datum]]:
        """Hook: return the training and validation images of cfg.DATASET.SOURCE_DOMAINS.

        Raises:
            UserError: this dataset has no source domains.
        """
        raise UserError(
            f"{type(self).__name__} has no source domains, but DATASET.SOURCE_DOMAINS is "
            f"{', '.join(map(one_line, domains))}; leave it (--source-domains) empty"
        )

    def target_test(self, domains: Sequence[str]) -> list[Datum]:
        """Hook: return the test images of other domains (cfg.DATASET.TARGET_DOMAINS).

        Raises:
            UserError: this dataset has no target domains.
        """
        raise UserError(
            f"{type(self).__name__} has no target domains, but DATASET.TARGET_DOMAINS is "
            f"{', '.join(map(one_line, domains))}; leave it (--target-domains) empty"
        )

    def check_folders(self) -> None:
        """Make sure that all required files exist.

        Raises:
            UserError: the data root is empty, or files are missing; see `refuse_missing`.
        """
        if not self.cfg.DATASET.ROOT:
            raise UserError(
                "The data root is empty; set it with --root to the folder that contains "
                f"{self.dataset_dir}/"
            )
        needed = needed_paths(self.image_dir, self.sources, self.split_sources)
        paths = [(path, "") for path in needed]
        if not (self.split_file and (self.directory / self.split_file).is_file()):
            alternative = f"or {self.split_file} instead" if self.split_file else ""
            paths += [(path, alternative) for path in self.split_sources]
        refuse_missing(type(self).__name__, self.root, self.dataset_dir, paths, self.sources)

    def load_split(self) -> Split:
        """Read the split file, or create the split and save it."""
        path = self.directory / self.split_file
        if self.split_file and path.is_file():
            split = cached(
                "split", (file_state(path), self.images), lambda: read_split(path, self.images)
            )
            split = {part: list(items) for part, items in split.items()}
            self.check_labels(split, path)
            return split
        with isolated_rng(SPLIT_SEED):
            split = self.make_split()
        self.check_labels(split, self.directory)
        if not self.split_file:
            return split
        try:
            return save_split(split, path, self.images)
        except OSError as error:
            # For example, a shared read-only folder: the next run creates the same split.
            print(f"The split could not be saved to {path}: {error.strerror}")
            return split

    def check_labels(self, split: Split, source: Path) -> None:
        """Make sure that labels and class names are valid, see `check_classes`; print warnings."""
        for name in check_classes(split, source):
            print(f'Several classes are called "{name}": their prompts are the same')
        classes, names = self.get_lab2cname(split["train"] or split["test"])
        warn_of_numbers(source, names, self.naming_advice)
        tested = {item.label for item in split["test"]}
        if tested and len(tested) < len(classes):
            untested = [name for label, name in classes.items() if label not in tested]
            count = f"{len(untested)} of its {len(classes)} classes"
            print(f"{source} has no test images of {count}: {short_repr(untested)}")

    def check_overlaps(self, split: Split) -> Overlaps:
        """Count duplicate images (`find_overlaps`), and print a warning if there are any."""

        def find() -> Overlaps:
            return find_overlaps(
                path_keys({part: [item.impath for item in split[part]] for part in split})
            )

        found = self._once_per_split("overlaps", find)
        if found:
            source = self.directory / self.split_file if self.split_file else type(self).__name__
            print(f"Warning: {source}: the same image is listed more than once: {describe(found)}")
        return found

    def _once_per_split(self, what: str, make: Callable[[], T]) -> T:
        """Return what follows from the split file alone, made once in a process of many runs."""
        state = file_state(self.directory / self.split_file) if self.split_file else None
        return cached("split", (what, state, self.images), make) if state else make()

    def sample_fewshot(
        self, train: list[Datum], val: list[Datum]
    ) -> tuple[list[Datum], list[Datum]]:
        """Return NUM_SHOTS training and at most `max_val_shots` validation images a class.

        The sample depends only on the split, the number of shots and the seed. It is saved in
        split_fewshot/ below the dataset's folder, and renewed when the split has changed.
        """
        shots, seed = self.cfg.DATASET.NUM_SHOTS, self.cfg.SEED
        if seed < 0:
            return self._sample(train, val, Random())
        name = f"shot_{shots}-seed_{seed}"
        repeat = ["repeat"] if self.cfg.DATASET.REPEAT_SHOTS else []
        options = "-".join([name, *repeat, *self.cfg.DATASET.SOURCE_DOMAINS])
        file = re.sub(r"[^\w.-]", "_", options) + ".json"
        path = self.directory / "split_fewshot" / file
        digest = self._once_per_split(
            f"digest of {self.cfg.DATASET.SOURCE_DOMAINS}",
            lambda: entries_digest({"train": train, "val": val}, self.images),
        )
        sample = self._load_sample(path, digest)
        if sample is None:
            sample = self._sample(train, val, Random(seed))
            self._save_sample(path, digest, sample)
        parts = dict(zip(("train", "val"), sample, strict=True))
        paths = {p: [e[0] for e in to_entries(d, self.images)] for p, d in parts.items()}
        if difference := compare_sample(path.with_name(f"{name}.pkl"), shots, seed, paths):
            print(f"Warning: {difference}")
        return sample

    def _load_sample(self, path: Path, digest: str) -> tuple[list[Datum], list[Datum]] | None:
        saved = _read_sample(path)
        if saved is None:
            return None
        if saved["split_sha256"] != digest:
            print(f"{path} was sampled from another split: sampling again")
            return None
        shots, seed = self.cfg.DATASET.NUM_SHOTS, self.cfg.SEED
        print(f"Loading the {shots}-shot items of seed {seed} from {path}")
        train, val = (read_items(saved[part], self.images, path) for part in ("train", "val"))
        return train, val

    def _save_sample(
        self, path: Path, digest: str, sample: tuple[list[Datum], list[Datum]]
    ) -> None:
        train, val = (to_entries(items, self.images) for items in sample)
        try:
            # Two runs at the same time write the same content, so the order does not matter.
            write_json_with_checksum({"split_sha256": digest, "train": train, "val": val}, path)
        except OSError as error:
            print(f"The few-shot items could not be saved to {path}: {error.strerror}")

    def report_small_classes(self, train: Sequence[Datum]) -> None:
        """Print the classes that have fewer images than shots, and how they are sampled."""
        shots, repeat = self.cfg.DATASET.NUM_SHOTS, self.cfg.DATASET.REPEAT_SHOTS
        small = [
            f"{items[0].classname} ({len(items)})"
            for items in self.split_dataset_by_label(train).values()
            if len(items) < shots
        ]
        if small:
            how = "some are used more than once" if repeat else "all of which are used"
            print(f"Classes with fewer than {shots} training images, {how}: {', '.join(small)}")

    def _sample(
        self, train: list[Datum], val: list[Datum], rng: Random
    ) -> tuple[list[Datum], list[Datum]]:
        shots = self.cfg.DATASET.NUM_SHOTS
        few_train = self.generate_fewshot_dataset(
            train, num_shots=shots, repeat=self.cfg.DATASET.REPEAT_SHOTS, rng=rng
        )
        val_shots = min(shots, self.max_val_shots)
        return few_train, self.generate_fewshot_dataset(val, num_shots=val_shots, rng=rng)


def _read_sample(path: Path) -> dict[str, Any] | None:
    try:
        content = read_verified_json(path)
    except OSError:
        return None
    except DamagedFile as error:
        print(f"Warning: {error}: sampling again")
        return None
    complete = isinstance(content, dict) and {"train", "val", "split_sha256"} <= set(content)
    return content if complete else None
