"""The bundled benchmark: emoji of several design teams as small classification tasks.

There is one dataset per emoji group; a class is an emoji, an image is a scene with a drawing of it
(`datasets/scenes.py`). The drawings are part of the repository (`datasets/emoji/`); the scenes are
generated below the data root at first use, as ordinary image folders.

Training, validation and test scenes are disjoint, but the default test uses the same drawings as
the training. For a stricter test, `DATASET.TARGET_DOMAINS` selects styles of other design teams
(`emojione-v1`, `openmoji-black`, `fxemoji`), whose scenes replace the test images.
`DATASET.SOURCE_DOMAINS` selects the training styles, `noto` and `openmoji`; default: both.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dassl.data.datasets import DATASET_REGISTRY, Datum, SplitDataset
from dassl.utils import check_availability
from datasets.scenes import Atlas, Chance, compose, scene_key
from safeio.errors import UserError
from safeio.locks import exclusive

DRAWINGS = Path(__file__).parent / "emoji"
ARCHIVES = ("drawings.zip", "drawings_share_alike.zip")
SOURCE_STYLES = ("noto", "openmoji")
STYLES = (*SOURCE_STYLES, "openmoji-black", "emojione-v1", "fxemoji")
# Numbers of the scenes of one drawing. The source test has 6 scenes of each of its two styles and
# the target test 12 scenes of each style, so that every test has 12 images a class.
PARTS = {"train": range(16), "val": range(16, 20), "test": range(20, 26)}
TARGET_TEST = range(20, 32)
SCENES = 32


class Concept(NamedTuple):
    """A class: its folder name, its class name, and the styles that have a drawing of it."""

    slug: str
    name: str
    styles: tuple[str, ...]


@lru_cache
def concepts_of(group: str) -> tuple[Concept, ...]:
    """Return the classes of a group, sorted by name; both source styles have all of them."""
    entries = json.loads((DRAWINGS / "concepts.json").read_text(encoding="utf-8"))
    found = [
        Concept(entry["id"], entry["name"], tuple(entry["styles"]))
        for entry in entries
        if entry["group"] == group and set(SOURCE_STYLES) <= set(entry["styles"])
    ]
    return tuple(sorted(found, key=lambda concept: concept.name))


def read_drawings(style: str, slugs: Sequence[str]) -> np.ndarray:
    """Return the bundled drawings of a style, RGBA, uint8 (n, 72, 72, 4)."""
    for archive in ARCHIVES:
        with zipfile.ZipFile(DRAWINGS / archive) as members:
            if f"{style}/{slugs[0]}.webp" in members.namelist():
                return np.stack([_picture(members.read(f"{style}/{s}.webp")) for s in slugs])
    raise FileNotFoundError(f"no archive in {DRAWINGS} contains {style}/{slugs[0]}")


def _picture(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGBA"))


def write_scenes(style: str, slugs: Sequence[str], folder: Path) -> None:
    """Write all scenes of the drawings as `folder/<slug>/<number>.png`."""
    atlas = Atlas.of(read_drawings(style, slugs))
    with ThreadPoolExecutor() as pool:
        list(pool.map(partial(_write_class, style, atlas, slugs, folder), range(len(slugs))))


def _write_class(style: str, atlas: Atlas, slugs: Sequence[str], folder: Path, row: int) -> None:
    keys = [scene_key(style, slugs[row], number) for number in range(SCENES)]
    scenes = compose(atlas[np.full(SCENES, row)], Chance.of(keys))
    (folder / slugs[row]).mkdir()
    for number, scene in enumerate(scenes):
        path = folder / slugs[row] / f"{number:02d}.png"
        Image.fromarray(scene).save(path, compress_level=1)


class EmojiDataset(SplitDataset):
    """A group of emoji: `class EmojiFood(EmojiDataset, group="food")`."""

    group = ""
    domains = STYLES
    generated = True

    def __init_subclass__(cls, group: str = "") -> None:
        if group:
            cls.group, cls.dataset_dir = group, f"emoji_{group}"
            cls.split_file = f"split_{cls.__name__}.json"

    def concepts(self) -> Sequence[Concept]:
        """Return the classes in the order of their labels."""
        return concepts_of(self.group)

    def prepare(self) -> None:
        """Generate the scenes of the source styles unless they exist."""
        if not self.cfg.DATASET.ROOT:
            return  # the base class raises the error
        for style in SOURCE_STYLES:
            self.make_style(style)

    def make_style(self, style: str) -> None:
        """Generate a style's scenes atomically, with a lock, unless they exist.

        Raises:
            UserError: the data root cannot be written to.
        """
        target = self.images / style
        if target.is_dir():
            return
        slugs = [c.slug for c in self.concepts() if style in c.styles]
        try:
            self.images.mkdir(parents=True, exist_ok=True)
            waiting = f"Another run is making the scenes in {self.directory}: waiting for it"
            with exclusive(self.directory / ".making.lock", waiting):
                if not target.is_dir():
                    self._make(style, slugs, target)
        except OSError as error:
            raise UserError(
                f"{type(self).__name__}: the scenes cannot be made in {target}: {error.strerror}; "
                "set --root to a data root that can be written to"
            ) from error

    def _make(self, style: str, slugs: Sequence[str], target: Path) -> None:
        for leftover in self.directory.glob(".making-*"):
            shutil.rmtree(leftover, ignore_errors=True)  # left by a run that was killed
        print(f"Making {SCENES * len(slugs)} scenes in {target}")
        scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=self.directory))
        try:
            write_scenes(style, slugs, scratch)
            scratch.chmod(0o755)  # mkdtemp's folders are private
            scratch.replace(target)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise

    def make_split(self) -> dict[str, list[Datum]]:
        """Return disjoint parts with scenes of both source styles."""
        return {
            part: [item for style in SOURCE_STYLES for item in self._items(style, numbers, 0)]
            for part, numbers in PARTS.items()
        }

    def source_items(
        self, domains: Sequence[str], train: list[Datum], val: list[Datum]
    ) -> tuple[list[Datum], list[Datum]]:
        """Return the training and validation scenes of the styles `domains`.

        Raises:
            UserError: a style is not a source style.
        """
        for style in domains:
            check_availability(style, SOURCE_STYLES, "DATASET.SOURCE_DOMAINS")
        folders = tuple(f"{self.images / style}{os.sep}" for style in domains)
        selected = ([i for i in items if i.impath.startswith(folders)] for items in (train, val))
        return next(selected), next(selected)

    def target_test(self, domains: Sequence[str]) -> list[Datum]:
        """Return the test scenes of the styles `domains`, for the classes that they have."""
        for style in domains:
            self.make_style(style)
        return [
            item
            for style in domains
            for item in self._items(style, TARGET_TEST, 1 + STYLES.index(style))
        ]

    def _items(self, style: str, numbers: range, domain: int) -> list[Datum]:
        return [
            Datum(str(self.images / style / c.slug / f"{n:02d}.png"), label, domain, c.name)
            for label, c in enumerate(self.concepts())
            if style in c.styles
            for n in numbers
        ]


@DATASET_REGISTRY.register()
class EmojiActivities(EmojiDataset, group="activities"):
    """Sports, games, arts and celebrations."""


@DATASET_REGISTRY.register()
class EmojiAnimals(EmojiDataset, group="animals"):
    """Animals and plants."""


@DATASET_REGISTRY.register()
class EmojiFood(EmojiDataset, group="food"):
    """Food and drink."""


@DATASET_REGISTRY.register()
class EmojiObjects(EmojiDataset, group="objects"):
    """Clothes, tools and other objects."""


@DATASET_REGISTRY.register()
class EmojiSmileys(EmojiDataset, group="smileys"):
    """Faces, hearts and emotions."""


@DATASET_REGISTRY.register()
class EmojiSymbols(EmojiDataset, group="symbols"):
    """Signs, arrows and symbols."""


@DATASET_REGISTRY.register()
class EmojiTravel(EmojiDataset, group="travel"):
    """Places, vehicles, sky and weather."""
