"""A loaded run classifies as its trainer does, from Python and by `nemesis predict`."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import nemesis
from dassl.data import DatasetWrapper
from dassl.data.datasets import Datum
from dassl.utils import load_checkpoint, save_checkpoint
from nemesis.commands import predict
from nemesis.inference.image_files import find_images
from nemesis.inference.load_run import known_classnames
from safeio.errors import UserError
from tests.helpers.runs import FEW, Capture, command, finish, results

METHODS = ("CoOp", "CoCoOp", "PLOT", "ZeroshotCLIP")


@pytest.fixture(params=METHODS)
def run_dir(request: pytest.FixtureRequest, short_run: Callable[..., Path]) -> Path:
    return short_run(request.param)


@pytest.fixture(scope="module")
def zero_shot(short_run: Callable[..., Path]) -> Path:
    return short_run("ZeroshotCLIP")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, zero_shot: Path) -> Path:
    """Seven test images, two of them in a folder below, and files that are none."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "below").mkdir()
    (folder / ".hidden").mkdir()
    items = nemesis.load(zero_shot).trainer.dm.dataset.test[::47][:7]
    for index, item in enumerate(items):
        place = folder / "below" if index > 4 else folder
        shutil.copy(item.impath, place / f"{index}.PNG")
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden" / "9.png").write_text("no image")
    return folder


