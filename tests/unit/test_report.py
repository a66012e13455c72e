"""nemesis report from hand-made runs: numbers and names of rows, files for people and programs."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from nemesis.report.listing import (
    DASH,
    Item,
    Listing,
    groups_of,
    latex,
    number,
    to_latex,
    to_markdown,
)
from nemesis.report.settings import name_rows
from tests.helpers.report_runs import a_run, a_test, pun, report_of, table, write
from tests.helpers.runs import command, finish


def records(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


RUNS = [
    a_run(40.0, "ZeroshotCLIP", shots=0),
    *(a_run(60.0 + seed, seed=seed) for seed in (1, 2, 3)),
    *(a_run(70.0 + seed, seed=seed, shots=16) for seed in (1, 2)),
    *(a_run(80.0 - seed, "CoOp", "EmojiAnimals", seed=seed) for seed in (1, 2, 3)),
    *(pun(61.0 + seed, seed=seed) for seed in (1, 2, 3)),
]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return write(tmp_path / "runs", *RUNS)


def test_accuracy_table(runs: Path) -> None:
    """Mean and sample deviation by hand; what is missing is said."""
    assert table(report_of(runs) / "few_shot.md") == [
        ["dataset", "method", "1 shot", "16 shots", "seeds"],
        ["EmojiAnimals", "CoOp", "78.0 ± 1.0", DASH, "3"],
        ["EmojiFood", "ZeroshotCLIP", "40.0", "40.0", "1"],
        ["EmojiFood", "CoOp", "62.0 ± 1.0", "71.5 ± 0.7 (2 of 3 seeds)", f"2{DASH}3"],
        ["EmojiFood", "CoOp+PUN", "63.0 ± 1.0", DASH, "3"],
        ["average", "ZeroshotCLIP", "40.0 (1 of 2 datasets)", "40.0 (1 of 2 datasets)", DASH],
        # Each seed's average is 70, whatever the seed.
        ["average", "CoOp", "70.0 ± 0.0", "71.5 (1 of 2 datasets)", "3"],
        ["average", "CoOp+PUN", "63.0 (1 of 2 datasets)", DASH, DASH],
    ]


def test_csv_holds_every_number(runs: Path) -> None:
    rows = records(report_of(runs) / "few_shot.csv")
    (cell,) = [row for row in rows if (row["dataset"], row["shots"]) == ("EmojiFood", "16")]
    assert cell["method"] == "CoOp"
    assert (cell["mean"], cell["std"], cell["seeds"]) == ("71.5", "0.707107", "2")
    assert (cell["accuracies"], cell["lacks"]) == ("71.0 72.0", "2 of 3 seeds")


def test_how_many_seeds_there_should_be(runs: Path) -> None:
    cells = table(report_of(runs, "--seeds", "5") / "few_shot.md")
    assert cells[1][2] == "78.0 ± 1.0 (3 of 5 seeds)"


def test_figure_and_its_points(runs: Path) -> None:
    output = report_of(runs)
    assert (output / "accuracy_over_shots.png").read_bytes().startswith(b"\x89PNG")
    assert (output / "accuracy_over_shots.pdf").read_bytes().startswith(b"%PDF")
    points = records(output / "accuracy_over_shots.csv")
    average = [row for row in points if row["dataset"] == "average"]
    # Averages over fewer datasets than there are would jump: they are in the table alone.
    assert [(row["method"], row["shots"], row["mean"]) for row in average] == [
        ("CoOp", "1", "70.0000")
    ]


def test_the_same_runs_make_the_same_files(runs: Path) -> None:
    first = {path.name: path.read_bytes() for path in report_of(runs).iterdir()}
    second = {path.name: path.read_bytes() for path in report_of(runs).iterdir()}
    assert first == second


def test_base_to_new_and_transfer(tmp_path: Path) -> None:
    made = []
    for seed in (1, 2):
        base = a_run(80.0, seed=seed, shots=16, subsample_classes="base")
        source = a_run(70.0 + seed, seed=seed, shots=16)
        made += [base, a_test(base, 40.0, subsample_classes="new"), source]
        made += [a_test(source, 50.0 + seed, "EmojiAnimals")]
    output = report_of(write(tmp_path / "runs", *made))
    assert table(output / "base_to_new.md")[1:] == [
        ["EmojiFood", "CoOp", "16", "80.0 ± 0.0", "40.0 ± 0.0", "53.3", "2"]
    ]
    assert table(output / "transfer.md") == [
        ["trained on", "method", "shots", "EmojiFood", "EmojiAnimals", "average", "seeds"],
        ["EmojiFood", "CoOp", "16", "71.5 ± 0.7", "51.5 ± 0.7", "51.5", "2"],
    ]
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "--eval-only --model-dir runs/1" in page


def labels(*runs: dict[str, Any], by: tuple[str, ...] = ()) -> list[str]:
    return [label for label, _ in name_rows(runs, by).runs]


def test_rows_are_named_by_what_differs() -> None:
    assert labels(
        a_run(1.0),
        pun(1.0, nemesis={"OMEGA": 1.0}),
        pun(1.0, nemesis={"OMEGA": 10.0}),
        pun(1.0, nemesis={"BETA": 0.0, "TAU": 0.1}),
        pun(1.0, nemesis={"BETA": 0.0, "TAU": 0.9}),
    ) == [
        "CoOp",
        "CoOp+PUN (omega 1)",
        "CoOp+PUN (omega 10)",
        "CoOp+PAN (tau 0.1)",
        "CoOp+PAN (tau 0.9)",
    ]


def test_what_differs_only_between_data_or_shots_names_no_row() -> None:
    """Such as the papers' epochs, or an omega of each dataset's own."""
    assert (
        labels(
            pun(1.0, shots=1),
            pun(1.0, shots=16),
            pun(1.0, dataset="EmojiAnimals", nemesis={"OMEGA": 50.0}),
        )
        == ["CoOp+PUN"] * 3
    )


def test_settings_that_go_with_others_stay_out_of_the_name() -> None:
    rows = name_rows(
        [
            pun(1.0, nemesis={"OMEGA": 1.0, "SCHEDULE": "logistic"}),
            pun(1.0, nemesis={"OMEGA": 50.0, "SCHEDULE": "constant"}),
        ]
    )
    assert [label for label, _ in rows.runs] == ["CoOp+PUN (omega 1)", "CoOp+PUN (omega 50)"]
    assert rows.implied == {"CoOp+PUN": ["TRAINER.NEMESIS.SCHEDULE"]}


def test_an_evaluation_is_named_by_the_run_it_tests() -> None:
    first, second = (pun(1.0, nemesis={"OMEGA": omega}) for omega in (1.0, 2.0))
    assert labels(first, second, a_test(second, 1.0, "EmojiAnimals"))[-1] == "CoOp+PUN (omega 2)"


def test_rows_can_be_named_by_traits() -> None:
    both = [a_run(1.0), a_run(2.0, backbone="RN50")]
    assert labels(*both, by=("backbone",)) == ["CoOp (backbone mini)", "CoOp (backbone RN50)"]


def test_real_runs(tmp_path: Path, data_root: Path) -> None:
    """What train.py leaves behind is what the report reads."""
    short = ("OPTIM.MAX_EPOCH", "1", "DATASET.NUM_SHOTS", "1")
    finish(command(tmp_path / "runs" / "a", data_root, *short))
    finish(command(tmp_path / "runs" / "b", data_root, *short, trainer="CoOpNemesis"))
    found = json.loads((tmp_path / "runs" / "a" / "results.json").read_text())
    cells = table(report_of(tmp_path / "runs") / "few_shot.md")
    assert [row[:2] for row in cells[1:]] == [
        ["EmojiActivities", "CoOp"],
        ["EmojiActivities", "CoOp+PUN"],
    ]
    assert cells[1][2] == f"{found['accuracy']:.1f}"


LISTING = Listing(
    "name",
    "A & B",
    "50% of <these> | those",
    ["dataset", "method", "x_1"],
    [
        [Item("a|b"), Item("<script>"), Item("1.0 ± 0.1", 1.0, "2 of 3 seeds")],
        [Item("average"), Item("x"), Item("2.0", 2.0, best=True)],
    ],
)


def test_latex_is_booktabs_and_escaped() -> None:
    text = to_latex(LISTING)
    assert text.splitlines()[1:] == [
        r"\begin{table}",
        r"\centering",
        r"\caption{A \& B. 50\% of \textless{}these\textgreater{} \textbar{} those}",
        r"\label{tab:name}",
        r"\begin{tabular}{llr}",
        r"\toprule",
        r"dataset & method & x\_1 \\",
        r"\midrule",
        r"a\textbar{}b & \textless{}script\textgreater{} & 1.0 $\pm$ 0.1 \emph{(2 of 3 seeds)} \\",
        r"\midrule",
        r"average & x & \textbf{2.0} \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    assert latex("a_b{c}^~\\") == r"a\_b\{c\}\textasciicircum{}\textasciitilde{}\textbackslash{}"


def test_markdown_is_escaped() -> None:
    lines = to_markdown(LISTING).splitlines()
    assert lines[2] == "50% of &lt;these> | those"
    assert r"| a\|b" in lines[6]
    assert "&lt;script>" in lines[6]


def test_numbers_are_rounded_for_people() -> None:
    assert [number(x, sign=True).text for x in (1.234, -1.0, -0.001, None)] == [
        *("+1.23", "\N{MINUS SIGN}1.00", "0.00", DASH)
    ]


def test_rows_are_grouped_by_their_first_cell() -> None:
    assert [(name, len(rows)) for name, rows in groups_of(LISTING)] == [("a|b", 1), ("average", 1)]
