"""Pictures as people have them, in folders, lists and nemesis predict, to the end of a run."""

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
from tests.runs.test_folder import write_csv
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
from tests.helpers.dassl_toy import make_images, registered, toy_config
from tests.helpers.feature_runs import entries, scores
from tests.helpers.runs import ROOT, command, finish, refuse
from trainers.core.features.views import ViewImages

CASES = Path(__file__).parents[1] / "data" / "images"
NAMES = ("cat", "dog")
SKIP = ("DATALOADER.ON_BAD_IMAGE", "skip")
RED = "\x1b[31m"


def picture(number: int) -> Image.Image:
    """White with shapes on it, not the same from any two sides."""
    rng = np.random.default_rng(number)
    image = Image.new("RGB", (48, 32), "white")
    for _ in range(3):
        left, top = int(rng.integers(0, 30)), int(rng.integers(0, 20))
        image.paste(tuple(rng.integers(0, 200, 3).tolist()), (left, top, left + 16, top + 9))
    return image


def plain(image: Image.Image, path: Path) -> None:
    image.save(path)


def turned(image: Image.Image, path: Path) -> None:
    """As a phone saves it that was held upright."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)


def transparent(image: Image.Image, path: Path) -> None:
    """White is transparent, and black below."""
    pixels = np.asarray(image.convert("RGBA")).copy()
    pixels[(pixels == 255).all(axis=2)] = 0
    Image.fromarray(pixels).save(path)


def fill(folder: Path, save: Callable[[Image.Image, Path], None]) -> Path:
    """train/ and test/ with two classes of two pictures each, and a list of them."""
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
    given = command(output, output.parent / "data", trainer=trainer)
    given[given.index("--dataset-config-file") + 1] = str(ROOT / "configs/datasets/folder.yaml")
    short = ("OPTIM.MAX_EPOCH", "1") if trainer == "CoOp" else ()
    return [*given, *short, "DATASET.FOLDER.PATH", str(folder), *extra]


def scores_of(output: Path, folder: Path, *extra: str) -> Tensor:
    """What a zero-shot run says of the test pictures; its features are kept in output/cache."""
    given = arguments(output / "run", folder, "TEST.FEATURE_CACHE", str(output / "cache"), *extra)
    return scores(build_trainer(train.make_config(train.build_parser().parse_args(given))))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose classes need no data."""
    place = tmp_path_factory.mktemp("own")
    finish(arguments(place / "run", fill(place / "pets", plain)))
    return place / "run"


def predicted(
    capsys: pytest.CaptureFixture[str], run: Path, *given: Any, code: int = 0
) -> tuple[dict[str, list[float]], list[str]]:
    """Path -> the probabilities of both classes, and the lines of standard error."""
    capsys.readouterr()
    names = ("--classes", *NAMES, "--json")
    assert predict.main([*map(str, (run, *given, *names))]) == code
    printed = capsys.readouterr()
    found = {}
    for line in map(json.loads, printed.out.splitlines()):
        by_class = {entry["class"]: entry["probability"] for entry in line["predictions"]}
        found[line["path"]] = [by_class[name] for name in NAMES]
    return found, printed.err.splitlines()


# Orientation and transparency


@pytest.mark.parametrize("save", [turned, transparent])
def test_own_pictures_are_read_as_they_are_viewed(
    save: Callable[[Image.Image, Path], None], tmp_path: Path
) -> None:
    expected = scores_of(tmp_path / "1", fill(tmp_path / "plain", plain))
    folder = fill(tmp_path / "phone", save)
    for name, source in (("2", folder), ("3", folder / "list.csv")):
        assert torch.equal(scores_of(tmp_path / name, source), expected)
    stored = scores_of(tmp_path / "4", folder, "INPUT.DECODE", "as_stored")
    assert not torch.allclose(stored, expected, atol=0.05)


def test_features_of_another_decoding_are_not_taken_from_the_cache(tmp_path: Path) -> None:
    folder = fill(tmp_path / "phone", turned)
    viewed, again, stored = (
        scores_of(tmp_path, folder, "INPUT.DECODE", decode)
        for decode in ("auto", "as_viewed", "as_stored")
    )
    assert len(entries(tmp_path)) == 2
    assert torch.equal(viewed, again) and not torch.allclose(viewed, stored, atol=0.05)


