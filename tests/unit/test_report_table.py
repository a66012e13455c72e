"""The one type for tables, in each of its formats."""

import csv
from pathlib import Path

from nemesis.report.table import DASH, STAR, Cell, Table, escape_latex, number

TABLE = Table(
    "name",
    "A & B",
    ["dataset", "method", "x_1"],
    [
        ["a|b", "<script>", Cell("1.0 ± 0.1", 1.0, "2 of 3 seeds")],
        ["a|b", "=1+1", None],
        ["average", "x", Cell("2.0", 2.0, bold=True, mark=STAR)],
    ],
    "50% of <these> | those",
    grouped=True,
)


def test_latex_is_booktabs_and_escaped() -> None:
    assert TABLE.latex().splitlines()[1:] == [
        r"\begin{table}",
        r"\centering",
        r"\caption{A \& B. 50\% of \textless{}these\textgreater{} \textbar{} those}",
        r"\label{tab:name}",
        r"\begin{tabular}{llr}",
        r"\toprule",
        r"dataset & method & x\_1 \\",
        r"\midrule",
        r"a\textbar{}b & \textless{}script\textgreater{} & 1.0 $\pm$ 0.1 \emph{(2 of 3 seeds)} \\",
        r"a\textbar{}b & =1+1 & -- \\",
        r"\midrule",
        r"average & x & \textbf{2.0}\textsuperscript{*} \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    escaped = r"a\_b\{c\}\textasciicircum{}\textasciitilde{}\textbackslash{}"
    assert escape_latex("a_b{c}^~\\") == escaped


def test_markdown_is_escaped() -> None:
    lines = TABLE.markdown().splitlines()
    assert lines[2] == "50% of &lt;these> | those"
    assert lines[5].endswith("-:|")  # numbers are aligned right
    assert r"| a\|b" in lines[6] and "&lt;script>" in lines[6]
    assert f"**2.0**{STAR}" in lines[8]


def test_html_is_escaped_and_grouped() -> None:
    html = TABLE.html()
    assert "&lt;script&gt;" in html and "<script>" not in html
    assert html.count('class="group"') == 2
    assert f'<td data-v="2.0" class="best">2.0<sup>{STAR}</sup></td>' in html
    assert "<small>2 of 3 seeds</small>" in html


def test_csv_has_unrounded_values_and_no_formulas() -> None:
    assert list(csv.reader(TABLE.csv().splitlines())) == [
        ["dataset", "method", "x_1"],
        ["a|b", "<script>", "1.0"],
        ["a|b", "'=1+1", DASH],
        ["average", "x", "2.0"],
    ]
    records = [{"method": "CoOp", "accuracies": [1.0, 2 / 3]}]
    assert Table("a", "A", ["x"], [], records=records).csv().splitlines() == [
        "method,accuracies",
        "CoOp,1.0 0.666667",
    ]


def test_numbers_are_rounded_for_people() -> None:
    assert [number(x, sign=True).text for x in (1.234, -1.0, -0.001, None)] == [
        *("+1.23", "\N{MINUS SIGN}1.00", "0.00", DASH)
    ]


def test_it_is_written_in_three_formats(tmp_path: Path) -> None:
    assert TABLE.write(tmp_path) == tmp_path / "name.md"
    assert {path.name for path in tmp_path.iterdir()} == {"name.md", "name.csv", "name.tex"}
    assert (tmp_path / "name.tex").read_text() == TABLE.latex()
