"""A report of one sweep: its rows in its order, and what is missing."""

from pathlib import Path
from typing import Any

import pytest

from nemesis.commands import report, sweep
from tests.helpers.report_runs import refuse, table
from tests.helpers.sweeps_small import write

METHODS: dict[str, Any] = {
    "Penalised": {
        "trainer": "CoOpNemesis",
        "grid": {"TRAINER.NEMESIS.OMEGA": [0.5, 0.05], "TRAINER.NEMESIS.N": [1]},
    },
    "CoOp": None,
}


def test_rows_as_in_the_file_and_what_is_missing(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The number of validation images depends on the shots; base classes are another protocol.
    test = {"TEST.SPLIT": "test", "DATASET.SUBSAMPLE_CLASSES": "all"}
    path = write(tmp_path, data_root, test, seeds=[1, 2], shots=[1, 2], methods=METHODS)
    message = refuse(capsys, "--sweep", path)
    assert "0 of 12 runs done of" in message and "do them first: python -m nemesis sweep" in message
    other = write(tmp_path, data_root, test, seeds=[3])  # in the same folder
    assert sweep.main([other, "--workers", "0"]) == 0
    done = ["emoji_activities/CoOp/", "emoji_activities/Penalised/shots_1/seed1-OMEGA_0.5"]
    assert sweep.main([path, "--workers", "0", "--only", done[0], "--only", done[1]]) == 0

    assert report.main(["--sweep", path, "--over-shots"]) == 0
    output = tmp_path / "runs" / "tables" / Path(path).stem
    assert "5 of 12 runs done" in (output / "report.md").read_text()
    header, *rows = table(output / "few_shot.md")
    assert header == ["dataset", "method", "1 shot", "2 shots", "mean over shots", "seeds"]
    assert [row[1] for row in rows] == [
        "Penalised (omega 0.5, N 1)",
        "Penalised (omega 0.05, N 1)",
        "CoOp",
    ]
    assert rows[0][2].endswith("(1 of 2 seeds)") and rows[0][3].endswith("(0 of 2 seeds)")
    assert rows[0][4] == "\N{EN DASH}"
    assert rows[1][2:4] == 2 * ["\N{EN DASH} (0 of 2 seeds)"]
    one, two, mean = (float(cell.split(" ")[0]) for cell in rows[2][2:5])
    assert mean == pytest.approx((one + two) / 2, abs=0.11)
    assert rows[2][5] == "2"  # the third seed is not of this sweep


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name folders with runs, or --sweep"),
        (["runs", "--set", "OPTIM.LR", "1"], "--set is for --sweep"),
        (["runs", "--profile", "mini"], "--profile is for --sweep"),
        (["a", "b", "--sweep", "x.yaml"], "one folder of all its runs, not 2"),
        (["--sweep", "x.yaml", "--by", "size"], "--by names rows, but --sweep has names"),
        (["--sweep", "none.yaml"], "none.yaml does not exist"),
    ],
)
def test_a_mistake_is_one_sentence(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refuse(capsys, *words)
