"""A user's own pictures in folders, lists and predict: orientation, formats, names, limits."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, features
from torch import Tensor

import train
from dassl.data import DatasetWrapper, image_kinds
from dassl.data.broken_images import find_broken
from dassl.data.datasets import Datum, list_images
from dassl.data.images import read_image
from dassl.engine import build_trainer
from nemesis.commands import predict
from nemesis.inference.image_files import find_images, unused_files
from safeio.errors import UserError
from tests.helpers.dassl_toy import make_images, toy_config
from tests.helpers.feature_runs import entries, scores
from tests.helpers.own_images import write_csv
from tests.helpers.runs import ROOT, Capture, command, finish, refuse
from trainers.core.features.view_pool import ViewImages

CASES = ROOT / "tests" / "data" / "images"
NAMES = ("cat", "dog")
SKIP = ("DATALOADER.ON_BAD_IMAGE", "skip")
RED = "\x1b[31m"
Save = Callable[[Image.Image, Path], None]


def picture(number: int) -> Image.Image:
    """Shapes on white, without any symmetry."""
    rng = np.random.default_rng(number)
    image = Image.new("RGB", (48, 32), "white")
    for _ in range(3):
        left, top = int(rng.integers(0, 30)), int(rng.integers(0, 20))
        image.paste(tuple(rng.integers(0, 200, 3).tolist()), (left, top, left + 16, top + 9))
    return image


def plain(image: Image.Image, path: Path) -> None:
    image.save(path)


def turned(image: Image.Image, path: Path) -> None:
    """As a phone that was held upright saves it."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)


def transparent(image: Image.Image, path: Path) -> None:
    """White becomes transparent, and black below."""
    pixels = np.asarray(image.convert("RGBA")).copy()
    pixels[(pixels == 255).all(axis=2)] = 0
    Image.fromarray(pixels).save(path)


