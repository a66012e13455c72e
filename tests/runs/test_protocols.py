"""The protocols' scripts from start to end on bundled pictures, and what they run by default."""

import json
import shlex
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

import train
from dassl.config import load_config
from nemesis.report.scores import harmonic_mean
from tests.helpers.runs import results
from tests.helpers.shell import SHORT, script


def numbers(output: Path) -> dict[str, float]:
    """The table's means by column."""
    records = json.loads((output / "table.json").read_text())
    return {record["column"]: record["mean"] for record in records}


def accuracy_in(output: Path, folder: str) -> float:
    """The accuracy of the one run below OUTPUT/<setting>/<folder>."""
    (found,) = output.glob(f"*/{folder}/seed1")
    return results(found)["accuracy"]


def test_few_shot_goes_on_after_a_failure_and_then_has_nothing_left_to_do(
    tmp_path: Path, data_root: Path
) -> None:
    output = tmp_path / "my runs"
    settings = {"BENCH": "mini", "DATA": str(data_root), "OPTS": SHORT}
    first = script("few_shot", output, DATASETS="nowhere emoji_activities", **settings)
    assert first.returncode == 1
    (failed,) = (line for line in first.stderr.splitlines() if line.startswith("failed: "))
    assert failed.endswith("/nowhere/shots_1/seed1")
    accuracy = accuracy_in(output, "emoji_activities/shots_1")
    assert numbers(output) == {"accuracy": accuracy}

    (run,) = output.glob("*/emoji_activities/shots_1/seed1")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    second = script("few_shot", output, DATASETS="emoji_activities", **settings)
    assert second.returncode == 0, second.stderr
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert f"{accuracy:.1f}" in second.stdout
    assert (output / "table.md").read_text() in second.stdout


def test_base_to_new(tmp_path: Path, data_root: Path) -> None:
    output = tmp_path / "runs"
    settings = {"BENCH": "mini", "DATA": str(data_root), "DATASETS": "emoji_activities"}
    done = script("base_to_new", output, OPTS=SHORT, **settings)
    assert done.returncode == 0, done.stderr
    base, new = (
        accuracy_in(output, f"emoji_activities/shots_1/{half}") for half in ("base", "new")
    )
    assert numbers(output) == {"base": base, "new": new, "H": harmonic_mean(base, new)}


def test_what_needs_a_failed_training_is_not_started(tmp_path: Path, data_root: Path) -> None:
    output = tmp_path / "runs"
    settings = {"BENCH": "mini", "DATA": str(data_root), "DATASETS": "emoji_activities"}
    done = script("base_to_new", output, OPTS="TRAINER.COOP.N_CTXX 4", **settings)
    assert done.returncode == 1
    assert "TRAINER.COOP.N_CTX" in done.stderr
    (failed,) = (line for line in done.stderr.splitlines() if line.startswith("failed: "))
    assert "/base/" in failed
    assert not list(output.rglob("new"))


def test_cross_dataset_with_spaces_in_paths_and_options(tmp_path: Path, data_root: Path) -> None:
    output = tmp_path / "my runs"
    target = tmp_path / "my food.yaml"
    target.write_text('DATASET:\n  NAME: "EmojiFood"\n')
    settings = {"BENCH": "mini", "DATA": str(data_root), "SOURCE": "emoji_activities"}
    options = f'{SHORT} TRAINER.COOP.CTX_INIT "a picture of"'
    done = script("cross_dataset", output, OPTS=options, TARGETS=f'"{target}"', **settings)
    assert done.returncode == 0, done.stderr
    source = accuracy_in(output, "emoji_activities/shots_1/train")
    food = accuracy_in(output, "emoji_activities/shots_1/test_my food")
    assert numbers(output) == {"EmojiActivities": source, "EmojiFood": food, "average": food}
    (run,) = output.glob("*/emoji_activities/shots_1/train/seed1")
    assert results(run)["config"]["TRAINER"]["COOP"]["CTX_INIT"] == "a picture of"


def test_domain_generalization(tmp_path: Path, data_root: Path) -> None:
    output = tmp_path / "runs"
    settings = {"BENCH": "mini", "DATA": str(data_root), "DOMAINS": "fxemoji"}
    done = script("domain_generalization", output, OPTS=SHORT, NAME="short", **settings)
    assert done.returncode == 0, done.stderr
    folder = "emoji_activities/shots_1"
    source, target = (accuracy_in(output, f"{folder}/{name}") for name in ("train", "test_fxemoji"))
    assert numbers(output) == {"EmojiActivities": source, "fxemoji": target, "average": target}
    assert (output / "short" / folder / "train").is_dir()


