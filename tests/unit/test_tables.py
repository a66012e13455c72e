"""The sweeps of the paper's tables: what they run, and what they have in common."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from nemesis.sweeps.grid import make_runs
from nemesis.sweeps.runs import Run
from nemesis.sweeps.sweep_file import read_sweep
from tests.helpers.runs import ROOT
from tests.helpers.shell import script

SEEDS, SHOTS, DATASETS = 5, 5, 11
# Runs in the paper's setting, and on the bundled benchmark.
SIZES = {
    "table_1": (5 * SEEDS * (1 + 4), 7 * SEEDS * (1 + 3)),
    "table_2": (3 * 3 * SHOTS * SEEDS, 3 * SHOTS * 3),
    "table_3": ((1 + 5 * 2) * SHOTS * SEEDS, (1 + 3 * 2) * SHOTS * 3),
    "table_4": (7 * DATASETS * 2 * SEEDS, 7 * 2 * 2 * 3),
    "table_a4": (7 * DATASETS * SEEDS * 2, 7 * 3 * 2),
    "table_a5": (7 * DATASETS * SHOTS * SEEDS, 7 * SHOTS * SEEDS),
    "table_a6": (3 * 6 * SHOTS * SEEDS, 3 * SHOTS * 3),
    "table_a7": (3 * 6 * SHOTS * SEEDS, 3 * SHOTS * 3),
    "figure_2": (3 * DATASETS * SHOTS * SEEDS, 3 * SHOTS * SEEDS),
}


@lru_cache
def runs_of(name: str, bench: str = "paper") -> dict[str, Run]:
    sweep = read_sweep(ROOT / f"configs/sweeps/{name}.yaml", bench)
    return {run.digest: run for run in make_runs(sweep)}


@pytest.mark.parametrize("name", SIZES)
def test_each_resolves_for_both_benchmarks(name: str) -> None:
    paper, mini = runs_of(name), runs_of(name, "mini")
    assert (len(paper), len(mini)) == SIZES[name]
    assert {str(run.output) for run in paper.values()} == {"output/paper"}
    assert {str(run.output) for run in mini.values()} == {"output/mini/paper"}
    assert {run.config["MODEL"]["BACKBONE"]["NAME"] for run in mini.values()} == {"mini"}
    assert {run.config["INPUT"]["TRAIN_VIEWS"] for run in mini.values()} == {4}
    for run in paper.values():
        backbone = "ViT-B/16" if name == "table_a4" else "RN50"
        assert run.config["MODEL"]["BACKBONE"]["NAME"] == backbone
        assert run.config["INPUT"]["TRAIN_VIEWS"] == 0


def test_every_table_has_a_script_and_every_sweep_is_counted() -> None:
    sweeps = {path.stem for path in (ROOT / "configs/sweeps").glob("*.yaml")}
    assert {name for name in sweeps if not name.startswith("demo")} == set(SIZES)
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.sh")}
    assert {*SIZES, "table_a8", "table_a9", "run_all"} <= scripts


def common(one: str, other: str, bench: str) -> int:
    return len(set(runs_of(one, bench)) & set(runs_of(other, bench)))


def test_tables_share_their_runs() -> None:
    """One folder holds them all, so that what one table has made, no other makes again."""
    ends = 2 * DATASETS * 2 * SEEDS  # beta 0 and 1, at 1 and 16 shots
    assert common("table_4", "table_a5", "paper") == ends
    assert common("figure_2", "table_a5", "paper") == SIZES["figure_2"][0]
    assert common("table_a6", "table_a7", "paper") == 6 * SHOTS * SEEDS
    assert common("table_a6", "table_a5", "paper") == 6 * SHOTS * SEEDS
    # ImageNet's CoOp, PUN and PAN with omega 1 and 10, 16 shots.
    assert common("table_1", "table_a5", "paper") == 5 * SEEDS
    # CoOp, and PAN that selects one position.
    assert common("table_3", "table_a5", "paper") == 2 * SHOTS * SEEDS
    assert common("figure_2", "table_a5", "mini") == SIZES["figure_2"][1]
    assert common("table_1", "table_a5", "mini") == 7 * SEEDS
    assert common("table_3", "table_a5", "mini") == 2 * SHOTS * 3
    assert common("table_a6", "table_a5", "mini") == SHOTS * 3
    assert common("table_a7", "table_a5", "mini") == SHOTS * 3
    assert common("table_4", "table_a5", "mini") == 2 * 2 * 3


def test_the_papers_settings_of_nemesis_and_of_training() -> None:
    for run in runs_of("table_a5").values():
        nemesis: dict[str, Any] = run.config["TRAINER"]["NEMESIS"]
        assert (nemesis["TAU"], nemesis["N"], nemesis["NORM"]) == (0.5, 1, "two")
        coop = run.config["TRAINER"]["COOP"]
        assert (coop["N_CTX"], coop["CSC"], coop["CLASS_TOKEN_POSITION"]) == (16, False, "end")
        if run.method.endswith("(omega 10 or 50)"):
            assert nemesis["OMEGA"] == (50 if run.dataset in ("oxford_pets", "food101") else 10)
        epochs = 50 if run.dataset == "imagenet" else {1: 50, 2: 100, 4: 100}.get(run.shots, 200)
        assert run.config["OPTIM"]["MAX_EPOCH"] == epochs
    omegas = {run.config["TRAINER"]["NEMESIS"]["OMEGA"] for run in runs_of("table_2").values()}
    assert 0.1 in omegas
    for run in runs_of("table_a4").values():
        assert run.config["TRAINER"]["COCOOP"]["CTX_INIT"] == "a photo of a"
        assert run.config["OPTIM"]["MAX_EPOCH"] == 10


def test_a_script_reports_what_there_is_and_fails_when_a_run_failed(
    tmp_path: Path, data_root: Path
) -> None:
    output = tmp_path / "my runs"
    row = "emoji_activities/CoOp+Nemesis"
    (output / row).mkdir(parents=True)
    (output / row / "shots_16").write_text("in the way of these runs")
    tiny = ["--set", "OPTIM.MAX_EPOCH", "1", "--set", "INPUT.TRAIN_VIEWS", "1", "--workers", "0"]
    first = [*tiny, "--only", f"{row}/shots_1/seed1-BETA_0.0"]
    settings = {"BENCH": "mini", "DATA": str(data_root)}
    done = script("table_4", output, *first, "--only", f"{row}/shots_16/seed1-BETA_0.0", **settings)
    assert done.returncode == 1, done.stderr
    assert "1 runs done, 0 were done already, 1 failed" in done.stdout
    text = (output / "tables/table_4/report.md").read_text()
    assert "- 1 of the 84 runs of " in text
    assert "CoOp+Nemesis (beta 0.3)" in text and "0 of 3 seeds" in text and "1 of 3 seeds" in text
    assert "The paper's Table 4" in text

    done = script("table_4", output, *first, **settings)
    assert done.returncode == 0, done.stderr
    assert "All 1 runs are done" in done.stdout and "CoOp+Nemesis (beta 0.3)" in done.stdout


def test_run_all_goes_on_after_a_failure_and_names_it(tmp_path: Path) -> None:
    """Table 1 has no such run; a dry run measures no costs."""
    output = tmp_path / "runs"
    words = ("--dry-run", "--only", "emoji_food")
    done = script("run_all", output, *words, BENCH="mini", TABLES="table_1 table_a8 table_4")
    assert done.returncode == 1
    assert "42 runs: 0 done" in done.stdout
    assert done.stderr.endswith("failed: table_1\n")
    assert not output.exists()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("table_4", {"BENCH": "tiny"}, 'error: BENCH is "tiny"; accepted: paper, mini\n'),
        ("run_all", {"BENCH": "tiny"}, 'error: BENCH is "tiny"; accepted: paper, mini\n'),
        ("table_a8", {"BENCH": "tiny"}, 'error: BENCH is "tiny"; accepted: paper, mini\n'),
        ("run_all", {"TABLES": "table_5"}, 'error: TABLES has "table_5"; accepted: table_1 '),
    ],
)
def test_a_mistake_is_one_sentence(
    name: str, settings: dict[str, str], message: str, tmp_path: Path
) -> None:
    done = script(name, tmp_path / "runs", **settings)
    assert done.returncode == 2
    assert done.stderr.startswith(message) and done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_table_of_costs_has_the_papers_numbers(tmp_path: Path) -> None:
    few = ("--classes", "10", "--repetitions", "1", "--threads", "1")
    done = script("table_a9", tmp_path / "runs", *few, BENCH="mini")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "runs/tables/table_a9/table_a9.md").read_text()
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if "|" in line
    ]
    assert rows[0] == ["classes", "implementation", "N=1", "N=2", "N=4", "N=8", "N=16", "CoOp, s"]
    assert [row[:2] for row in rows[2:]] == [
        ["10", "reference, mini"],
        ["10", "this repository, mini"],
        ["10", "paper, EuroSAT"],
    ]
    assert rows[-1][2:] == ["1.2", "1.2", "1.2", "1.4", "1.8", "-"]
    assert all(float(cell) > 0 for row in rows[2:4] for cell in row[2:])
