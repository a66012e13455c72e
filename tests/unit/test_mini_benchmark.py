"""The bundled benchmark: scenes, tasks, shipped files, and the training data of the weights."""

import hashlib
import json
import multiprocessing
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from clip.weights import BUNDLED, load_clip
from dassl.config import load_config
from dassl.data.datasets import DATASET_REGISTRY, build_dataset
from datasets import emoji
from datasets.emoji import STYLES as SHIPPED
from datasets.emoji import Concept, EmojiDataset, concepts_of, read_drawings
from datasets.scenes import DRAWING, Atlas, Chance, compose, scene_key
from tests.helpers.refusals import refused
from tests.helpers.runs import ROOT
from tools.mini.evaluate import accuracy, image_features, text_features
from tools.mini.styles import STYLES
from trainers.config_names import config_file

TASKS = {
    **{"EmojiActivities": 85, "EmojiAnimals": 160, "EmojiFood": 131, "EmojiObjects": 266},
    **{"EmojiSmileys": 171, "EmojiSymbols": 211, "EmojiTravel": 219},
}
NAME = "FewEmoji"
PARTS = ("train", "val", "test")


class FewEmoji(EmojiDataset):
    """Nine classes, so that scenes are made fast."""

    dataset_dir = "few_emoji"
    split_file = "split_FewEmoji.json"

    def concepts(self) -> Sequence[Concept]:
        return concepts_of("activities")[:9]


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    DATASET_REGISTRY.register(FewEmoji)
    yield
    DATASET_REGISTRY._objects.pop(NAME)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("emoji")


def build(root: Path, *opts: str) -> EmojiDataset:
    fixed = ["DATASET.NAME", NAME, "DATASET.ROOT", str(root), "SEED", "1"]
    return build_dataset(load_config(opts=[*fixed, *opts]))