def fill(folder: Path, save: Save = plain) -> Path:
    """Write train/ and test/ with two classes of two pictures each, and a list of them."""
    rows = [["path", "label", "split"]]
    for number in range(8):
        part, name = ("train", "test")[number // 4], NAMES[number % 2]
        path = folder / part / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save(picture(number), path)
        rows.append([f"{part}/{name}/{number}.png", name, part])
    write_csv(folder / "list.csv", rows)
    return folder


def arguments(output: Path, folder: Path, *extra: str, trainer: str = "ZeroshotCLIP") -> list[str]:
    short = ("OPTIM.MAX_EPOCH", "1") if trainer == "CoOp" else ()
    own = (*short, "DATASET.FOLDER.PATH", str(folder), *extra)
    return command(output, output.parent / "data", *own, trainer=trainer, dataset="folder")


def scores_of(output: Path, folder: Path, *extra: str) -> Tensor:
    """The scores of a zero-shot run; its features are cached in output/cache."""
    given = arguments(output / "run", folder, "TEST.FEATURE_CACHE", str(output / "cache"), *extra)
    return scores(build_trainer(train.make_config(train.build_parser().parse_args(given))))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose classes need no data."""
    place = tmp_path_factory.mktemp("own")
    finish(arguments(place / "run", fill(place / "pets")))
    return place / "run"


def predicted(
    capsys: Capture, run: Path, *given: Any, code: int = 0
) -> tuple[dict[str, list[float]], list[str]]:
    """Path -> the probabilities of both classes, and the lines of standard error."""
    capsys.readouterr()
    assert predict.main([*map(str, (run, *given, "--classes", *NAMES, "--json"))]) == code
    printed = capsys.readouterr()
    found = {}
    for line in map(json.loads, printed.out.splitlines()):
        by_class = {entry["class"]: entry["probability"] for entry in line["predictions"]}
        found[line["path"]] = [by_class[name] for name in NAMES]
    return found, printed.err.splitlines()


# Orientation and transparency


@pytest.mark.parametrize("save", [turned, transparent])
def test_own_pictures_are_read_as_they_are_viewed(
    save: Save, run_dir: Path, tmp_path: Path, capsys: Capture
) -> None:
    """In folders, lists and predict; INPUT.DECODE changes it, and cached features notice."""
    expected = scores_of(tmp_path / "plain", fill(tmp_path / "upright"))
    folder = fill(tmp_path / "phone", save)
    assert torch.equal(scores_of(tmp_path / "list", folder / "list.csv"), expected)
    for decode in ("auto", "as_viewed"):
        assert torch.equal(scores_of(tmp_path / "folder", folder, "INPUT.DECODE", decode), expected)
    stored = scores_of(tmp_path / "folder", folder, "INPUT.DECODE", "as_stored")
    assert not torch.allclose(stored, expected, atol=0.05)
    assert len(entries(tmp_path / "folder")) == 2
    plain(picture(1), tmp_path / "a.png")
    save(picture(1), tmp_path / "b.png")
    first, second = predicted(capsys, run_dir, tmp_path / "a.png", tmp_path / "b.png")[0].values()
    assert first == second
    insist = (run_dir, tmp_path / "b.png", "--json", "--classes", *NAMES)
    assert predict.main([*map(str, insist), "--set", "INPUT.DECODE", "as_stored"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["predictions"][0]["probability"] != max(second)


@pytest.mark.usefixtures("toys")
def test_benchmarks_are_read_as_stored_like_coop(tmp_path: Path, capsys: Capture) -> None:
    turned(picture(0), tmp_path / "a.png")
    root = make_images(tmp_path)
    shapes = {}
    for decode in ("auto", "as_viewed", "as_stored"):
        cfg = toy_config(root, root, "INPUT.DECODE", decode)
        wrapper = DatasetWrapper(cfg, [Datum(str(tmp_path / "a.png"))], np.asarray)
        shapes[decode] = wrapper[0]["img"].shape
        assert ViewImages(wrapper, 0)[0]["img"].shape == shapes[decode]
    stored, viewed = (48, 32, 3), (32, 48, 3)
    assert shapes == {"auto": stored, "as_viewed": viewed, "as_stored": stored}
    message = refuse(arguments(tmp_path / "run", tmp_path, "INPUT.DECODE", "exif"), capsys)
    assert "INPUT.DECODE" in message and "as_viewed" in message
    assert not (tmp_path / "run").exists()


# Extreme shapes


def test_strips_do_not_cost_other_pictures_their_prediction(
    run_dir: Path, tmp_path: Path, capsys: Capture
) -> None:
    plain(picture(0), tmp_path / "a.png")
    Image.new("RGB", (1, 300_000), "red").save(tmp_path / "tall.png")
    Image.new("L", (20_000_000, 1), 7).save(tmp_path / "wide20M.png")
    found, errors = predicted(capsys, run_dir, CASES / "wide400k.png", tmp_path)
    assert len(found) == 4 and not errors
    # They have one colour, and the model sees only that.
    small = tmp_path / "small.png"
    Image.new("L", (30, 30), 7).save(small)
    expected = predicted(capsys, run_dir, small)[0][str(small)]
    for name in (CASES / "wide400k.png", tmp_path / "wide20M.png"):
        assert found[str(name)] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("extra", [(), SKIP])
def test_strips_can_be_trained_on(extra: tuple[str, ...], tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets")
    for part in ("train", "test"):
        for name, size in (("wide", (400_000, 1)), ("tall", (1, 400_000))):
            Image.new("RGB", size, "red").save(folder / part / "cat" / f"{name}.png")
    finish(arguments(tmp_path / "run", folder, *extra, trainer="CoOp"))


# One list of suffixes


def mixed(folder: Path) -> Path:
    """Write the files of a phone, a browser and a camera."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a.avif", "heic.HEIC", "x.jfif"):
        (folder / name).write_bytes((CASES / name).read_bytes())
    picture(0).save(folder / "PHOTO.JPE", "JPEG")
    (folder / "notes.txt").write_text("no picture")
    (folder / "film.mov").write_text("no picture")
    return folder


