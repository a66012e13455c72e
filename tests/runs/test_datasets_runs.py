"""train.py on every public dataset: an epoch where there is something to train on, else a test."""

from pathlib import Path

import pytest

from tests.helpers.miniatures import MINIATURES, build
from tests.helpers.runs import ROOT, finish, refuse, results
from tests.unit.test_datasets import CONFIG_OF, TEST_ONLY, TRAINABLE

CONFIGS = {name: config for config, name in CONFIG_OF.items()}


def command(root: Path, output: Path, name: str, *extra: str, trainer: str = "CoOp") -> list[str]:
    """One epoch, one shot, a generic prompt, with the bundled CLIP."""
    return [
        *("--root", str(root), "--trainer", trainer, "--seed", "1"),
        *("--dataset-config-file", str(ROOT / f"configs/datasets/{CONFIGS[name]}.yaml")),
        *("--config-file", str(ROOT / f"configs/trainers/{trainer}/mini.yaml")),
        *("--output-dir", str(output)),
        *extra,
        *("DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "1"),
        *(("TRAINER.COOP.CSC", "False") if trainer == "CoOp" else ()),
    ]


@pytest.mark.parametrize("name", TRAINABLE)
def test_an_epoch(name: str, tmp_path: Path) -> None:
    build(name, tmp_path / "data")
    finish(command(tmp_path / "data", tmp_path / "run", name))
    found = results(tmp_path / "run")
    assert found["num_test"] == MINIATURES[name].sizes[2]
    assert (found["dataset"], found["epochs"]) == (name, 1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prompt trained on ImageNet."""
    base = tmp_path_factory.mktemp("imagenet")
    build("ImageNet", base)
    finish(command(base, base / "run", "ImageNet"))
    return base / "run"


@pytest.mark.parametrize("name", TEST_ONLY)
def test_a_prompt_of_imagenet_on_its_variants(name: str, trained: Path, tmp_path: Path) -> None:
    build(name, tmp_path / "data")
    extra = ("--eval-only", "--model-dir", str(trained), "--load-epoch", "1")
    finish(command(tmp_path / "data", tmp_path / "run", name, *extra))
    assert results(tmp_path / "run")["num_test"] == MINIATURES[name].sizes[2]


def test_zero_shot_needs_no_training_images(tmp_path: Path) -> None:
    build("ImageNetR", tmp_path / "data")
    finish(command(tmp_path / "data", tmp_path / "run", "ImageNetR", trainer="ZeroshotCLIP"))
    assert results(tmp_path / "run")["num_test"] == 4


def test_training_on_a_test_set_costs_no_earlier_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build("ImageNetA", tmp_path / "data")
    arguments = command(tmp_path / "data", tmp_path / "run", "ImageNetA", trainer="ZeroshotCLIP")
    finish(arguments)
    before = (tmp_path / "run" / "results.json").read_bytes()
    train = command(tmp_path / "data", tmp_path / "run", "ImageNetA", "--overwrite")
    assert "ImageNetA has no training images; test" in refuse(train, capsys)
    assert (tmp_path / "run" / "results.json").read_bytes() == before


def test_missing_data_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    message = refuse(command(tmp_path / "data", tmp_path / "run", "StanfordCars"), capsys)
    for part in (
        "cars_train",
        "cars_test",
        "devkit/cars_meta.mat",
        "nemesis download StanfordCars",
    ):
        assert part in message
