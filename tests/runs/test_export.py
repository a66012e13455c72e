"""The exported classifier gives the run's logits, read by the page's own lines and without us."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image
from safetensors.torch import load_file, save_file

import nemesis
from clip.weights import load_clip
from dassl.data import DatasetWrapper
from nemesis.commands import export
from tests.helpers.open_clip_model import open_clip_of
from tests.helpers.runs import ROOT, Capture
from trainers.core.features.evaluation import FrozenCLIPTrainer

PAGE = (ROOT / "docs/export.md").read_text()
READ, USE, OPEN_CLIP = re.findall(r"```python\n(.*?)```", PAGE, re.S)


@pytest.fixture(scope="module", params=["CoOp", "ZeroshotCLIP"])
def run_dir(request: pytest.FixtureRequest, short_run: Callable[..., Path]) -> Path:
    return short_run(request.param)


@pytest.fixture(scope="module")
def trainer(run_dir: Path) -> FrozenCLIPTrainer:
    return nemesis.load(run_dir, with_data=True).trainer


@pytest.fixture(scope="module")
def exported(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("elsewhere") / "new" / "food.safetensors"
    assert export.main([str(run_dir), "-o", str(path)]) == 0
    return path


def some_images(trainer: FrozenCLIPTrainer) -> tuple[torch.Tensor, list[str]]:
    items = trainer.dm.dataset.test[::47][:8]
    images = DatasetWrapper(trainer.cfg, items, trainer.dm.tfm_test)
    batch = torch.stack([images[index]["img"] for index in range(len(items))])
    return batch, [item.impath for item in items]


def test_the_pages_lines_without_this_project(trainer: FrozenCLIPTrainer, exported: Path) -> None:
    with torch.no_grad():
        images, _ = some_images(trainer)
        expected = trainer.model_inference(images)
        features = trainer.loaded_clip.model.encode_image(images)
    folder = exported.parent
    save_file({"image_features": features}, folder / "features.safetensors")
    script = f"""
from safetensors.torch import load_file, save_file
image_features = load_file("features.safetensors")["image_features"]
{READ}
{USE}
save_file({{"logits": logits}}, "logits.safetensors")
json.dump([best, classnames], open("names.json", "w"))
import sys
assert not {{"safeio", "clip", "dassl", "trainers", "nemesis"}} & set(sys.modules)
"""
    # -I leaves out the present folder and PYTHONPATH.
    done = subprocess.run(
        [sys.executable, "-I", "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    logits = load_file(folder / "logits.safetensors")["logits"]
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-5)
    best, classnames = json.loads((folder / "names.json").read_text())
    assert classnames == trainer.dm.dataset.classnames
    assert best == [classnames[label] for label in expected.argmax(dim=1)]


def test_with_open_clip(
    trainer: FrozenCLIPTrainer, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From image files on, everything but the matrix is open_clip's."""
    monkeypatch.chdir(exported.parent)
    with torch.no_grad():
        images, paths = some_images(trainer)
        expected = trainer.model_inference(images)
    names: dict[str, object] = {}
    exec(READ, names)
    told = {key: json.loads(value) for key, value in names["file"].metadata().items()}  # type: ignore[attr-defined]
    assert told["weights_sha256"] == trainer.loaded_clip.sha256
    assert (told["backbone"], told["activation"]) == ("mini", "quick_gelu")
    preprocess = image_transform(
        told["input_size"],
        is_train=False,
        mean=tuple(told["mean"]),
        std=tuple(told["std"]),
        interpolation=told["interpolation"],
    )
    names["images"] = torch.stack([preprocess(Image.open(path)) for path in paths])
    torch.testing.assert_close(names["images"], images)
    names["model"] = open_clip_of(load_clip("mini").model)
    # What it would download gives way to their model with our weights.
    code, changes = re.subn(r"model, _, preprocess = .*\n", "", OPEN_CLIP)
    assert changes == 1
    with torch.no_grad():
        exec(code, names)
    torch.testing.assert_close(names["logits"], expected, atol=1e-3, rtol=1e-4)


def test_the_names_on_the_page() -> None:
    (given,) = re.findall(r"create_model_and_transforms\((.*?)\)", OPEN_CLIP)
    model, tag = json.loads(f"[{given}]")
    assert tag in open_clip.list_pretrained_tags_by_model(model)
    assert "-quickgelu" in model
    (arguments,) = re.findall(r"nemesis export (.*)", PAGE)
    parser = export.build_parser()
    assert parser.parse_args(arguments.split()).output == Path("food.safetensors")
    help_text = parser.format_help()
    for line in READ.strip().splitlines()[-3:]:
        assert line in help_text


def test_other_classes_and_precision(run_dir: Path, tmp_path: Path) -> None:
    key = "TRAINER.ZSCLIP.PREC" if run_dir.name == "ZeroshotCLIP" else "TRAINER.COOP.PREC"
    tensors = []
    for precision in ("fp32", "amp", "bf16"):
        path = tmp_path / f"{precision}.safetensors"
        options = ["--root", "nowhere", "--classes", "a cat", "a dog", "--set", key, precision]
        assert export.main([str(run_dir), "-o", str(path), *options]) == 0
        tensors.append(load_file(path)["text_features"])
    for tensor in tensors:
        assert (tensor.dtype, tuple(tensor.shape)) == (torch.float32, (2, 256))
        torch.testing.assert_close(tensor.norm(dim=1), torch.ones(2))
        torch.testing.assert_close(tensor, tensors[0], atol=0.02, rtol=0)
    assert not torch.equal(tensors[0], tensors[2])


def refusal(capsys: Capture, *arguments: object) -> str:
    capsys.readouterr()
    assert export.main([*map(str, arguments)]) == 2
    (message,) = capsys.readouterr().err.splitlines()
    return message


@pytest.mark.parametrize("method", ["CoCoOp", "CoCoOpNemesis", "PLOT", "PLOTNemesis"])
def test_methods_without_a_matrix(
    method: str, short_run: Callable[..., Path], capsys: Capture
) -> None:
    run = short_run(method)
    message = refusal(capsys, run)
    assert message.startswith(f"error: {method}")
    assert "no matrix" in message
    assert not (run / "classifier.safetensors").exists()


def test_mistakes(run_dir: Path, exported: Path, tmp_path: Path, capsys: Capture) -> None:
    before = load_file(exported)
    assert "--overwrite it" in refusal(capsys, run_dir, "-o", exported)
    assert export.main([str(run_dir), "-o", str(exported), "--overwrite"]) == 0
    assert load_file(exported).keys() == before.keys()
    assert "is a folder" in refusal(capsys, run_dir, "-o", tmp_path)
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    assert "with this name exists" in refusal(capsys, run_dir, "-o", in_the_way / "x.safetensors")
    special = ("--set", "INPUT.NO_TRANSFORM", "True")
    assert "do not describe the" in refusal(capsys, run_dir, "-o", tmp_path / "x", *special)


def test_default_file_and_the_same_matrix_in_python(
    run_dir: Path, exported: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(run_dir, tmp_path / "run")
    assert export.main([str(copy)]) == 0
    again = load_file(copy / "classifier.safetensors")
    assert torch.equal(again["text_features"], nemesis.load(run_dir).text_features)
    for key, value in load_file(exported).items():
        assert torch.equal(again[key], value)