def test_predict_names_every_file_that_it_does_not_read(
    run_dir: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = mixed(tmp_path / "phone")
    found, errors = predicted(capsys, run_dir, folder, code=1)
    assert [Path(path).name for path in found] == ["PHOTO.JPE", "a.avif", "x.jfif"]
    note, heic = errors
    assert note == f"note: Not used in {folder}: 2 files of other kinds (1 .mov, 1 .txt)"
    assert "heic.HEIC cannot be read" in heic and "pip install pillow-heif" in heic
    assert "ON_BAD_IMAGE" not in heic  # which is a setting of training
    assert find_images([str(folder / "*")]) == find_images([str(folder)])
    assert len(find_images([str(folder)])[0]) == 4
    assert unused_files([str(folder / "*"), str(folder / "a.avif")]) == []
    assert list_images(tmp_path)["phone"] == ["PHOTO.JPE", "a.avif", "heic.HEIC", "x.jfif"]


def test_folders_and_lists_name_heic_images(tmp_path: Path, capsys: Capture) -> None:
    folder = fill(tmp_path / "pets")
    mixed(folder / "train" / "cat")
    for name in ("train/dog/b.heif", "b.heic"):
        (folder / name).write_bytes((CASES / "heic.HEIC").read_bytes())
    finish(arguments(tmp_path / "run", folder))
    printed = capsys.readouterr().out
    assert f"Not used in {folder / 'train'}: 2 HEIC images; HEIC needs" in printed
    assert "pip install pillow-heif" in printed
    assert f"Not used in {folder / 'train'}: 2 files" in printed
    with (folder / "list.csv").open("a") as file:
        file.write("b.heic,cat,test\n")
    message = refuse(arguments(tmp_path / "list", folder / "list.csv"), capsys)
    assert "b.heic cannot be read: HEIC needs" in message and "ON_BAD_IMAGE skip" in message
    finish(arguments(tmp_path / "list", folder / "list.csv", *SKIP))
    printed = capsys.readouterr().out
    assert f"Listed in {folder / 'list.csv'}: 1 HEIC images" in printed
    assert "b.heic: HEIC needs the package pillow-heif" in printed


def test_formats_depend_on_the_installed_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def register() -> None:
        accept = (lambda *_: picture(0), lambda prefix: prefix[4:12] == b"ftypheic")
        monkeypatch.setitem(Image.OPEN, "HEIF", accept)

    fake = SimpleNamespace(register_heif_opener=register)
    monkeypatch.setitem(sys.modules, "pillow_heif", fake)
    monkeypatch.setattr(image_kinds, "reads_heif", lambda: True)
    monkeypatch.setattr(features, "check", lambda name: name != "avif")
    image_kinds.readable_formats.cache_clear()
    try:
        assert read_image(str(CASES / "heic.HEIC")).size == (48, 32)
        folder = fill(tmp_path / "pets")
        (folder / "test" / "cat" / "b.HEIC").write_bytes((CASES / "heic.HEIC").read_bytes())
        assert len(scores_of(tmp_path, folder)) == 5
        assert "HEIC" not in capsys.readouterr().out
        with pytest.raises(UserError, match=r"AVIF needs Pillow 11\.3 or newer"):
            read_image(str(CASES / "a.avif"))
    finally:
        image_kinds.readable_formats.cache_clear()


# Names and limits


def test_control_codes_in_names_never_reach_a_terminal(
    run_dir: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "phone"
    folder.mkdir()
    picture(0).save(folder / f"a{RED}\r.png")
    (folder / f"b{RED}.png").write_text("no image")
    (folder / f"c{RED}.x{RED}").write_text("no image")
    capsys.readouterr()
    gone = str(folder / f"{RED}gone.png")
    assert predict.main([str(run_dir), str(folder), gone, "--classes", *NAMES]) == 1
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err and "\r" not in printed.out
    assert r"a\x1b[31m\r.png" in printed.out and r"b\x1b[31m.png" in printed.err
    assert r"\x1b[31mgone.png" in printed.err and r"1 .x\x1b[31m" in printed.err
    header, rule, *rows = printed.out.splitlines()
    assert {len(row) for row in rows} == {len(rule)} == {len(header)}

    pets = fill(tmp_path / "pets")
    (pets / "test" / "cat" / f"b{RED}.png").write_text("no image")
    (pets / f"aside{RED}").mkdir()
    message = refuse(arguments(tmp_path / "run", pets), capsys)
    assert r"b\x1b[31m.png" in message and "\x1b" not in message
    finish(arguments(tmp_path / "skip", pets, *SKIP))
    log = (tmp_path / "skip" / "log.txt").read_text() + capsys.readouterr().out
    assert r"b\x1b[31m.png" in log and r"aside\x1b[31m" in log and "\x1b" not in log


def test_the_largest_picture_is_a_setting(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    path = tmp_path / "a.png"
    picture(0).save(path)
    monkeypatch.setenv("NEMESIS_MAX_PIXELS", "1000")
    assert find_broken([str(path)], tmp_path / "checks")
    found, errors = predicted(capsys, run_dir, path, CASES / "x.jfif", code=1)
    assert not found and len(errors) == 2
    assert "its 48 x 32 pixels exceed the limit of 1,000" in errors[0]
    assert "NEMESIS_MAX_PIXELS" in errors[0]
    monkeypatch.setenv("NEMESIS_MAX_PIXELS", "2000")
    assert not find_broken([str(path)], tmp_path / "checks")
    # Pillow's own limit, which no command line can set, does not interfere.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert read_image(str(path)).size == (48, 32)
    assert Image.MAX_IMAGE_PIXELS == 10
    for wrong in ("0", "many", "-1", "1e9"):
        monkeypatch.setenv("NEMESIS_MAX_PIXELS", wrong)
        capsys.readouterr()
        assert predict.main([str(run_dir), str(path), "--classes", *NAMES]) == 2
        (message,) = capsys.readouterr().err.splitlines()
        assert f"NEMESIS_MAX_PIXELS is '{wrong}'" in message
    monkeypatch.undo()
    for width in (20_000, 8_000):  # more than twice the limit, where Pillow itself refuses, or less
        Image.new("1", (width, 10_000)).save(path)
        with pytest.raises(UserError, match="the environment variable NEMESIS_MAX_PIXELS"):
            read_image(str(path))
