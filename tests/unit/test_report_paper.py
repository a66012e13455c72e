"""Runs are compared with the paper only if data, backbone and settings are the paper's."""

from typing import Any

import pytest

from clip.download import MODELS
from nemesis.report.accuracy import make_tables
from nemesis.report.paper import FILES, PAPER, paper_numbers
from nemesis.report.paper_comparison import (
    Match,
    find_matches,
    paper_table,
    printed_tables,
    wanted_tables,
    why_no_matches,
)
from nemesis.report.results import ELEVEN
from nemesis.report.settings import name_rows
from safeio.errors import UserError
from tests.helpers.report_runs import a_run, a_test, like_the_paper, texts


def matches(*runs: dict[str, Any]) -> list[Match]:
    named = name_rows(runs).runs
    return find_matches(named, make_tables(named).scores)


def found(*runs: dict[str, Any]) -> list[tuple[str, str, float]]:
    return [(m.paper.table, m.paper.dataset, m.paper.value) for m in matches(*runs)]


def pets(accuracy: float = 86.0, **entries: Any) -> dict[str, Any]:
    return a_run(accuracy, dataset="OxfordPets", **{"backbone": "RN50", **entries})


def test_every_table_says_where_it_is_from() -> None:
    readme = (PAPER / "README.md").read_text(encoding="utf-8")
    assert "ICLR 2024" in readme
    for files in FILES.values():
        for file in files:
            assert (PAPER / file).is_file()


def test_numbers_of_the_tables() -> None:
    numbers = paper_numbers()
    counts = {key: sum(number.table == key for number in numbers) for key in FILES}
    assert counts == {
        **{"1": 5 * 5, "2": 12 * 5, "3": 11 * 5, "4": 2 * 7},
        **{"a4": 8 * 3, "a5": 77 * 5, "a6": 18, "a7": 18},
    }


def test_a_run_of_coop() -> None:
    """Table A5: CoOp on OxfordPets with one shot has 85.80."""
    (match,) = matches(pets())
    assert (match.paper.table, match.paper.value) == ("a5", 85.80)
    table = paper_table(name_rows([pets()]).runs, [match])
    assert texts(table)[1] == ["OxfordPets", "CoOp", "1 shot", "86.0", "85.80", "+0.20", "Table A5"]
    assert "1 seed instead of 5" in table.caption
    assert "standard deviation" not in table.caption
    assert match.within_one_std is None


@pytest.mark.parametrize(("accuracies", "within"), [((85.0, 86.0), True), ((86.0, 86.1), False)])
def test_numbers_within_one_standard_deviation(accuracies: tuple[float, ...], within: bool) -> None:
    (match,) = matches(*(pets(value, seed=seed) for seed, value in enumerate(accuracies)))
    assert match.within_one_std is within


def test_weights_are_known_by_their_hash() -> None:
    digest = MODELS["RN50"].split("/")[-2]
    assert len(matches(pets(backbone="/models/RN50.pt", weights_sha256=digest))) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"backbone": "ViT-B/16"},
        {"shots": 3},
        {"subsample_classes": "base"},
        {"trainer": "CoCoOp"},
    ],
)
def test_other_runs_are_left_alone(other: dict[str, Any]) -> None:
    assert matches(pets(**other)) == []


def test_the_bundled_benchmark_has_no_numbers_in_the_paper() -> None:
    runs = name_rows([a_run(60.0, backbone="RN50")]).runs
    assert find_matches(runs, make_tables(runs).scores) == []
    assert "for other data (its eleven public datasets, not EmojiFood)" in why_no_matches(runs)
    assert "for RN50 and ViT-B/16" in why_no_matches(name_rows([pets(backbone="RN101")]).runs)


def nemesis(omega: float, **settings: Any) -> dict[str, Any]:
    own = {"OMEGA": omega, **settings}
    return pets(trainer="CoOpNemesis", nemesis=own)


