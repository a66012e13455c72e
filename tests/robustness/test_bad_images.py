"""Images that cannot be decoded: an error that names them, or left out, counted and named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import train
from dassl.data import DataManager
from dassl.data.broken_images import find_broken
from dassl.data.images import read_image
from dassl.engine import build_trainer
from safeio.checksums import read_verified_json
from safeio.errors import UserError
from tests.helpers.dassl_toy import CLASSES, make_images, toy_config
from tests.helpers.feature_runs import OFF, scores
from tests.helpers.own_images import write_csv
from tests.helpers.runs import Capture, command, finish, refuse, results

# Newer versions of Python warn when a process with threads is forked, as loaders do.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.usefixtures("toys"),
]
SKIP = ("DATALOADER.ON_BAD_IMAGE", "skip")


def _truncated(path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "jpeg")
    path.write_bytes(path.read_bytes()[:2000])


BROKEN: dict[str, Callable[[Path], Any]] = {
    "truncated": _truncated,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no image"),
    "bomb": lambda path: Image.new("1", (20_000, 10_000)).save(path, "png"),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_images(tmp_path / "data")


@pytest.mark.parametrize("kind", BROKEN)
def test_the_error_names_the_image(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    BROKEN[kind](path)
    with pytest.raises(UserError, match=r"photo\.jpg cannot be read: "):
        read_image(str(path))
    assert list(find_broken([str(path)], tmp_path / "checks")) == [str(path)]


@pytest.mark.parametrize("workers", ["0", "1"])
def test_loaders_name_the_image_and_the_setting(workers: str, root: Path) -> None:
    manager = DataManager(toy_config(root, root, "DATALOADER.NUM_WORKERS", workers))
    path = Path(manager.dataset.test[3].impath)
    _truncated(path)
    with pytest.raises(UserError, match="ON_BAD_IMAGE skip") as caught:
        list(manager.test_loader)
    message = str(caught.value)
    assert message.startswith("The image ") and str(path) in message
    assert "Traceback" not in message
    path.unlink()
    with pytest.raises(UserError, match=r"does not exist$"):
        list(manager.test_loader)


def test_broken_images_are_skipped_and_checked_once(root: Path, capsys: Capture) -> None:
    whole = DataManager(toy_config(root, root))
    bad = [whole.dataset.train_x[5].impath, whole.dataset.val[0].impath]
    for path in bad:
        _truncated(Path(path))
    capsys.readouterr()
    first = DataManager(toy_config(root, root, *SKIP))
    printed = capsys.readouterr().out
    assert "1 of 16 training images" in printed and "1 of 12 validation images" in printed
    assert all(path in printed for path in bad) and "# train_x  15" in printed
    assert "Checking that 16 images" in printed
    assert first.skipped_images == 2
    kept = [item for item in whole.dataset.train_x if item.impath not in bad]
    assert first.train_loader_x.dataset.data_source == kept
    # The second run uses the outcome of the first, and names the images again.
    again = DataManager(toy_config(root, root, *SKIP))
    printed = capsys.readouterr().out
    assert "Checking" not in printed and all(path in printed for path in bad)
    assert again.items == first.items
    # A repaired file is checked again.
    Image.new("RGB", (20, 20)).save(bad[0])
    assert DataManager(toy_config(root, root, *SKIP)).skipped_images == 1


def test_whole_parts_and_classes_are_not_skipped(
    root: Path, tmp_path: Path, capsys: Capture
) -> None:
    dataset = DataManager(toy_config(root, root)).dataset
    for item in dataset.train_x:
        if item.label == 2:
            Path(item.impath).write_text("no image")
    with pytest.raises(UserError, match=f'images of the class "{CLASSES[2]}"'):
        DataManager(toy_config(root, root, *SKIP))
    for item in dataset.test:
        Path(item.impath).write_text("no image")
    with pytest.raises(UserError, match="None of the 12 test images can be read"):
        DataManager(toy_config(root, root, "TEST.SPLIT", "test", *SKIP))
    message = refuse(command(tmp_path, tmp_path, "DATALOADER.ON_BAD_IMAGE", "ignore"), capsys)
    assert "DATALOADER.ON_BAD_IMAGE" in message and "skip" in message


def test_an_error_of_the_system_is_not_a_bad_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.png"
    Image.new("RGB", (4, 4)).save(path)

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(UserError, match="Input/output error"):
        find_broken([str(path)], tmp_path / "checks")
    assert not (tmp_path / "checks").exists()
    monkeypatch.undo()
    assert find_broken([str(path)], tmp_path / "checks") == {}
    # Without a place for the record the outcome is the same; a damaged record is made again.
    (tmp_path / "file").write_text("x")
    assert find_broken([str(path)], tmp_path / "file") == {}
    (record,) = (tmp_path / "checks").iterdir()
    record.write_text("[1]")
    assert find_broken([str(path)], tmp_path / "checks") == {}
    assert read_verified_json(record) == {"broken": {}}


# Whole runs: skipping gives the results of a list without the bad images.


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bad.csv lists images that cannot be decoded among the others of good.csv."""
    root = make_images(tmp_path_factory.mktemp("pictures")) / "squares" / "images"
    rows, bad = [], []
    for name in CLASSES:
        for number, path in enumerate(sorted((root / name).iterdir())):
            part = ("train", "train", "val", "test")[number % 4]
            rows.append([f"{name}/{path.name}", name, part])
    for number, kind in enumerate(("truncated", "empty", "text")):
        for part in ("train", "val", "test"):
            relative = f"{CLASSES[number]}/0{number}_{kind}_{part}.jpg"
            BROKEN[kind](root / relative)
            bad.append([relative, CLASSES[number], part])
    header = ["path", "label", "split"]
    write_csv(root / "good.csv", [header, *rows])
    write_csv(root / "bad.csv", [header, *sorted(rows + bad)])
    return root


