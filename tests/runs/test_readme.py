"""The README's commands, code and links hold."""

import importlib
import re
import shlex
import shutil
from pathlib import Path

import pytest

import train
from tests.helpers.runs import ROOT, SHORT, command, finish_in, results

README = (ROOT / "README.md").read_text(encoding="utf-8")
TRAIN_COMMANDS = [
    shlex.split(match)[2:]
    for match in re.findall(r"^ {4}\S*python train\.py .*", README.replace("\\\n", ""), re.M)
]


COMMANDS = ["bench", "corrupt", "download", "export", "interpret", "predict", "report", "sweep"]


def test_there_are_commands() -> None:
    assert len(TRAIN_COMMANDS) >= 2


@pytest.mark.parametrize("arguments", TRAIN_COMMANDS, ids=lambda a: a[a.index("--output-dir") + 1])
def test_every_command_resolves(arguments: list[str]) -> None:
    cfg = train.make_config(train.build_parser().parse_args(arguments))
    assert cfg.DATASET.NUM_SHOTS > 0
    assert cfg.MODEL.BACKBONE.NAME in ("mini", "RN50")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_other_command_is_one(name: str) -> None:
    found = re.findall(rf"python {name}\.py ([^`\n]*)", README.replace("\\\n", ""))
    parser = importlib.import_module(name).build_parser()
    assert [parser.parse_args(shlex.split(arguments)) for arguments in found]


def test_every_script_exists() -> None:
    for name in re.findall(r"(?:scripts/|`)(\w+\.sh)", README):
        assert (ROOT / "scripts" / name).is_file(), name


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^ {4}make (\w+)", README, re.M):
        assert f"\n{target}:" in makefile


@pytest.mark.parametrize("name", ["Shrink", "ShrinkNemesis"])
def test_a_method_is_one_file(name: str, tmp_path: Path, data_root: Path) -> None:
    """The README's own method, in a copy of the house."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    house = tmp_path / "house"
    shutil.copytree(ROOT / "trainers", house / "trainers")
    for shared in ("train.py", "safeio", "clip", "dassl", "datasets"):
        (house / shared).symlink_to(ROOT / shared)
    (house / "trainers" / "shrink.py").write_text(code)

    arguments = command(tmp_path / "out", data_root, *SHORT, "TRAINER.SHRINK.FACTOR", "0.5")
    arguments[arguments.index("CoOp")] = name
    finish_in(house, arguments)
    assert results(tmp_path / "out")["trainer"] == name