def test_mistakes_in_the_settings(tmp_path: Path) -> None:
    done = script("few_shot", tmp_path / "runs", BENCH="tiny")
    assert (done.returncode, done.stderr) == (2, 'error: BENCH is "tiny"; accepted: paper, mini\n')
    done = script("few_shot", tmp_path / "runs", BENCH="mini", DATASETS='"emoji_food')
    assert done.returncode != 0
    assert not (tmp_path / "runs").exists()


# Stands for Python where the papers' datasets would be needed: notes its arguments and "finishes".
RECORDER = """#!/usr/bin/env bash
printf '%q ' "$@" >>"$COMMANDS"
echo >>"$COMMANDS"
if [[ $1 == */train.py ]]; then
    mkdir -p "$5"
    echo '"status": "finished"' >"$5/results.json"
fi
"""
# Their files are made with the datasets.
LATER = {"fgvc_aircraft", "imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"}


def recorded(name: str, tmp_path: Path, **settings: str) -> list[Namespace]:
    """The runs that a script starts."""
    recorder, commands = tmp_path / "python", tmp_path / "commands"
    recorder.write_text(RECORDER)
    recorder.chmod(0o755)
    commands.unlink(missing_ok=True)
    environment = {"PYTHON": str(recorder), "COMMANDS": str(commands)}
    done = script(name, tmp_path / "runs", **environment, **settings)
    assert done.returncode == 0, done.stderr
    *runs, table = (shlex.split(line) for line in commands.read_text().splitlines())
    assert table[:2] == ["-m", "nemesis.report.protocols"]
    found = [train.build_parser().parse_args(words[1:]) for words in runs]
    for run in found:
        dataset = Path(run.dataset_config_file)
        assert dataset.is_file() or dataset.stem in LATER
        assert Path(run.config_file).is_file()
    return found


def options(run: Namespace) -> dict[str, Any]:
    return dict(zip(run.opts[::2], run.opts[1::2], strict=True))


def stem(path: str) -> str:
    return Path(path).stem


def test_few_shot_by_default_is_the_papers(tmp_path: Path) -> None:
    runs = recorded("few_shot", tmp_path, SHOTS="1 2 4 8 16")
    assert len({run.dataset_config_file for run in runs}) == 11
    assert len(runs) == 11 * 5
    for run in runs:
        cfg = load_config(config_file=run.config_file)
        shots = int(options(run)["DATASET.NUM_SHOTS"])
        many = 50 if "imagenet" in run.dataset_config_file else 200
        assert min(many, {1: 50, 2: 100, 4: 100}.get(shots, 200)) == cfg.OPTIM.MAX_EPOCH
        assert (run.trainer, cfg.MODEL.BACKBONE.NAME) == ("CoOp", "RN50")


def test_base_to_new_by_default_is_the_papers(tmp_path: Path) -> None:
    runs = recorded("base_to_new", tmp_path, SHOTS="16")
    assert len(runs) == 11 * 2
    for base, new in zip(runs[::2], runs[1::2], strict=True):
        assert (base.trainer, stem(base.config_file)) == ("CoCoOp", "vit_b16_c4_ep10_batch1_ctxv1")
        assert options(base) == {"DATASET.NUM_SHOTS": "16", "DATASET.SUBSAMPLE_CLASSES": "base"}
        assert (new.eval_only, new.model_dir) == (True, base.output_dir)
        assert options(new) == {"DATASET.SUBSAMPLE_CLASSES": "new"}


@pytest.mark.parametrize(
    ("name", "config", "targets"),
    [
        ("cross_dataset", "vit_b16_c4_ep10_batch1_ctxv1", 10),
        ("domain_generalization", "rn50_ep50", 4),
    ],
)
def test_transfer_by_default_is_the_papers(
    name: str, config: str, targets: int, tmp_path: Path
) -> None:
    source, *tests = recorded(name, tmp_path, SHOTS="16")
    assert (stem(source.dataset_config_file), stem(source.config_file)) == ("imagenet", config)
    assert len({run.dataset_config_file for run in tests} - {source.dataset_config_file}) == targets
    assert all(run.eval_only and run.model_dir == source.output_dir for run in tests)


def test_options_are_part_of_the_folders_name(tmp_path: Path) -> None:
    """So that no run of one setting is taken for one of another."""
    settings = {"BENCH": "mini", "DATASETS": "emoji_food", "TRAINER": "CoOpNemesis"}
    runs = []
    for beta in ("0", "1"):
        runs += recorded("few_shot", tmp_path, OPTS=f"TRAINER.NEMESIS.BETA {beta}", **settings)
    names = {Path(run.output_dir).relative_to(tmp_path / "runs").parts[0] for run in runs}
    assert names == {f"CoOpNemesis-mini-TRAINER.NEMESIS.BETA_{beta}" for beta in "01"}