def arguments(output: Path, pictures: Path, name: str, *extra: str, trainer: str) -> list[str]:
    """A short run on one of the lists; each list has its own data root."""
    own = ("OPTIM.MAX_EPOCH", "2", "DATASET.FOLDER.PATH", str(pictures / f"{name}.csv"), *extra)
    data_root = output.parent / f"data_{name}"
    return command(output, data_root, *own, trainer=trainer, dataset="folder")


@pytest.mark.parametrize(
    "extra",
    [(), ("DATALOADER.NUM_WORKERS", "2"), ("INPUT.TRAIN_VIEWS", "2")],
    ids=["fresh", "workers", "views"],
)
def test_skipping_trains_on_the_others(
    extra: tuple[str, ...], tmp_path: Path, pictures: Path
) -> None:
    for name, opts in (("good", ()), ("bad", SKIP)):
        finish(arguments(tmp_path / name, pictures, name, *opts, *extra, trainer="CoOp"))
    prompts = [load_file(tmp_path / name / "prompt.safetensors")["ctx"] for name in ("good", "bad")]
    assert torch.equal(*prompts)
    first, second = results(tmp_path / "good"), results(tmp_path / "bad")
    assert (first["skipped_images"], second["skipped_images"]) == (0, 9)
    for key in ("accuracy", "macro_f1", "num_test"):
        assert first[key] == second[key]
    assert (tmp_path / "bad" / "log.txt").read_text().count("_test.jpg: ") == 3


@pytest.mark.parametrize("cache", [(), (OFF,)], ids=["cache", "none"])
def test_cached_features_stay_aligned(
    cache: tuple[str, ...], tmp_path: Path, pictures: Path
) -> None:
    found: dict[str, list[Tensor]] = {"good": [], "bad": []}
    for name, opts in (("good", ()), ("bad", SKIP)):
        given = [*cache, *arguments(tmp_path / name, pictures, name, *opts, trainer="ZeroshotCLIP")]
        for _ in range(2):
            trainer = build_trainer(train.make_config(train.build_parser().parse_args(given)))
            found[name].append(scores(trainer))
            labels = [item.label for item in trainer.test_loader.dataset.data_source]
            found[name].append(torch.tensor(labels))
    for good, bad in zip(found["good"], found["bad"], strict=True):
        assert torch.equal(good, bad)


def test_without_skipping_the_run_stops(tmp_path: Path, pictures: Path, capsys: Capture) -> None:
    for trainer in ("CoOp", "ZeroshotCLIP"):
        message = refuse(arguments(tmp_path / trainer, pictures, "bad", trainer=trainer), capsys)
        assert "_t" in message and ".jpg cannot be read" in message
    assert not (tmp_path / "CoOp" / "results.json").exists()
