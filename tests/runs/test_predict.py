"""What nemesis predict says is what the run's own evaluation computes."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dassl.data import DatasetWrapper
from dassl.data.datasets import Datum
from dassl.utils import load_checkpoint, save_checkpoint
from nemesis.commands import predict
from nemesis.inference.image_files import find_images
from nemesis.inference.load_run import load_run
from tests.helpers.runs import command, finish

SHORT = ("OPTIM.MAX_EPOCH", "1", "DATASET.NUM_SHOTS", "1", "TEST.NO_TEST", "True")


@pytest.fixture(scope="module", params=["CoOp", "CoCoOp", "PLOT"])
def run_dir(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, data_root: Path
) -> Path:
    output = tmp_path_factory.mktemp("predict") / request.param
    finish(command(output, data_root, *SHORT, trainer=request.param))
    return output


@pytest.fixture(scope="module")
def zero_shot(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    output = tmp_path_factory.mktemp("predict") / "ZeroshotCLIP"
    finish(command(output, data_root, "TEST.SPLIT", "val", trainer="ZeroshotCLIP"))
    return output


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, zero_shot: Path) -> Path:
    """Seven test images, two of them in a folder below, and files that are none."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "below").mkdir()
    (folder / ".hidden").mkdir()
    items = load_run(zero_shot).dm.dataset.test[::97][:7]
    for index, item in enumerate(items):
        place = folder / "below" if index > 4 else folder
        shutil.copy(item.impath, place / f"{index}.PNG")
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden" / "9.png").write_text("no image")
    return folder


def lines(capsys: pytest.CaptureFixture[str], *arguments: Any, code: int = 0) -> list[Any]:
    """The objects that nemesis predict prints."""
    capsys.readouterr()
    assert predict.main(["--json", *map(str, arguments)]) == code
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """The one sentence that says what is wrong."""
    capsys.readouterr()
    assert predict.main([*map(str, arguments)]) == 2
    (message,) = capsys.readouterr().err.splitlines()
    return message


def expected(run: Path, paths: list[str]) -> tuple[torch.Tensor, list[str]]:
    trainer = load_run(run)
    images = DatasetWrapper(trainer.cfg, [Datum(path) for path in paths], trainer.dm.tfm_test)
    batch = torch.stack([images[index]["img"] for index in range(len(paths))])
    with torch.no_grad():
        return trainer.model_inference(batch).softmax(dim=1), trainer.dm.dataset.classnames