def test_omega_is_that_of_the_number() -> None:
    assert found(nemesis(50.0)) == [("a5", "OxfordPets", 85.02)]
    assert found(nemesis(50.0, BETA=0.0)) == [("a5", "OxfordPets", 85.90)]
    assert found(nemesis(7.0)) == []
    assert found(nemesis(50.0, NORM="one")) == []


def test_rows_of_unlike_omega_have_no_number() -> None:
    """One row that holds two settings is none of the paper's."""
    runs = [("CoOp+PUN", nemesis(50.0)), ("CoOp+PUN", {**nemesis(1.0), "seed": 2})]
    assert find_matches(runs, make_tables(runs).scores) == []


def test_tau_is_compared_by_the_mean_over_shots() -> None:
    runs = [
        a_run(80.0 + shots, "CoOpNemesis", "EuroSAT", shots, 1, "RN50", {"BETA": 0.0, "TAU": 0.9})
        for shots in (1, 2, 4, 8, 16)
    ]
    (match,) = matches(*runs)
    assert (match.paper.table, match.paper.value) == ("a6", 68.28)
    assert match.measured.mean == pytest.approx(86.2)
    assert matches(*runs[1:]) == []
    caption = paper_table(name_rows(runs).runs, [match]).caption
    assert "do not state their shots" in caption
    assert "instead of 5" not in caption  # a mean over shots does not tell its seeds


def test_domain_generalisation() -> None:
    source = a_run(62.0, dataset="ImageNet", shots=16, backbone="RN50")
    runs = [source, a_test(source, 33.0, "ImageNetSketch")]
    assert [
        (m.paper.table, m.paper.column, m.paper.value, m.measured.mean) for m in matches(*runs)
    ] == [
        ("1", "ImageNet", 62.70, 62.0),
        ("1", "ImageNetSketch", 32.64, 33.0),
        ("a5", "accuracy", 62.70, 62.0),
    ]


def test_base_to_new_average_is_over_the_papers_datasets() -> None:
    runs = []
    for dataset in ELEVEN:
        entries: dict[str, Any] = {"subsample_classes": "base", "backbone": "ViT-B/16"}
        base = a_run(80.0, "CoCoOp", dataset, 16, **entries)
        runs += [base, a_test(base, 72.0, subsample_classes="new")]
    assert [(m.paper.column, m.paper.value) for m in matches(*runs)] == [
        *(("base", 80.8), ("new", 72.6), ("H", 76.5))
    ]
    assert matches(*runs[2:]) == []


def test_runs_like_the_papers_differ_by_nothing() -> None:
    """Eleven datasets, seven settings each, five shots: 385 numbers of Table A5, and PLOT none."""
    runs = like_the_paper()
    beside = [m for m in matches(*runs) if m.paper.table == "a5"]
    assert len(beside) == 385
    assert all(m.measured.mean == pytest.approx(m.paper.value) for m in beside)
    assert all(len(m.measured.accuracies) == 5 for m in beside)


def test_what_is_not_as_in_the_paper_is_said() -> None:
    run = pets(train_views=4)
    run["config"]["TRAINER"]["COOP"] |= {"CSC": True, "CTX_INIT": "a photo of a"}
    caption = paper_table(name_rows([run]).runs, matches(run)).caption
    for part in ("4 cached augmentations", "CSC True instead of False", "CTX_INIT 'a photo of a'"):
        assert part in caption


def test_tables_are_shown_apart() -> None:
    (table,) = printed_tables(wanted_tables(["Table A6"]))
    assert table.tag == "the paper's numbers"
    assert texts(table)[1][:2] == ["0.1", "89.29"]
    assert "do not apply to runs on other data" in table.caption
    assert len(printed_tables(wanted_tables(["a4", "A4"]))) == 2


def test_an_unknown_table_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r'"a50" is not an available table .* did you mean "a5"'):
        wanted_tables(["a50"])