def synthetic_drawings() -> np.ndarray:
    """A dark disc, a bright square and a colour ramp, (3, 72, 72, 4), computed from integers."""
    y, x = np.mgrid[:DRAWING, :DRAWING]
    drawings = np.zeros((3, DRAWING, DRAWING, 4), np.uint8)
    drawings[0, ..., 3] = 255 * ((x - 36) ** 2 + (y - 36) ** 2 < 900)
    drawings[1, 6:66, 6:66] = (250, 245, 255, 255)
    ramp = np.stack([3 * x, 3 * y, 2 * (x + 71 - y) // 2, 255 * (x > 2)], axis=-1)
    drawings[2, 2:70, 2:70] = ramp[2:70, 2:70]
    return drawings


GOLDEN = [
    "03024b0845e4e080313b4b9c3ef38281e06e916c5450c76debb2bfc113135e13",
    "292ffe82ed776acf5726d86b44ce5b07574587488e7f3d59b5084ca5a5b19e77",
    "ccc6992aec121502446b38ce9de2747870c6c276e0b9cde88eda1da9f77700c5",
]


def test_scenes_are_the_same_bytes() -> None:
    """Equal to the first release: any change is a new benchmark."""
    keys = [scene_key("style", f"concept-{k}", k) for k in range(3)]
    atlas = Atlas.of(synthetic_drawings())
    scenes = compose(atlas, Chance.of(keys))
    assert [hashlib.sha256(scene.tobytes()).hexdigest() for scene in scenes] == GOLDEN
    alone = compose(atlas[np.array([1])], Chance.of(keys[1:2]))
    many = compose(atlas[np.full(40, 2)], Chance.of(keys[2:] * 40))
    assert np.array_equal(alone[0], scenes[1])  # independent of the batch
    assert np.array_equal(many[37], scenes[2])


def test_a_scene_shows_its_drawing() -> None:
    """Different backgrounds and places, never an empty image."""
    atlas = Atlas.of(synthetic_drawings())
    clear = Atlas.of(np.zeros((1, DRAWING, DRAWING, 4), np.uint8))
    keys = [scene_key("s", "c", k) for k in range(64)]
    empty = compose(clear[np.zeros(64, int)], Chance.of(keys)).astype(int)
    shown = compose(atlas[np.full(64, 2)], Chance.of(keys)).astype(int)
    assert (np.abs(empty - shown).max(axis=-1) > 12).mean(axis=(1, 2)).min() > 0.1
    assert len({scene.tobytes() for scene in shown}) == 64


@pytest.mark.parametrize(("name", "classes"), TASKS.items())
def test_tasks_have_their_classes(name: str, classes: int) -> None:
    group = DATASET_REGISTRY.get(name).group
    concepts = concepts_of(group)
    assert len({c.slug for c in concepts}) == len({c.name for c in concepts}) == classes
    config = ROOT / f"configs/datasets/emoji_{group}.yaml"
    assert name == load_config(dataset_config_file=str(config)).DATASET.NAME


def test_scenes_are_made_once(root: Path) -> None:
    data = build(root)
    sizes = [len(part or []) for part in (data.train_x, data.val, data.test)]
    assert sizes == [9 * 32, 9 * 8, 9 * 12]
    folder = root / "few_emoji"
    split = json.loads((folder / "split_FewEmoji.json").read_text())
    paths = [entry[0] for part in PARTS for entry in split[part]]
    for style in emoji.SOURCE_STYLES:
        for part in PARTS:
            inside = [entry for entry in split[part] if entry[0].startswith(f"{style}/")]
            assert len(inside) * 2 == len(split[part])
    pixels = {(folder / "images" / path).read_bytes() for path in paths}
    assert len(pixels) == len(set(paths)) == len(paths)
    assert not list(folder.glob(".making-*"))
    made = (folder / "images" / "noto").stat().st_mtime_ns
    build(root)
    assert (folder / "images" / "noto").stat().st_mtime_ns == made

    item = (data.test or [])[0]
    style, slug, number = Path(item.impath).with_suffix("").parts[-3:]
    atlas = Atlas.of(read_drawings(style, [slug]))
    scene = compose(atlas, Chance.of([scene_key(style, slug, int(number))]))[0]
    with Image.open(item.impath) as image:
        assert np.array_equal(np.asarray(image), scene)


def test_few_shots_and_base_to_new(root: Path) -> None:
    few = build(root, "DATASET.NUM_SHOTS", "2")
    assert (len(few.train_x or []), len(few.val or [])) == (18, 18)
    base, new = (build(root, "DATASET.SUBSAMPLE_CLASSES", half) for half in ("base", "new"))
    assert base.classnames + new.classnames == few.classnames
    assert (base.num_classes, new.num_classes) == (5, 4)


def test_target_domains(root: Path) -> None:
    assert {item.domain for item in build(root).test or []} == {0}
    for style in SHIPPED:
        data = build(root, "DATASET.TARGET_DOMAINS", f"('{style}',)")
        test = data.test or []
        assert len(test) == 12 * len([c for c in data.concepts() if style in c.styles])
        assert {item.domain for item in test} == {1 + SHIPPED.index(style)}
        assert {Path(item.impath).parts[-3] for item in test} == {style}
        seen = {item.impath for item in [*(data.train_x or []), *(data.val or [])]}
        assert not seen & {item.impath for item in test}
    both = build(root, "DATASET.TARGET_DOMAINS", "('openmoji-black', 'fxemoji')")
    assert len({item.domain for item in both.test or []}) == 2
    with refused("openmoji-black"):
        build(root, "DATASET.TARGET_DOMAINS", "('openmoji_blak',)")


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "few_emoji").write_text("")
    with refused("cannot be made"):
        build(tmp_path)


def _build_in_a_process(root: str) -> list[str]:
    DATASET_REGISTRY.register(FewEmoji)
    return [item.impath for item in build(Path(root)).train_x or []]


def test_two_processes_after_a_killed_one(tmp_path: Path) -> None:
    leftover = tmp_path / "few_emoji" / ".making-abc"
    leftover.mkdir(parents=True)
    (leftover / "half.png").write_bytes(b"")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map(_build_in_a_process, [str(tmp_path)] * 2)
    assert first == second and all(Path(path).is_file() for path in first)
    assert not leftover.exists()


def test_archives_contain_the_drawings_of_the_table() -> None:
    concepts = json.loads((emoji.DRAWINGS / "concepts.json").read_text(encoding="utf-8"))
    drawn = {f"{style}/{c['id']}.webp" for c in concepts for style in c["styles"]}
    found: dict[str, str] = {}
    for archive in emoji.ARCHIVES:
        with zipfile.ZipFile(emoji.DRAWINGS / archive) as members:
            found |= dict.fromkeys(members.namelist(), archive)
    assert set(found) == drawn
    shared_alike = {style.name for style in STYLES if style.share_alike}
    for name, archive in found.items():
        assert ("share_alike" in archive) == (name.split("/")[0] in shared_alike)


def test_share_alike_and_task_styles_are_not_trained_on() -> None:
    trained = {style for style in STYLES if style.role == "train"}
    assert not {style.name for style in trained} & set(SHIPPED)
    assert not [style.name for style in trained if style.share_alike]
    assert {style.name for style in STYLES if style.role == "task"} == set(SHIPPED)
    page = (emoji.DRAWINGS / "LICENSES.md").read_text(encoding="utf-8")
    for style in STYLES:
        assert f"| {style.name} | {style.licence} | {style.credit} |" in page
        assert f"- {style.licence}: " in page


@pytest.mark.parametrize("name", BUNDLED)
def test_the_shipped_files_are_small_and_described(name: str) -> None:
    assert sum(path.stat().st_size for path in emoji.DRAWINGS.iterdir()) < 10_000_000
    assert BUNDLED[name].stat().st_size <= 12_000_000
    assert f"`clip/{name}.safetensors`" in (emoji.DRAWINGS / "LICENSES.md").read_text()
    with safe_open(BUNDLED[name], "pt") as file:
        metadata = file.metadata()
    assert {"config", "pixel_mean", "pixel_std", "licence", "training"} <= set(metadata)
    assert "-SA" not in metadata["licence"]
    config = load_config(config_file=config_file("trainers", name))
    assert json.loads(metadata["pixel_mean"]) == list(config.INPUT.PIXEL_MEAN)
    assert json.loads(metadata["pixel_std"]) == list(config.INPUT.PIXEL_STD)
    assert name == config.MODEL.BACKBONE.NAME


@pytest.mark.parametrize("name", BUNDLED)
@torch.no_grad()
def test_zero_shot_accuracy_of_the_bundled_weights(name: str) -> None:
    """Far above chance (1.2%), in a style that it was not trained on."""
    loaded = load_clip(name)
    images = image_features(loaded, "activities", "noto", range(20, 22))
    assert accuracy(images, text_features(loaded, "activities", "a photo of a {}.")) > 40
