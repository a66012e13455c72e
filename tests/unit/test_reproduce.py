"""`nemesis reproduce`: the state of every table and figure, and the page over all of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from nemesis import reproduction
from nemesis.commands import reproduce
from nemesis.report.paper import paper_numbers
from nemesis.report.table import DASH
from nemesis.sweeps.command import Sweep, resolve_sweep
from safeio.errors import UserError
from tests.helpers import report_runs, sweeps_small
from tests.helpers.runs import ROOT, Capture

SCRIPT = (
    '#!/usr/bin/env bash\n# Table {}: a small\n# table; with arguments.\nsweep {} "$@" --report\n'
)


def finish(path: str, accuracies: list[float], **entries: Any) -> None:
    """Write the results of the first runs of a sweep file."""
    for run, accuracy in zip(resolve_sweep(path).runs, accuracies, strict=False):
        made = report_runs.a_run(accuracy, seed=run.config["SEED"], **entries)
        run.folder.mkdir(parents=True)
        made |= {"config": run.config, "train_seconds": 7200.0, "shots": run.shots}
        (run.folder / "results.json").write_text(json.dumps(made))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Two tables of one sweep on Caltech101, and two without a sweep."""
    path = sweeps_small.write(
        tmp_path, tmp_path / "data", datasets=["caltech101"], seeds=[1, 2, 3], config="rn50_ep50",
        paper=["a5"], profiles={"mini": {}},
    )  # fmt: skip
    (tmp_path / "scripts").mkdir()
    texts = {"table_1": SCRIPT.format(1, "name"), "table_2": SCRIPT.format(2, "name")}
    texts["table_a11"] = texts["table_a8"] = "#!/usr/bin/env bash\n# Table A8: costs.\n"
    for name, text in texts.items():
        (tmp_path / "scripts" / f"{name}.sh").write_text(text)
    monkeypatch.setattr(reproduction, "SCRIPTS", tmp_path / "scripts")
    resolve = resolve_sweep
    monkeypatch.setattr(reproduction, "resolve_sweep", lambda _, *rest: resolve(path, *rest))
    return path


def rows_of(found: reproduction.Reproduction) -> dict[str, list[str]]:
    table = reproduce.state_table(found, workers=2)
    return {str(row[0]): [str(cell) for cell in row[1:]] for row in table.cells}


def test_what_is_missing_done_and_left(small: str, tmp_path: Path) -> None:
    root = str(tmp_path / "data")
    rows = rows_of(reproduction.find_reproduction("paper", root=root))
    absent = ["missing: caltech101", "missing: RN50"]
    assert rows["table_1"] == ["a small table", *absent, "0", "3", "unknown", DASH]
    assert rows["table_a8"] == ["costs", DASH, DASH, "0", "1", DASH, DASH]
    assert rows["table_a11"][1] == "missing: mrpc"
    assert "table_a11" not in rows_of(reproduction.find_reproduction("mini", root=root))
    number = next(
        one.value
        for one in paper_numbers()
        if (one.table, one.method, one.dataset, one.shots) == ("a5", "CoOp", "Caltech101", 1)
    )
    finish(small, [number + 1, number - 0.5], dataset="Caltech101", backbone="RN50")
    (tmp_path / "data" / "mrpc").mkdir(parents=True)
    (tmp_path / "data" / reproduction.MRPC).touch()
    made = tmp_path / "runs" / "tables" / "table_a8" / "table_a8.md"
    made.parent.mkdir(parents=True)
    made.touch()
    found = reproduction.find_reproduction("paper", root=root)
    rows = rows_of(found)
    assert rows["table_1"] == ["a small table", *absent, "2", "1", "2:00:00", "1 of 1"]
    assert rows["table_a8"][3:5] == ["1", "0"] and rows["table_a11"][1] == "present"
    assert len(found.all_runs()) == 3 and len(found.left()) == 1  # shared by two tables
    assert reproduce.advice(found, root) == [
        f"Missing data: python -m nemesis download caltech101 --root {root}",
        "Missing weights: RN50; the first run downloads them to ~/.cache/clip",
    ]


def test_a_far_number_disagrees_and_one_seed_is_not_compared(small: str) -> None:
    finish(small, [10.0], dataset="Caltech101", backbone="RN50")
    assert reproduction.agreement(resolve_sweep(small)) == (0, 0)
    for run in resolve_sweep(small).runs[:1]:
        (run.folder / "results.json").unlink()
        run.folder.rmdir()
    finish(small, [10.0, 11.0, 12.0], dataset="Caltech101", backbone="RN50")
    assert reproduction.agreement(resolve_sweep(small)) == (0, 1)


def test_the_page_links_the_reports_and_a_check_writes_nothing(
    small: str, tmp_path: Path, capsys: Capture
) -> None:
    words = ["--profile", "mini", "--root", str(tmp_path / "data")]
    assert reproduce.main([*words, "--check"]) == 0
    assert not (tmp_path / "runs").exists()
    assert "- runs done: 0 of 3 (each counted once)" in capsys.readouterr().out
    report = tmp_path / "runs" / "tables" / "table_1" / "report.html"
    report.parent.mkdir(parents=True)
    report.touch()
    assert reproduce.main(words) == 0
    page = (tmp_path / "runs" / "tables" / "report.html").read_text()
    assert '<a href="table_1/report.html">table_1</a>' in page and "a small table" in page
    assert "python -m nemesis download caltech101" in page and "not comparable" in page
    assert "| table_2" in (tmp_path / "runs" / "tables" / "reproduction.md").read_text()


def test_a_sweep_that_cannot_be_read_is_one_row(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(name: str, *rest: Any) -> Sweep:
        if name == "broken":
            raise UserError("broken.yaml has a fault")
        return resolve_sweep(small, *rest)

    monkeypatch.setattr(reproduction, "resolve_sweep", resolve)
    (tmp_path / "scripts" / "table_3.sh").write_text(SCRIPT.format(3, "broken"))
    rows = rows_of(reproduction.find_reproduction("mini"))
    fault = "not readable: broken.yaml has a fault"
    assert rows["table_3"] == [fault, DASH, DASH, "0", "0", DASH, DASH]
    assert rows["table_1"][4] == "3"


@pytest.mark.slow  # it reads all sweeps
def test_every_script_of_a_table_or_figure_is_listed() -> None:
    found = {one.name: one for one in reproduction.find_reproduction("mini").experiments}
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.sh")}
    listed = {name for name in scripts if name.startswith(("table", "figure"))}
    assert set(found) == listed - {"table_a11"}
    without = {name for name, one in found.items() if one.sweep is None}
    assert without == {"table_a8", "table_a9"} and not any(one.fault for one in found.values())
    assert all(one.title for one in found.values())
    assert not any(one.missing_data or one.missing_weights for one in found.values())
