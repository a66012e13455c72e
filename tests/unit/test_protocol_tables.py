"""The protocols' tables from hand-made results: means, averages, and what is missing."""

import json
from pathlib import Path
from typing import Any

import pytest

from nemesis.report import protocols
from nemesis.report.protocols import base_to_new, few_shot, transfer
from nemesis.report.scores import Table, harmonic_mean, label_runs
from safeio.errors import UserError


def a_run(
    accuracy: float,
    dataset: str = "Caltech101",
    seed: int = 1,
    trainer: str = "CoOp",
    shots: int = 16,
    classes: str = "all",
    domains: tuple[str, ...] = (),
    beta: float = 1.0,
) -> dict[str, Any]:
    """What results.json says of a training."""
    return {
        "trainer": trainer,
        "dataset": dataset,
        "shots": shots,
        "seed": seed,
        "subsample_classes": classes,
        "target_domains": list(domains),
        "split": "test",
        "accuracy": accuracy,
        "train_views": 0,
        "status": "finished",
        "config": {"OUTPUT_DIR": "runs/1", "TRAINER": {"NEMESIS": {"BETA": beta}}},
    }


def a_test(
    source: dict[str, Any], accuracy: float, dataset: str = "", **where: Any
) -> dict[str, Any]:
    """What results.json says of an evaluation of the source's prompt."""
    run = a_run(accuracy, dataset or source["dataset"], source["seed"], shots=-1, **where)
    return {**run, "trainer": source["trainer"], "model_dir": "runs/1", "source_run": source}


def named(runs: list[dict[str, Any]], name: str = "CoOp") -> list[tuple[str, dict[str, Any]]]:
    return [(name, run) for run in runs]


def cells(table: Table) -> list[list[str]]:
    rows = [line for line in table.markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows if "---" not in row]


def test_few_shot() -> None:
    runs = [
        *(a_run(60.0 + seed, seed=seed) for seed in (1, 2, 3)),
        *(a_run(70.0 + seed, seed=seed, shots=1) for seed in (1, 2)),
        *(a_run(80.0, "EuroSAT", seed=seed) for seed in (1, 2, 3)),
    ]
    zero_shot = [("ZeroshotCLIP", a_run(40.0, shots=0, trainer="ZeroshotCLIP"))]
    table = few_shot([*named(runs), *zero_shot])
    assert cells(table) == [
        ["dataset", "method", "1 shot", "16 shots"],
        ["Caltech101", "ZeroshotCLIP", "40.0", "40.0"],
        ["Caltech101", "CoOp", "71.5 ± 0.7 (2 of 3 seeds)", "62.0 ± 1.0"],
        ["EuroSAT", "CoOp", "-", "80.0 ± 0.0"],
        ["average", "ZeroshotCLIP", "40.0 (1 of 2 datasets)", "40.0 (1 of 2 datasets)"],
        ["average", "CoOp", "71.5 (1 of 2 datasets)", "71.0"],
    ]
    assert "Test accuracy in %, mean ± standard deviation over 3 seeds (1, 2, 3)." in table.markdown
    (record,) = (r for r in table.records if (r["dataset"], r["shots"]) == ("Caltech101", 1))
    assert record["mean"] == 71.5
    assert record["accuracies"] == [71.0, 72.0]
    assert record["lacks"] == "2 of 3 seeds"


def test_a_script_knows_how_many_seeds_there_should_be() -> None:
    assert "(1 of 5 seeds)" in few_shot(named([a_run(60.0)]), seeds=5).markdown
    assert "of" not in cells(few_shot(named([a_run(60.0)])))[1][2]


@pytest.mark.parametrize(
    ("base", "new", "h"),
    [(80.8, 72.6, 76.5), (80.4, 73.2, 76.6), (80.3, 73.9, 77.0), (94.7, 97.7, 96.2), (5.0, 0.0, 0)],
)
def test_harmonic_mean_is_the_papers(base: float, new: float, h: float) -> None:
    """Nemesis, Table A4."""
    assert harmonic_mean(base, new) == pytest.approx(h, abs=0.05)


def test_h_is_taken_of_the_averages() -> None:
    runs = []
    for dataset, seed, base, new in (
        ("Caltech101", 1, 80.0, 40.0),
        ("Caltech101", 2, 60.0, 60.0),
        ("EuroSAT", 1, 90.0, 80.0),
        ("EuroSAT", 2, 90.0, 90.0),
    ):
        source = a_run(base, dataset, seed, classes="base")
        runs += [source, a_test(source, new, classes="new")]
    assert cells(base_to_new(named(runs))) == [
        ["trained on", "method", "shots", "base", "new", "H"],
        # 2 * 70 * 50 / 120, not the mean of 53.3 and 60
        ["Caltech101", "CoOp", "16", "70.0 ± 14.1", "50.0 ± 14.1", "58.3"],
        ["EuroSAT", "CoOp", "16", "90.0 ± 0.0", "85.0 ± 7.1", "87.4"],
        # 2 * 80 * 67.5 / 147.5, not the mean of 58.3 and 87.4
        ["average", "CoOp", "16", "80.0", "67.5", "73.2"],
    ]


