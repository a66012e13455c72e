"""What docs/migration.md says: its commands run in their order, its keys and flags are right."""

import re
import shlex
from pathlib import Path

import pytest

import train
from dassl.config import get_cfg_default, load_config
from safeio.errors import UserError
from tests.helpers.runs import ROOT, results

PAGE = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(match)[2:]
    for match in re.findall(r"^ {4}\S*python train\.py .*", PAGE.replace("\\\n", ""), re.M)
]
KEYS = re.findall(r"^\| `(TRAINER\.CoOpNemesis\.\w+)`.*? \| `(TRAINER\.[\w.]+)`", PAGE, re.M)


def test_the_page_is_short_and_names_what_there_is() -> None:
    assert len(PAGE.splitlines()) <= 120
    assert [command[command.index("--output-dir") + 1] for command in COMMANDS] == [
        "output/first",
        "output/black",
        "output/further",
    ]
    assert len(KEYS) == 6
    for path in re.findall(r"tests/\w+\.py", PAGE):
        assert (ROOT / path).is_file()


def test_the_commands_run_one_after_the_other(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    data_root.mkdir(exist_ok=True)
    (tmp_path / "DATA").symlink_to(data_root)
    accuracies = []
    for words in COMMANDS:
        short = [word.replace("model.pth.tar-14", "model.pth.tar-1") for word in words]
        assert train.main([*short, "OPTIM.MAX_EPOCH", "1", "DATASET.NUM_SHOTS", "1"]) == 0
        accuracies.append(results(tmp_path / words[words.index("--output-dir") + 1])["accuracy"])
    assert len(accuracies) == 3
    log = (tmp_path / "output" / "further" / "log.txt").read_text(encoding="utf-8")
    assert "Loaded pretrained weights from output/first/prompt_learner" in log
    assert log.count("* accuracy: ") == 1 and "* perclass_acc: " in log


def test_the_checkpoint_of_the_page_is_the_last_of_its_settings() -> None:
    cfg = train.make_config(train.build_parser().parse_args(COMMANDS[0]))
    assert f"model.pth.tar-{cfg.OPTIM.MAX_EPOCH}" in PAGE


@pytest.mark.parametrize(("theirs", "ours"), KEYS)
def test_the_keys_are_those_of_the_hints(theirs: str, ours: str) -> None:
    with pytest.raises(UserError, match=f'did you mean "{re.escape(ours)}"'):
        load_config(opts=[theirs, "1"])
    group, name = ours.split(".")[1:]
    assert name in get_cfg_default().TRAINER[group]
