"""Training from Python: the same numbers as train.py, lists of images, wrong arguments."""

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import nemesis
from nemesis import UserError
from safeio.checksums import file_digest
from tests.helpers.runs import FEW, ROOT, Capture, results
from trainers.core.prompt_file import read_tensors

SETTINGS = {**dict(zip(FEW[::2], FEW[1::2], strict=True)), "OPTIM.MAX_EPOCH": 1}
COLOURS = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 200)}


@pytest.fixture
def quick(tmp_path: Path, data_root: Path) -> dict[str, Any]:
    """Arguments of the short CoOp run of test_predict.py."""
    names: dict[str, Any] = {"dataset": "emoji_activities", "config": "mini_ctx16", "shots": 1}
    return {**names, "root": data_root, "output_dir": tmp_path / "run", "settings": SETTINGS}


def pictures(count: int, seed: int = 0) -> list[tuple[Any, str]]:
    """Noisy pictures of each colour, as PIL images and as arrays."""
    random = np.random.default_rng(seed)
    found: list[tuple[Any, str]] = []
    for name, colour in COLOURS.items():
        for index in range(count):
            pixels = (np.array(colour) + random.integers(-25, 25, (40, 40, 3))).astype(np.uint8)
            found.append((pixels if index % 2 else Image.fromarray(pixels), name))
    return found


def test_the_same_run_as_by_the_command(
    quick: dict[str, Any],
    short_run: Callable[..., Path],
    capsys: Capture,
    caplog: pytest.LogCaptureFixture,
) -> None:
    capsys.readouterr()
    with caplog.at_level(logging.INFO, "nemesis"):
        run = nemesis.train("CoOp", **quick)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")
    log = (run.folder / "log.txt").read_text()
    assert "epoch [1/1]" in log and "* accuracy: " in log
    assert "* accuracy: " in caplog.text
    command = short_run("CoOp")
    assert run.accuracy == results(command)["accuracy"]
    assert run.results["config"]["OPTIM"] == results(command)["config"]["OPTIM"]
    prompts = [read_tensors(one / "prompt.safetensors")[0]["ctx"] for one in (run.folder, command)]
    assert prompts[0].equal(prompts[1])
    assert [line["event"] for line in run.history] == ["train", "test"]
    assert run.load().context.equal(prompts[0])
    before = file_digest(run.folder / "results.json")
    with pytest.raises(UserError, match="already holds a finished run"):
        nemesis.train("CoOp", **quick)
    assert nemesis.train("CoOp", **quick, resume=True) == run
    assert file_digest(run.folder / "results.json") == before
    again = nemesis.train("CoOp", **quick, overwrite=True, verbose=True)
    assert "* accuracy: " in capsys.readouterr().out
    assert again.accuracy == nemesis.Run(run.folder).accuracy


def test_a_list_of_images(quick: dict[str, Any], tmp_path: Path) -> None:
    files = []
    for number, (image, name) in enumerate(pictures(2, seed=2)):
        path = tmp_path / f"{number}.png"
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path)
        files.append((path, name))
    train = [*pictures(6), *files]
    images = nemesis.ImageList(train=train, val=pictures(3, 3), test=pictures(4, 1))
    root, config = tmp_path / "data", {"OPTIM.MAX_EPOCH": 2}
    arguments = {**quick, "dataset": images, "shots": 4, "root": root, "settings": config}
    run = nemesis.train("CoOp", **arguments)
    classifier = run.load()
    assert classifier.classnames == ["blue", "green", "red"]
    assert run.results["num_test"] == 12
    assert classifier.evaluate()["accuracy"] == run.accuracy
    by_list = classifier.evaluate(dataset=nemesis.ImageList(test=pictures(4, 1)))
    assert by_list["accuracy"] == pytest.approx(run.accuracy)
    assert images.save(root) == images.save(root)
    samples = [path.read_text() for path in root.rglob("split_fewshot/*.json")]
    other = {**arguments, "root": tmp_path / "other", "output_dir": tmp_path / "again"}
    assert nemesis.train("CoOp", **other).accuracy == run.accuracy
    assert [path.read_text() for path in other["root"].rglob("split_fewshot/*.json")] == samples
    with pytest.raises(UserError, match='"cyan" is not available'):
        classifier.evaluate(dataset=nemesis.ImageList(test=[(files[0][0], "cyan")]))
    with pytest.raises(UserError, match="has images for train, but needs train and test"):
        untested = {"dataset": nemesis.ImageList(train=files), "output_dir": tmp_path / "third"}
        nemesis.train("CoOp", **{**arguments, **untested})


