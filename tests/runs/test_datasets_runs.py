"""train.py on every public dataset: an epoch on those with training images, else a test."""

from pathlib import Path

import pytest

from tests.helpers.miniatures import CONFIG_OF, MINIATURES, TEST_ONLY, TRAINABLE, build
from tests.helpers.runs import ONE_EPOCH, Capture, command, finish, refuse, results


def arguments(root: Path, output: Path, name: str, *extra: str, trainer: str = "CoOp") -> list[str]:
    return command(output, root, *extra, *ONE_EPOCH, trainer=trainer, dataset=CONFIG_OF[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINABLE)
def test_an_epoch(name: str, tmp_path: Path) -> None:
    build(name, tmp_path / "data")
    finish(arguments(tmp_path / "data", tmp_path / "run", name))
    found = results(tmp_path / "run")
    assert found["num_test"] == MINIATURES[name].sizes[2]
    assert (found["dataset"], found["epochs"]) == (name, 1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prompt trained on ImageNet."""
    base = tmp_path_factory.mktemp("imagenet")
    build("ImageNet", base)
    finish(arguments(base, base / "run", "ImageNet"))
    return base / "run"


@pytest.mark.parametrize("name", TEST_ONLY)
def test_a_prompt_of_imagenet_on_its_variants(name: str, trained: Path, tmp_path: Path) -> None:
    build(name, tmp_path / "data")
    extra = ("--eval-only", "--model-dir", str(trained), "--load-epoch", "1")
    finish(arguments(tmp_path / "data", tmp_path / "run", name, *extra))
    assert results(tmp_path / "run")["num_test"] == MINIATURES[name].sizes[2]


def test_training_on_a_test_set_costs_no_earlier_run(tmp_path: Path, capsys: Capture) -> None:
    """Zero-shot CLIP needs no training images, but training does."""
    build("ImageNetA", tmp_path / "data")
    run = tmp_path / "run"
    finish(arguments(tmp_path / "data", run, "ImageNetA", trainer="ZeroshotCLIP"))
    before = (run / "results.json").read_bytes()
    train = arguments(tmp_path / "data", run, "ImageNetA", "--overwrite")
    assert "ImageNetA has no training images; test" in refuse(train, capsys)
    assert (run / "results.json").read_bytes() == before


def test_missing_data_is_one_sentence(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "data").mkdir()
    message = refuse(arguments(tmp_path / "data", tmp_path / "run", "StanfordCars"), capsys)
    for part in ("cars_train", "cars_test", "devkit/cars_meta.mat", "download StanfordCars"):
        assert part in message
