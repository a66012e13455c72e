"""The commands, names, links and code of README.md and docs/ are valid."""

import re
import shutil
from importlib import import_module
from pathlib import Path

import open_clip
import pytest

import train
from dassl.config import get_cfg_default, load_config
from nemesis.__main__ import VERBS
from safeio.errors import UserError
from tests.helpers.pages import PAGES, code_with, commands, runs_of
from tests.helpers.runs import ONE_EPOCH, ROOT, command, finish_in, results

KEYS = re.findall(
    r"^\| `(TRAINER\.CoOpNemesis\.\w+)`.*? \| `(TRAINER\.[\w.]+)`", PAGES["migration.md"], re.M
)


@pytest.mark.parametrize("page", PAGES)
def test_links_and_names_exist(page: str) -> None:
    text, folder = PAGES[page], ROOT if page == "README.md" else ROOT / "docs"
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        assert target.startswith("http") or (folder / target).exists(), target
    for name in re.findall(r"scripts/(\w+\.sh)", text):
        assert (ROOT / "scripts" / name).is_file(), name
    for path in re.findall(r"tests/\w+/\w+\.py", text):
        assert (ROOT / path).is_file(), path
    for target in re.findall(r"^ {4}make ([\w-]+)", text, re.M):
        assert f"\n{target}:" in (ROOT / "Makefile").read_text(), target


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_accepted(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    own = code_with("class MyPets") + code_with("class Anchored")
    for words in commands(page, "python train.py"):
        if "--trainer" in words and f"class {words[words.index('--trainer') + 1]}(" not in own:
            train.build_parser().parse_args(words)
    for verb, (module, _) in VERBS.items():
        for words in commands(page, f"python -m nemesis {verb}"):
            parser = getattr(import_module(module), "build_parser", None)
            assert parser is None or parser().parse_args(words)


def test_there_are_commands() -> None:
    assert len(commands("README.md", "python train.py")) >= 2
    assert {"pets", "birds", "plants"} <= set(runs_of("extend.md"))
    assert set(runs_of("migration.md")) == {"first", "black", "further"}
    assert {"transformers", "hub", "open_clip", "checkpoint"} == set(runs_of("weights.md"))


def test_the_downloaded_weights_exist_in_open_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = runs_of("extend.md")["laion"]
    cfg = train.make_config(train.build_parser().parse_args(words))
    architecture, tag = cfg.MODEL.BACKBONE.NAME.removeprefix("open_clip:").split("/")
    assert (architecture, tag) in open_clip.list_pretrained()
    assert cfg.INPUT.SIZE == (224, 224)


def test_migration_names_the_last_checkpoint_and_our_keys() -> None:
    words = runs_of("migration.md")["first"]
    cfg = train.make_config(train.build_parser().parse_args(words))
    assert f"model.pth.tar-{cfg.OPTIM.MAX_EPOCH}" in PAGES["migration.md"]
    assert len(KEYS) == 6
    for theirs, ours in KEYS:
        with pytest.raises(UserError, match=f'did you mean "{re.escape(ours)}"'):
            load_config(opts=[theirs, "1"])
        group, name = ours.split(".")[1:]
        assert name in get_cfg_default().TRAINER[group]


@pytest.mark.parametrize("name", [pytest.param("Shrink", marks=pytest.mark.slow), "ShrinkNemesis"])
def test_a_method_is_one_file(name: str, tmp_path: Path, data_root: Path) -> None:
    """In a copy of the checkout."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "trainers", checkout / "trainers")
    for shared in ("train.py", "safeio", "clip", "dassl", "datasets"):
        (checkout / shared).symlink_to(ROOT / shared)
    (checkout / "trainers" / "shrink.py").write_text(code_with("class ShrinkNemesis"))
    arguments = command(
        *(tmp_path / "out", data_root, *ONE_EPOCH, "TRAINER.SHRINK.FACTOR", "0.5"),
        trainer=name,
        configured_as="CoOp",
    )
    finish_in(checkout, arguments)
    assert results(tmp_path / "out")["trainer"] == name