IMAGE = Image.new("RGB", (8, 8))
NO_IMAGE: Any = 3
NO_MAPPING: Any = ["DEVICE", "cpu"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({}, "needs images"),
        ({"train": ["a.png"]}, "must be a pair of an image and its class"),
        ({"test": [("gone.png", "cat")]}, "item 0 of test: the image gone.png does not exist"),
        ({"train": [(IMAGE, 1)]}, "the label 1, which is not a class name; pass names="),
        ({"train": [(IMAGE, 1)], "names": {0: "cat"}}, "add it to names"),
        ({"train": [(IMAGE, " ")]}, "not a class name"),
        ({"train": [(np.zeros((3, 8, 8)), "cat")]}, "an array of float64 and shape (3, 8, 8)"),
        ({"train": [(7, "cat")]}, "it is not a path, a PIL image or a NumPy array"),
    ],
)
def test_a_wrong_list(arguments: dict[str, Any], part: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        nemesis.ImageList(**arguments).save(tmp_path)
    assert part in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"method": "CoOpp"}, 'did you mean "CoOp"'),
        ({"dataset": "emoji_fod"}, 'did you mean "emoji_food"'),
        ({"dataset": 3}, "must be a name, a YAML file or a nemesis.ImageList"),
        ({"dataset": "gone.yaml"}, "gone.yaml"),
        ({"config": "minni"}, 'did you mean "mini"'),
        ({"config": "gone.yaml"}, "gone.yaml"),
        ({"shots": "four"}, "shots is 'four'"),
        ({"shots": 0}, "shots is 0"),
        ({"seed": "one"}, "SEED"),
        ({"root": ""}, "The data root is empty"),
        ({"device": "tpu"}, "tpu"),
        ({"source_domains": ["notto"]}, 'did you mean "noto"'),
        ({"target_domains": ["pixels"]}, '"pixels" is not available'),
        ({"settings": {"OPTIM.LRR": 1}}, 'did you mean "OPTIM.LR"'),
        ({"settings": {"OPTIM.LR": "fast"}}, "OPTIM.LR"),
        ({"settings": ["OPTIM.LR", 1]}, "settings maps keys to values"),
        ({"output_dir": "{file}"}, "a file with this name exists"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_a_wrong_argument_of_train(
    arguments: dict[str, Any], part: str, quick: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    filled = {key: tmp_path / "file" if v == "{file}" else v for key, v in arguments.items()}
    with pytest.raises(UserError) as caught:
        nemesis.train(**{"method": "CoOp", **quick, **filled})
    assert part in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda run: nemesis.load(run / "none"), "there is no such folder"),
        (lambda run: nemesis.load(run, "cat"), "classnames is a list of names"),
        (lambda run: nemesis.load(run, []), "classnames is a list of names"),
        (lambda run: nemesis.load(run, epoch=0), "counted from 1"),
        (lambda run: nemesis.load(run, epoch=9), "No checkpoint"),
        (lambda run: nemesis.load(run, device="tpu"), "tpu"),
        (lambda run: nemesis.load(run, settings={"DEVISE": "cpu"}), 'did you mean "DEVICE"'),
        (lambda run: nemesis.load(run, settings=NO_MAPPING), "settings maps keys"),
        (lambda run: nemesis.load(run, method="CoOp"), "has a config.yaml of its own"),
        (lambda run: nemesis.load(run).predict("gone.jpg"), "gone.jpg does not exist"),
        (lambda run: nemesis.load(run).predict([IMAGE, NO_IMAGE]), "pass a path, a PIL image"),
        (lambda run: nemesis.load(run).predict(IMAGE, top_k=0), "top_k is 0"),
        (lambda run: nemesis.load(run).predict(IMAGE, batch_size=0), "batch_size is 0"),
        (lambda run: nemesis.load(run).evaluate("pixels"), '"pixels" is not available'),
        (lambda run: nemesis.load(run).evaluate(dataset="food"), '"food" is not available'),
        (lambda run: nemesis.load(run).evaluate(split="train"), "TEST.SPLIT"),
        (lambda run: nemesis.load(run, ["a", "b"]).evaluate(), "has other classes than"),
        (lambda run: nemesis.load(run).export(run), "is a folder"),
        (lambda run: nemesis.Run(run / "none").accuracy, "holds no finished run"),
    ],
)
def test_a_wrong_argument_of_a_loaded_run(
    call: Callable[[Path], Any], part: str, short_run: Callable[..., Path]
) -> None:
    with pytest.raises(UserError) as caught:
        call(short_run("CoOp"))
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_zero_shot_learns_no_context(short_run: Callable[..., Path]) -> None:
    classifier = nemesis.load(short_run("ZeroshotCLIP"))
    assert classifier.text_features.shape == (len(classifier.classnames), 256)
    with pytest.raises(UserError, match="ZeroshotCLIP learns no prompts"):
        assert classifier.context


def test_an_import_loads_no_pytorch() -> None:
    code = "import sys, nemesis; nemesis.UserError, dir(nemesis); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        nemesis.trian  # noqa: B018
