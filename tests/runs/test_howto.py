"""What docs/howto.md shows works: its commands run on small folders of the bundled scenes."""

import re
import shlex
import shutil
from pathlib import Path

import open_clip
import pytest
from PIL import Image

import train
from clip.weights import MINI_PATH
from datasets.emoji import concepts_of, write_scenes
from tests.helpers.runs import ROOT, finish_in, results
from tests.runs.test_folder import write_csv

PAGE = (ROOT / "docs" / "howto.md").read_text(encoding="utf-8")
FILES = dict(
    zip(
        ("datasets/my_pets.py", "trainers/anchored.py"),
        re.findall(r"```python\n(.*?)```", PAGE, re.S),
        strict=True,
    )
)
COMMANDS = {
    arguments[arguments.index("--output-dir") + 1].removeprefix("output/"): arguments
    for arguments in (
        shlex.split(match)[2:]
        for match in re.findall(r"^ {4}\S*python train\.py .*", PAGE.replace("\\\n", ""), re.M)
    )
}
DOWNLOADS = "laion"  # the one command that needs the network
OWN_FILES = ("my_pets", "anchored")
SHORT = ("OPTIM.MAX_EPOCH", "2", "DATALOADER.NUM_WORKERS", "0")
CLASSES = [concept.slug for concept in concepts_of("activities")[:3]]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with the page's files, and the page's data folder in it."""
    root = tmp_path_factory.mktemp("checkout")
    for shared in ("train.py", "safeio", "clip", "dassl", "configs"):
        (root / shared).symlink_to(ROOT / shared)
    for copied in ("trainers", "datasets"):
        shutil.copytree(ROOT / copied, root / copied)
    for name, code in FILES.items():
        assert name in PAGE
        (root / name).write_text(code, encoding="utf-8")
    (root / "weights").mkdir()
    shutil.copy(MINI_PATH, root / "weights" / "my_clip.safetensors")
    make_data(root / "DATA")
    return root


def make_data(data: Path) -> None:
    """Three classes of eight scenes in each of the page's layouts."""
    scenes = data / "scenes"
    scenes.mkdir(parents=True)
    write_scenes("noto", CLASSES, scenes)
    rows = [["path", "label"]]
    for number, name in enumerate(CLASSES):
        for index, path in enumerate(sorted((scenes / name).iterdir())[:8]):
            part = ("train", "train", "val", "test")[index % 4]
            for relative in (
                f"pets/{part}/{name}/{index}.jpg",
                f"birds/{name}/{index}.jpg",
                f"plants/pictures/{name}_{index}.jpg",
                f"my_pets/images/{name}_{index}.jpg",
            ):
                target = data / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                with Image.open(path) as image:
                    image.save(target)
            rows.append([f"pictures/{name}_{index}.jpg", f"class {number}"])
    rows.append(["pictures/broken.jpg", "class 0"])
    (data / "plants" / "pictures" / "broken.jpg").write_text("no image")
    write_csv(data / "plants" / "labels.csv", rows)
    shutil.rmtree(scenes)


def test_the_page_has_its_commands() -> None:
    assert {"pets", "birds", "plants", "my_clip", "random", DOWNLOADS, *OWN_FILES} == set(COMMANDS)
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target


@pytest.mark.parametrize("name", [n for n in COMMANDS if n not in (DOWNLOADS, *OWN_FILES)])
def test_a_command_runs(name: str, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)
    assert train.main([*COMMANDS[name], *SHORT]) == 0
    run = results(checkout / "output" / name)
    assert run["status"] == "finished" and run["dataset"] == "Folder" and run["num_test"] >= 6
    if name == "plants":
        log = (checkout / "output" / name / "log.txt").read_text()
        assert run["skipped_images"] == log.count("broken.jpg: ")  # 0 where it is not drawn
        assert (checkout / "DATA" / "plants" / "split_labels.json").is_file()
    if name == "birds":
        assert (checkout / "DATA" / "birds" / "split_Folder.json").is_file()
        assert "a photo of a" in (checkout / "output" / name / "log.txt").read_text()
        assert ", a type of bird." in (checkout / "output" / name / "log.txt").read_text()


@pytest.mark.parametrize("name", OWN_FILES)
def test_a_file_of_ones_own_runs(name: str, checkout: Path) -> None:
    trainers = ("Anchored", "AnchoredNemesis") if name == "anchored" else ("CoOp",)
    for trainer in trainers:
        output = checkout / "output" / f"{name}_{trainer}"
        arguments = [*COMMANDS[name], *SHORT]
        arguments[arguments.index("--trainer") + 1] = trainer
        arguments[arguments.index("--output-dir") + 1] = str(output)
        finish_in(checkout, arguments)
        assert results(output)["trainer"] == trainer
        assert name != "anchored" or '"distance": ' in (output / "history.jsonl").read_text()


def test_the_download_names_weights_that_open_clip_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    cfg = train.make_config(train.build_parser().parse_args(COMMANDS[DOWNLOADS]))
    architecture, tag = cfg.MODEL.BACKBONE.NAME.removeprefix("open_clip:").split("/")
    assert (architecture, tag) in open_clip.list_pretrained()
    assert cfg.INPUT.SIZE == (224, 224)