def test_equals_the_run(run_dir: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every method, over batches that do not come out even, without the run's data."""
    found = lines(
        *(capsys, run_dir, pictures, "--top-k", 999, "--batch-size", 3),
        *("--opts", "DATASET.ROOT", "nowhere"),
    )
    paths = [line["path"] for line in found]
    assert paths == [str(pictures / f"{i}.PNG") for i in range(5)] + [
        str(pictures / "below" / f"{i}.PNG") for i in (5, 6)
    ]
    probabilities, names = expected(run_dir, paths)
    for line, row in zip(found, probabilities, strict=True):
        given = {p["class"]: p["probability"] for p in line["predictions"]}
        assert set(given) == set(names)
        assert [given[name] for name in names] == pytest.approx(row.tolist(), abs=1e-5)
        values = [p["probability"] for p in line["predictions"]]
        assert values == sorted(values, reverse=True)


def test_table(run_dir: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert predict.main([str(run_dir), str(pictures / "below"), "--top-k", "2"]) == 0
    header, rule, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["image", "class", "probability"]
    assert set(rule) == {"-"}
    assert len(rows) == 4
    assert [row.startswith(str(pictures)) for row in rows] == [True, False] * 2
    assert {len(row) for row in rows} == {len(rule)}
    assert all(row.endswith("%") for row in rows)


def test_other_classes(
    run_dir: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = pictures / "0.PNG"
    given = (run_dir, image, "--classes", "a cat", "a dog")
    if run_dir.name == "PLOT":  # its settings on the bundled benchmark are class-specific
        assert "the prompts are class-specific (CSC)" in refusal(capsys, *given)
        return
    (line,) = lines(capsys, *given)
    assert {p["class"] for p in line["predictions"]} == {"a cat", "a dog"}
    assert sum(p["probability"] for p in line["predictions"]) == pytest.approx(1, abs=1e-5)
    file = tmp_path / "names.txt"
    file.write_text("\ufeffa cat\r\n\n  a dog \n", encoding="utf-8")
    assert lines(capsys, run_dir, image, "--classes-file", file) == [line]


def test_zero_shot(zero_shot: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its names are those of --classes, or else of its dataset."""
    image = pictures / "0.PNG"
    (line,) = lines(capsys, zero_shot, image, "--root", "nowhere", "--classes", "a cat", "a dog")
    assert len(line["predictions"]) == 2
    (line,) = lines(capsys, zero_shot, image)
    probabilities, names = expected(zero_shot, [str(image)])
    best = line["predictions"][0]
    assert best["class"] == names[int(probabilities.argmax())]
    assert best["probability"] == pytest.approx(probabilities.max().item(), abs=1e-5)


def test_precision_of_the_run(
    zero_shot: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (fp32,), (amp,) = (
        lines(capsys, zero_shot, pictures / "0.PNG", "--opts", "TRAINER.ZSCLIP.PREC", precision)
        for precision in ("fp32", "amp")
    )
    assert fp32 != amp
    pairs = zip(fp32["predictions"][:1], amp["predictions"][:1], strict=True)
    for one, other in pairs:
        assert one["probability"] == pytest.approx(other["probability"], abs=0.05)


def test_what_cannot_be_read_does_not_stop_the_rest(
    zero_shot: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
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


def test_mistakes(
    zero_shot: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = pictures / "0.PNG"
    nowhere, why = tmp_path / "nowhere", "config.yaml is missing"
    for folder, reason in ((tmp_path, why), (nowhere, "there is no such folder")):
        message = refusal(capsys, folder, image)
        assert message == f'error: "{folder}" holds no run: {reason}'
    message = refusal(capsys, zero_shot, tmp_path, "*.nothing", "gone.png")
    assert "No image to classify" in message
    assert "contains no images" in message
    assert "matches no images" in message
    assert "gone.png does not exist" in message
    for flag in ("--top-k", "--batch-size"):
        assert "not a whole number above 0" in refusal(capsys, zero_shot, image, flag, "0")
    assert "pairs KEY VALUE" in refusal(capsys, zero_shot, image, "--opts", "DEVICE")
    assert "unknown" in refusal(capsys, zero_shot, image, "--opts", "DEVICE", "tpu")
    assert "--classes avoids that" in refusal(
        *(capsys, zero_shot, image, "--opts", "DATASET.NAME", "OxfordPets")
    )
    (tmp_path / "empty.txt").write_text("\n")
    for name, part in (("empty.txt", "no class names"), ("gone.txt", "cannot be read")):
        assert part in refusal(capsys, zero_shot, image, "--classes-file", tmp_path / name)
    both = ("--classes", "a", "--classes-file", "b")
    assert "not allowed with" in refusal(capsys, zero_shot, image, *both)


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
    run_dir: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its checkpoint is there, its prompt.safetensors is not: the checkpoint has the names."""
    killed = tmp_path / run_dir.name
    shutil.copytree(run_dir, killed)
    (killed / "prompt.safetensors").unlink()
    image, nowhere = pictures / "0.PNG", str(tmp_path / "nowhere")
    assert lines(capsys, killed, image, "--root", nowhere) == lines(capsys, run_dir, image)
    for path in (killed / "prompt_learner").glob("model.pth.tar-*"):  # as older versions wrote it
        state = load_checkpoint(path)
        del state["prompt"]
        save_checkpoint(state, path.parent, model_name=path.name)
    capsys.readouterr()
    assert lines(capsys, killed, image) == lines(capsys, run_dir, image)