def test_base_to_new_shows_what_is_missing() -> None:
    first, second = (a_run(80.0, seed=seed, classes="base") for seed in (1, 2))
    other = a_run(90.0, "EuroSAT", classes="base")
    runs = [first, second, a_test(first, 40.0, classes="new"), other]
    assert cells(base_to_new(named(runs)))[1:] == [
        ["Caltech101", "CoOp", "16", "80.0 ± 0.0", "40.0 (1 of 2 seeds)", "53.3 (1 of 2 seeds)"],
        ["EuroSAT", "CoOp", "16", "90.0 (1 of 2 seeds)", "-", "-"],
        ["average", "CoOp", "16", *(f"{x} (1 of 2 datasets)" for x in ("80.0", "40.0", "53.3"))],
    ]


def test_transfer() -> None:
    runs = []
    for seed, gain in ((1, 0.0), (2, 2.0)):
        source = a_run(70.0 + gain, "ImageNet", seed)
        runs += [source, a_test(source, 60.0 + gain, "ImageNetV2")]
        runs += [a_test(source, 20.0, "ImageNetA")] * (seed == 1)
        runs += [a_test(source, 33.0 + gain, domains=("sketch",))]
    (table,) = transfer(named(runs))
    assert cells(table) == [
        [
            "trained on",
            "method",
            "shots",
            "ImageNet",
            "ImageNetV2",
            "ImageNetA",
            "sketch",
            "average",
        ],
        [
            *("ImageNet", "CoOp", "16", "71.0 ± 1.4", "61.0 ± 1.4"),
            *("20.0 (1 of 2 seeds)", "34.0 ± 1.4", "38.3 (1 of 2 seeds)"),
        ],
    ]


def test_transfer_has_a_table_for_each_source() -> None:
    sources = a_run(70.0, "Caltech101"), a_run(80.0, "EuroSAT")
    tests = [a_test(source, 50.0, "UCF101") for source in sources]
    titles = [cells(table)[0][3] for table in transfer(named([*sources, *tests]))]
    assert titles == ["Caltech101", "EuroSAT"]


def test_runs_of_other_protocols_do_not_count() -> None:
    half = a_run(80.0, classes="base")
    with pytest.raises(UserError, match="no finished and tested run"):
        few_shot(named([half, a_test(half, 70.0, classes="new")]))
    with pytest.raises(UserError, match="no finished and tested run"):
        base_to_new(named([a_run(60.0)]))


def write(folder: Path, run: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(run))


def test_settings_are_named_by_method_and_where_needed_by_folder(tmp_path: Path) -> None:
    write(tmp_path / "small" / "1", a_run(1.0, trainer="CoOpNemesis"))
    write(tmp_path / "large" / "1", a_run(2.0, trainer="CoOpNemesis"))
    source = a_run(3.0, trainer="CoOpNemesis", beta=0.0)
    write(tmp_path / "large" / "2", a_test(source, 3.0))
    runs = label_runs([tmp_path / "small", tmp_path / "large"])
    assert [label for label, _ in runs] == ["CoOp+PUN (small)", "CoOp+PUN (large)", "CoOp+PAN"]


def test_two_runs_for_one_place_are_refused(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write(tmp_path / name, a_run(60.0))
    with pytest.raises(UserError, match="one method with the same data and seed"):
        few_shot(label_runs([tmp_path]))
    with pytest.raises(UserError, match="one method with the same data and seed"):
        transfer(label_runs([tmp_path]))


def test_the_command_writes_what_it_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a" / "1", a_run(60.0))
    write(tmp_path / "b" / "1", a_run(62.0, trainer="PLOT"))
    assert protocols.main(["few-shot", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    table = (tmp_path / "table.md").read_text()
    assert table in capsys.readouterr().out
    records = json.loads((tmp_path / "table.json").read_text())
    assert [(record["method"], record["mean"]) for record in records] == [
        ("CoOp", 60),
        ("PLOT", 62),
    ]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["few-shot", "{tmp}/nowhere"], "nowhere is not a folder"),
        (["transfer", "{tmp}"], "no finished and tested run"),
        (["base-to-old", "{tmp}"], "base-to-new"),
    ],
)
def test_mistakes(
    arguments: list[str], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert protocols.main([word.format(tmp=tmp_path) for word in arguments]) == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert part in message