@pytest.mark.parametrize("save", [turned, transparent])
def test_predict_sees_what_its_user_sees(
    save: Callable[[Image.Image, Path], None],
    run_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain(picture(1), tmp_path / "a.png")
    save(picture(1), tmp_path / "b.png")
    found, _ = predicted(capsys, run_dir, tmp_path / "a.png", tmp_path / "b.png")
    first, second = found.values()
    assert first == second
    insist = ("--opts", "INPUT.DECODE", "as_stored")
    capsys.readouterr()
    given = (run_dir, tmp_path / "b.png", "--json", "--classes", *NAMES, *insist)
    assert predict.main([*map(str, given)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["predictions"][0]["probability"] != max(second)


def test_benchmarks_are_read_as_coop_reads_them(tmp_path: Path) -> None:
    """A dataset's class says how; without a word it is CoOp's way."""
    turned(picture(0), tmp_path / "a.png")
    root = make_images(tmp_path)
    shapes = {}
    with registered():
        for decode in ("auto", "as_viewed", "as_stored"):
            cfg = toy_config(root, root, "INPUT.DECODE", decode)
            wrapper = DatasetWrapper(cfg, [Datum(str(tmp_path / "a.png"))], np.asarray)
            shapes[decode] = wrapper[0]["img"].shape
            views = ViewImages(wrapper, 0)
            assert views[0]["img"].shape == shapes[decode]
    stored, viewed = (48, 32, 3), (32, 48, 3)
    assert shapes == {"auto": stored, "as_viewed": viewed, "as_stored": stored}


def test_a_misspelt_decoding_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refuse(arguments(tmp_path / "run", tmp_path, "INPUT.DECODE", "exif"), capsys)
    assert "INPUT.DECODE" in message and "as_viewed" in message
    assert not (tmp_path / "run").exists()


# Shapes that nobody expects


def test_strips_do_not_cost_the_others_their_answer(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain(picture(0), tmp_path / "a.png")
    Image.new("RGB", (1, 300_000), "red").save(tmp_path / "tall.png")
    Image.new("L", (20_000_000, 1), 7).save(tmp_path / "wide20M.png")
    given = (CASES / "wide400k.png", tmp_path)
    found, errors = predicted(capsys, run_dir, *given)
    assert len(found) == 4 and not errors
    # They are one colour, and so is what the model sees.
    Image.new("L", (30, 30), 7).save(tmp_path / "small.png")
    small = tmp_path / "small.png"
    expected = predicted(capsys, run_dir, small)[0][str(small)]
    for name in (CASES / "wide400k.png", tmp_path / "wide20M.png"):
        assert found[str(name)] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("extra", [(), SKIP])
def test_a_strip_can_be_trained_on(extra: tuple[str, ...], tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets", plain)
    for part in ("train", "test"):
        for name, size in (("wide", (400_000, 1)), ("tall", (1, 400_000))):
            Image.new("RGB", size, "red").save(folder / part / "cat" / f"{name}.png")
    finish(arguments(tmp_path / "run", folder, *extra, trainer="CoOp"))


# One list of suffixes


def mixed(folder: Path) -> Path:
    """What a phone, a browser and a camera leave in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a.avif", "heic.HEIC", "x.jfif"):
        (folder / name).write_bytes((CASES / name).read_bytes())
    picture(0).save(folder / "PHOTO.JPE", "JPEG")
    (folder / "notes.txt").write_text("no picture")
    (folder / "film.mov").write_text("no picture")
    return folder


def test_predict_passes_no_picture_over_in_silence(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = mixed(tmp_path / "phone")
    found, errors = predicted(capsys, run_dir, folder, code=1)
    assert [Path(path).name for path in found] == ["PHOTO.JPE", "a.avif", "x.jfif"]
    note, heic = errors
    assert note == f"note: Not used in {folder}: 2 files of other kinds (1 .mov, 1 .txt)"
    assert "heic.HEIC cannot be read" in heic and "pip install pillow-heif" in heic
    assert "ON_BAD_IMAGE" not in heic  # which is a setting of training


def test_patterns_find_the_same(tmp_path: Path) -> None:
    folder = mixed(tmp_path / "phone")
    assert find_images([str(folder / "*")]) == find_images([str(folder)])
    assert len(find_images([str(folder)])[0]) == 4
    assert unused_files([str(folder / "*"), str(folder / "a.avif")]) == []


def test_class_folders_say_how_many_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fill(tmp_path / "pets", plain)
    mixed(folder / "train" / "cat")
    (folder / "train" / "dog" / "b.heif").write_bytes((CASES / "heic.HEIC").read_bytes())
    capsys.readouterr()
    finish(arguments(tmp_path / "run", folder))
    said = capsys.readouterr().out
    assert f"Not used in {folder / 'train'}: 2 HEIC images; HEIC needs" in said
    assert "pip install pillow-heif" in said
    assert f"Not used in {folder / 'train'}: 2 files" in said


def test_a_list_with_heic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fill(tmp_path / "pets", plain)
    (folder / "b.heic").write_bytes((CASES / "heic.HEIC").read_bytes())
    with (folder / "list.csv").open("a") as file:
        file.write("b.heic,cat,test\n")
    message = refuse(arguments(tmp_path / "run", folder / "list.csv"), capsys)
    assert "b.heic cannot be read: HEIC needs" in message and "ON_BAD_IMAGE skip" in message
    finish(arguments(tmp_path / "run", folder / "list.csv", *SKIP))
    said = capsys.readouterr().out
    assert f"Listed in {folder / 'list.csv'}: 1 HEIC images" in said
    assert "b.heic: HEIC needs the package pillow-heif" in said


def test_datasets_that_list_class_folders_find_the_same(tmp_path: Path) -> None:
    mixed(tmp_path / "cat")
    found = list_images(tmp_path)["cat"]
    assert found == ["PHOTO.JPE", "a.avif", "heic.HEIC", "x.jfif"]


def test_heic_is_read_where_its_package_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def accept(prefix: bytes) -> bool:
        return prefix[4:12] == b"ftypheic"

    def register() -> None:
        monkeypatch.setitem(Image.OPEN, "HEIF", (lambda *_: picture(0), accept))

    fake = SimpleNamespace(register_heif_opener=register)
    monkeypatch.setitem(sys.modules, "pillow_heif", fake)
    monkeypatch.setattr(image_kinds, "reads_heif", lambda: True)
    image_kinds.readable_formats.cache_clear()
    try:
        assert read_image(str(CASES / "heic.HEIC")).size == (48, 32)
        folder = fill(tmp_path / "pets", plain)
        (folder / "test" / "cat" / "b.HEIC").write_bytes((CASES / "heic.HEIC").read_bytes())
        assert len(scores_of(tmp_path, folder)) == 5
        assert "HEIC" not in capsys.readouterr().out
    finally:
        image_kinds.readable_formats.cache_clear()


def test_a_pillow_without_avif(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda name: name != "avif")
    image_kinds.readable_formats.cache_clear()
    try:
        with pytest.raises(UserError, match=r"AVIF needs Pillow 11\.3 or newer"):
            read_image(str(CASES / "a.avif"))
    finally:
        image_kinds.readable_formats.cache_clear()


# Names and limits


def test_control_codes_in_names_stay_in_the_files(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pets"
    folder.mkdir()
    picture(0).save(folder / f"a{RED}\r.png")
    (folder / f"b{RED}.png").write_text("no image")
    (folder / f"c{RED}.x{RED}").write_text("no image")
    capsys.readouterr()
    names = ("--classes", *NAMES)
    gone = str(folder / f"{RED}gone.png")
    assert predict.main([str(run_dir), str(folder), gone, *names]) == 1
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err and "\r" not in printed.out
    assert r"a\x1b[31m\r.png" in printed.out and r"b\x1b[31m.png" in printed.err
    assert r"\x1b[31mgone.png" in printed.err and r"1 .x\x1b[31m" in printed.err
    header, rule, *rows = printed.out.splitlines()
    assert {len(row) for row in rows} == {len(rule)} == {len(header)}


def test_control_codes_in_names_stay_out_of_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fill(tmp_path / "pets", plain)
    (folder / "test" / "cat" / f"b{RED}.png").write_text("no image")
    (folder / f"aside{RED}").mkdir()
    message = refuse(arguments(tmp_path / "run", folder), capsys)
    assert r"b\x1b[31m.png" in message and "\x1b" not in message
    finish(arguments(tmp_path / "skip", folder, *SKIP))
    log = (tmp_path / "skip" / "log.txt").read_text() + capsys.readouterr().out
    assert r"b\x1b[31m.png" in log and r"aside\x1b[31m" in log and "\x1b" not in log


def test_the_largest_picture_is_a_setting(
    run_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
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
    # Pillow's own limit, which cannot be set from a command line, is not in the way.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert read_image(str(path)).size == (48, 32)
    assert Image.MAX_IMAGE_PIXELS == 10
    for wrong in ("0", "many", "-1", "1e9"):
        monkeypatch.setenv("NEMESIS_MAX_PIXELS", wrong)
        capsys.readouterr()
        assert predict.main([str(run_dir), str(path), "--classes", *NAMES]) == 2
        (message,) = capsys.readouterr().err.splitlines()
        assert f"NEMESIS_MAX_PIXELS is '{wrong}'" in message


def test_a_bomb_names_the_setting(tmp_path: Path) -> None:
    """More than twice the limit, where Pillow itself refuses, and less."""
    for width in (20_000, 8_000):
        Image.new("1", (width, 10_000)).save(tmp_path / "a.png")
        with pytest.raises(UserError, match="the environment variable NEMESIS_MAX_PIXELS"):
            read_image(str(tmp_path / "a.png"))
