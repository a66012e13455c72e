"""Datum, the description of an image, and DatasetBase, lists of them."""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from safeio.archives import ArchiveError, extract
from safeio.errors import UserError
from safeio.untrusted import one_line

from ...utils.fetching import download_from_drive, download_url
from ...utils.names import check_availability


class Datum:
    """Image file with its label, domain and class name.

    Attributes:
        impath: path of the image file.
        label: class index, from 0.
        domain: domain index, from 0.
        classname: class name.
    """

    __slots__ = ("_classname", "_domain", "_impath", "_label")

    def __init__(
        self, impath: str = "", label: int = 0, domain: int = 0, classname: str = ""
    ) -> None:
        """Describe an image.

        Raises:
            TypeError: an argument has the wrong type.
            ValueError: the path is empty or an index is negative.
        """
        if not isinstance(impath, str) or not isinstance(classname, str):
            raise TypeError("Datum takes impath and classname as strings")
        if not isinstance(label, int) or not isinstance(domain, int):
            raise TypeError("Datum takes label and domain as integers")
        if not impath or label < 0 or domain < 0:
            raise ValueError("Datum needs a path, and a label and domain of at least 0")
        self._impath = impath
        self._label = label
        self._domain = domain
        self._classname = classname

    @property
    def impath(self) -> str:
        """Path of the image file."""
        return self._impath

    @property
    def label(self) -> int:
        """Class index."""
        return self._label

    @property
    def domain(self) -> int:
        """Domain index."""
        return self._domain

    @property
    def classname(self) -> str:
        """Class name."""
        return self._classname

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes under Dassl's names, so that Dassl's `Datum` can unpickle them."""
        return {name: getattr(self, name) for name in sorted(self.__slots__)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the pickled attributes of Dassl's `Datum` or of this one.

        Raises:
            TypeError: an attribute has the wrong type.
            ValueError: the path is empty or an index is negative.
        """
        self.__init__(**{name.removeprefix("_"): value for name, value in state.items()})  # type: ignore[misc]

    def _key(self) -> tuple[str, int, int, str]:
        return self._impath, self._label, self._domain, self._classname

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Datum) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Datum(impath={self._impath!r}, label={self._label}, classname={self._classname!r})"


def group_by(index: Literal["label", "domain"], items: Iterable[Datum]) -> dict[int, list[Datum]]:
    """Group images by label or domain, in order of first appearance."""
    groups: defaultdict[int, list[Datum]] = defaultdict(list)
    for item in items:
        groups[getattr(item, index)].append(item)
    return groups