def lines(capsys: Capture, *arguments: Any) -> list[Any]:
    """The objects that nemesis predict prints."""
    capsys.readouterr()
    assert predict.main(["--json", *map(str, arguments)]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_equals_the_run(run_dir: Path, pictures: Path, capsys: Capture) -> None:
    """Every method, over batches that do not come out even, by file, PIL image, array, command."""
    paths = [str(pictures / f"{i}.PNG") for i in range(5)]
    paths += [str(pictures / "below" / f"{i}.PNG") for i in (5, 6)]
    trained = nemesis.load(run_dir, with_data=True)
    wrapper = DatasetWrapper(
        trained.trainer.cfg, [Datum(path) for path in paths], trained.trainer.dm.tfm_test
    )
    batch = torch.stack([wrapper[index]["img"] for index in range(len(paths))])
    with torch.no_grad():
        expected = trained.trainer.model_inference(batch).softmax(dim=1)
    bare = nemesis.load(run_dir, root=None if "Zeroshot" in run_dir.name else "nowhere")
    assert bare.classnames == trained.classnames
    found = bare.predict(paths, top_k=999, batch_size=3)
    for row, pairs in zip(expected, found, strict=True):
        given = dict(pairs)
        assert [given[name] for name in bare.classnames] == pytest.approx(row.tolist(), abs=1e-5)
        assert list(given.values()) == sorted(given.values(), reverse=True)
    opened = [Image.open(paths[0]), np.asarray(Image.open(paths[0]))]
    assert bare.predict(opened, top_k=3) == [found[0][:3]] * 2  # type: ignore[arg-type]
    assert bare.predict(paths[0], top_k=1)[0][0][0] == found[0][0][0]
    shown = lines(capsys, run_dir, pictures, "--top-k", 999, "--batch-size", 3)
    assert [line["path"] for line in shown] == paths
    for line, pairs in zip(shown, found, strict=True):
        assert [(p["class"], p["probability"]) for p in line["predictions"]] == [
            (name, round(value, 6)) for name, value in pairs
        ]


def test_evaluation_equals_the_run_and_writes_nothing(run_dir: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")}
    classifier = nemesis.load(run_dir)
    found = classifier.evaluate()
    for name in ("accuracy", "macro_f1", "ece", "num_test", "split", "dataset"):
        assert found[name] == results(run_dir)[name]
    assert nemesis.load(run_dir, with_data=True).evaluate() == found
    assert {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")} == before


@pytest.mark.slow
def test_evaluation_on_other_images(
    short_run: Callable[..., Path], tmp_path: Path, data_root: Path
) -> None:
    run_dir = short_run("CoOp")
    classifier = nemesis.load(run_dir)
    found = classifier.evaluate()
    black = ("--target-domains", "openmoji-black", *FEW, "TEST.SPLIT", "test")
    test = ("--eval-only", "--model-dir", str(run_dir), *black)
    finish(command(tmp_path / "test", data_root, *test))
    other = classifier.evaluate(target_domains="openmoji-black", split="test")
    assert other.items() <= {**results(tmp_path / "test"), "dataset": "EmojiActivities"}.items()
    items = nemesis.load(run_dir, with_data=True).trainer.dm.dataset.val
    own = nemesis.ImageList(test=[(Image.open(i.impath), i.classname) for i in items])
    by_list = classifier.evaluate(dataset=own)
    assert by_list["accuracy"] == pytest.approx(found["accuracy"])
    assert classifier.evaluate(dataset="EmojiFood")["dataset"] == "EmojiFood"


def test_table(zero_shot: Path, pictures: Path, capsys: Capture) -> None:
    capsys.readouterr()
    assert predict.main([str(zero_shot), str(pictures / "below"), "--top-k", "2"]) == 0
    header, rule, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["image", "class", "probability"]
    assert set(rule) == {"-"}
    assert [row.startswith(str(pictures)) for row in rows] == [True, False] * 2
    assert {len(row) for row in rows} == {len(rule)}
    assert all(row.endswith("%") for row in rows)


def test_other_classes(run_dir: Path, pictures: Path, tmp_path: Path, capsys: Capture) -> None:
    image, cats = pictures / "0.PNG", ["a cat", "a dog"]
    if run_dir.name == "PLOT":  # its settings on the bundled benchmark are class-specific
        with pytest.raises(UserError, match='no prompt, or several, for "a cat", "a dog"'):
            nemesis.load(run_dir, cats)
        names = known_classnames(run_dir)
        assert names is not None
        orders = [nemesis.load(run_dir, order).predict(image) for order in (names, names[::-1])]
        assert dict(orders[0][0]) == pytest.approx(dict(orders[1][0]), abs=1e-5)
        return
    (line,) = lines(capsys, run_dir, image, "--root", "nowhere", "--classes", *cats)
    assert {p["class"] for p in line["predictions"]} == set(cats)
    assert sum(p["probability"] for p in line["predictions"]) == pytest.approx(1, abs=1e-5)
    file = tmp_path / "names.txt"
    file.write_text("\ufeffa cat\r\n\n  a dog \n", encoding="utf-8")
    assert lines(capsys, run_dir, image, "--classes-file", file) == [line]


def test_what_cannot_be_read_does_not_stop_the_rest(
    zero_shot: Path, pictures: Path, tmp_path: Path, capsys: Capture
) -> None:
    shutil.copy(pictures / "0.PNG", tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((pictures / "0.PNG").read_bytes()[:200])
    Image.new("L", (3, 200)).save(tmp_path / "c.gif")
    names = ("--classes", "a cat", "a dog", "--batch-size", 1, "--json")
    arguments = [zero_shot, tmp_path, tmp_path / "gone.png", *names]
    assert predict.main([*map(str, arguments)]) == 1
    printed = capsys.readouterr()
    paths = [json.loads(line)["path"] for line in printed.out.splitlines()]
    assert paths == [str(tmp_path / "a.png"), str(tmp_path / "c.gif")]
    missing, damaged = printed.err.splitlines()
    assert missing == f"error: The image {tmp_path / 'gone.png'} does not exist"
    assert damaged.startswith(f"error: The image {tmp_path / 'b.png'} cannot be read")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            ("{run}", "{tmp}", "*.nothing", "gone.png"),
            ("No image to classify", "contains no images", "matches no images", "does not exist"),
        ),
        (("{tmp}", "{image}"), ('"{tmp}" holds no run: config.yaml is missing',)),
        (("{tmp}/none", "{image}"), ("holds no run: there is no such folder",)),
        (("{run}", "{image}", "--top-k", "0"), ("not a whole number above 0",)),
        (("{run}", "{image}", "--batch-size", "0"), ("not a whole number above 0",)),
        (("{run}", "{image}", "--epoch", "0"), ("epochs are counted from 1",)),
        (("{run}", "{image}", "--set", "DEVICE"), ("expected 2 arguments",)),
        (("{run}", "{image}", "--device", "tpu"), ("unknown",)),
        (("{run}", "{image}", "--set", "DATASET.NAME", "OxfordPets"), ("pass the class names",)),
        (("{run}", "{image}", "--classes-file", "{tmp}/empty.txt"), ("no class names",)),
        (("{run}", "{image}", "--classes-file", "{tmp}/gone.txt"), ("cannot be read",)),
        (("{run}", "{image}", "--classes", "a", "a"), ("given twice",)),
        (("{run}", "{image}", "--classes", "a", "--classes-file", "b"), ("not allowed with",)),
    ],
)
def test_a_wrong_command_is_one_sentence(
    words: tuple[str, ...],
    parts: tuple[str, ...],
    zero_shot: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    names = {"run": zero_shot, "tmp": tmp_path, "image": pictures / "0.PNG"}
    capsys.readouterr()
    assert predict.main([word.format(**names) for word in words]) == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert all(part.format(**names) in message for part in parts)


def test_a_reader_that_has_seen_enough(
    zero_shot: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`nemesis predict ... | head` ends without a stack trace."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        arguments = [str(zero_shot), str(pictures), "--classes", "a cat", "a dog"]
        assert predict.main(arguments) == 0


def test_images_of_paths_and_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.jpg", "b/c/1.webp", "b/.x/3.png", "b/.4.png", "[1].png", "a.png", "a.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("")
    assert find_images(["b"]) == (["b/2.jpg", "b/c/1.webp"], [])
    assert find_images(["a.txt"]) == (["a.txt"], [])  # as it was asked for
    assert find_images(["[1].png", "*"])[0] == ["[1].png", "a.png", "b/2.jpg", "b/c/1.webp"]
    assert find_images(["**/*.webp", str(tmp_path / "*.png")])[0] == [
        "b/c/1.webp",
        str(tmp_path / "[1].png"),
        str(tmp_path / "a.png"),
    ]
    assert find_images(["b/.x/3.png", "none"]) == (
        ["b/.x/3.png"],
        ["The image none does not exist"],
    )


def test_a_class_specific_run_that_was_killed(
    short_run: Callable[..., Path], pictures: Path, tmp_path: Path
) -> None:
    """Its checkpoint is there, its prompt.safetensors is not: the checkpoint has the names."""
    run, image = short_run("PLOT"), pictures / "0.PNG"
    killed = tmp_path / "killed"
    shutil.copytree(run, killed)
    (killed / "prompt.safetensors").unlink()
    expected = nemesis.load(run).predict(image)
    assert nemesis.load(killed, root="nowhere").predict(image) == expected
    for path in (killed / "prompt_learner").glob("model.pth.tar-*"):  # as older versions wrote it
        state = load_checkpoint(path)
        del state["prompt"]
        save_checkpoint(state, path.parent, model_name=path.name)
    assert nemesis.load(killed).predict(image) == expected
    assert known_classnames(killed) is None
    shutil.rmtree(killed / "prompt_learner")
    with pytest.raises(UserError, match="No checkpoint in"):
        nemesis.load(killed)