class DatasetBase:
    """Training, unlabelled, validation and test images of a task.

    Attributes:
        dataset_dir: the dataset's folder below the data root.
        decode: how images are decoded, as_stored (as in CoOp) or as_viewed; INPUT.DECODE overrides
            it.
        domains: names of all domains.
        generated: whether the images are made at first use.
        pool: the images from which a few-shot sample was drawn; empty if unknown.
        templates: hand-written prompts for the class names.
        num_classes: largest training label + 1.
        lab2cname: label -> class name.
        classnames: class names by ascending label.
    """

    dataset_dir = ""
    decode = "as_stored"
    domains: Sequence[str] = ()
    generated = False
    pool: Sequence[Datum] = ()
    templates: Sequence[str] = ("a photo of a {}.",)

    def __init__(
        self,
        train_x: list[Datum] | None = None,
        train_u: list[Datum] | None = None,
        val: list[Datum] | None = None,
        test: list[Datum] | None = None,
    ) -> None:
        self._train_x = train_x
        self._train_u = train_u
        self._val = val
        self._test = test
        self._num_classes = self.get_num_classes(train_x or test or [])
        self._lab2cname, self._classnames = self.get_lab2cname(train_x or test or [])

    @property
    def train_x(self) -> list[Datum] | None:
        """Labelled training images."""
        return self._train_x

    @property
    def train_u(self) -> list[Datum] | None:
        """Unlabelled training images."""
        return self._train_u

    @property
    def val(self) -> list[Datum] | None:
        """Validation images."""
        return self._val

    @property
    def test(self) -> list[Datum] | None:
        """Test images."""
        return self._test

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self._num_classes

    @property
    def lab2cname(self) -> dict[int, str]:
        """Label -> class name."""
        return self._lab2cname

    @property
    def classnames(self) -> list[str]:
        """Class names by ascending label."""
        return self._classnames

    @staticmethod
    def get_num_classes(data_source: Sequence[Datum]) -> int:
        """Return the largest label + 1."""
        return max((item.label for item in data_source), default=-1) + 1

    @staticmethod
    def get_lab2cname(data_source: Sequence[Datum]) -> tuple[dict[int, str], list[str]]:
        """Return label -> class name, and the class names by ascending label."""
        names = {item.label: item.classname for item in data_source}
        mapping = {label: names[label] for label in sorted(names)}
        return mapping, list(mapping.values())

    def check_input_domains(
        self, source_domains: Sequence[str], target_domains: Sequence[str]
    ) -> None:
        """Make sure that all domains exist.

        Raises:
            UserError: see `is_input_domain_valid`.
        """
        self.is_input_domain_valid(source_domains)
        self.is_input_domain_valid(target_domains)

    def is_input_domain_valid(self, input_domains: Sequence[str]) -> None:
        """Make sure that domains exist.

        Raises:
            UserError: a domain is unknown, or the dataset has no domains; the message lists them.
        """
        for domain in input_domains:
            if not self.domains:
                raise UserError(
                    f'{type(self).__name__} has no domains, but "{one_line(domain)}" is requested '
                    "as one; leave DATASET.SOURCE_DOMAINS and DATASET.TARGET_DOMAINS "
                    "(--source-domains, --target-domains) empty"
                )
            check_availability(domain, list(self.domains), "The domain")

    def download_data(self, url: str, dst: str, from_gdrive: bool = True) -> None:
        """Download an archive and unpack it into its folder.

        Raises:
            UserError: the download or unpacking fails, or the package gdown is missing.
        """
        if from_gdrive:
            download_from_drive(url, dst)
        else:
            download_url(url, dst)
        try:
            extract(Path(dst), Path(dst).parent)
        except ArchiveError as error:
            raise UserError(f"{dst} cannot be unpacked: {error}") from error

    def generate_fewshot_dataset(
        self,
        *data_sources: list[Datum],
        num_shots: int = -1,
        repeat: bool = False,
        rng: Any = random,
    ) -> Any:
        """Sample the same number of images from each class.

        Args:
            *data_sources: lists to sample from.
            num_shots: images a class; if below 1, the lists are returned unchanged.
            repeat: whether to sample a class with too few images with replacement, rather than
                return all its images.
            rng: random generator; default: Python's global one.

        Returns:
            One list, or a list of lists for several sources. Classes are in the order of their
            first appearance.
        """
        if num_shots < 1:
            return data_sources[0] if len(data_sources) == 1 else list(data_sources)
        print(f"Creating a {num_shots}-shot dataset")
        output = []
        for data_source in data_sources:
            sample: list[Datum] = []
            for items in self.split_dataset_by_label(data_source).values():
                if len(items) >= num_shots:
                    sample += rng.sample(items, num_shots)
                else:
                    sample += rng.choices(items, k=num_shots) if repeat else items
            output.append(sample)
        return output[0] if len(output) == 1 else output

    def split_dataset_by_label(self, data_source: Sequence[Datum]) -> dict[int, list[Datum]]:
        """Group images by label, in order of first appearance."""
        return group_by("label", data_source)

    def split_dataset_by_domain(self, data_source: Sequence[Datum]) -> dict[int, list[Datum]]:
        """Group images by domain, in order of first appearance."""
        return group_by("domain", data_source)
