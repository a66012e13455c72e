"""Hand-made results.json files for the tests of the report."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from nemesis.commands import report
from nemesis.report.paper import SHOTS, paper_numbers
from nemesis.report.table import Table


def a_run(
    accuracy: float | None,
    trainer: str = "CoOp",
    dataset: str = "EmojiFood",
    shots: int = 1,
    seed: int = 1,
    backbone: str = "mini",
    nemesis: dict[str, Any] | None = None,
    **entries: Any,
) -> dict[str, Any]:
    """What results.json says of a training; settings of Nemesis by their short names."""
    settings = {"OMEGA": 1.0, "TAU": 0.5, "N": 1, "BETA": 1.0, "NORM": "two", "SELECT": True}
    config = {
        "SEED": seed,
        "OUTPUT_DIR": f"output/{seed}",
        "INPUT": {"SIZE": [64, 64], "TRAIN_VIEWS": entries.get("train_views", 0)},
        "OPTIM": {"LR": 0.002, "MAX_EPOCH": {1: 50, 2: 100, 4: 100}.get(shots, 200)},
        "TRAINER": {
            "NAME": trainer,
            "COOP": {"N_CTX": 16, "CSC": False, "CTX_INIT": ""},
            "NEMESIS": {**settings, **(nemesis or {})},
        },
    }
    return {
        "trainer": trainer,
        "dataset": dataset,
        "shots": shots,
        "seed": seed,
        "backbone": backbone,
        "subsample_classes": "all",
        "target_domains": [],
        "split": "test",
        "accuracy": accuracy,
        "num_test": 1000,
        "train_views": 0,
        "epochs": 50,
        "train_seconds": 1.5,
        "device": "cpu",
        "status": "finished",
        "weights_sha256": "0" * 64,
        "config": config,
        "versions": {"python": "3.11.7", "torch": "2.6.0"},
        **entries,
    }


def a_test(
    source: dict[str, Any], accuracy: float, dataset: str = "", **entries: Any
) -> dict[str, Any]:
    """What results.json says of an evaluation of the source's prompt."""
    run = a_run(accuracy, source["trainer"], dataset or source["dataset"], -1, source["seed"])
    run["backbone"] = source["backbone"]
    return {**run, "model_dir": "runs/1", "source_run": source, **entries}


def write(folder: Path, *runs: dict[str, Any]) -> Path:
    """A folder for each run, numbered from 0."""
    for run in runs:
        number = sum(1 for _ in folder.glob("*")) if folder.is_dir() else 0
        path = folder / str(number)
        path.mkdir(parents=True)
        (path / "results.json").write_text(json.dumps(run), encoding="utf-8")
    return folder


def like_the_paper(seeds: int = 5) -> list[dict[str, Any]]:
    """Runs of Table A5 whose accuracies are the paper's and some noise with mean zero."""
    draw = random.Random(0)
    runs = []
    for number in paper_numbers():
        if number.table != "a5":
            continue
        base, _, variant = number.method.partition("+")
        own = {key.rpartition(".")[2]: value for key, value in number.settings.items()}
        noise = [draw.gauss(0, 1) for _ in range(seeds)]
        for seed in range(1, seeds + 1):
            runs.append(
                a_run(
                    number.value + noise[seed - 1] - sum(noise) / seeds,
                    base + "Nemesis" * bool(variant),
                    number.dataset,
                    number.shots,
                    seed,
                    "RN50",
                    {**own, "BETA": 0.0 if variant == "PAN" else 1.0},
                )
            )
    assert {run["shots"] for run in runs} == set(SHOTS)
    return runs


def pun(accuracy: float, **entries: Any) -> dict[str, Any]:
    return a_run(accuracy, "CoOpNemesis", **entries)


def report_of(folder: Path, *extra: str) -> Path:
    """The report of the runs below a folder; its own folder."""
    output = folder.parent / "made"
    assert report.main([str(folder), "--output-dir", str(output), *extra]) == 0
    return output


def refuse(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one sentence that says why there is no report."""
    capsys.readouterr()
    assert report.main([str(word) for word in arguments]) == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith("error: ")
    return message


def texts(table: Table) -> list[list[str]]:
    """The header and the cells of a table."""
    return [list(table.columns), *([str(cell) for cell in row] for row in table.cells)]


def table(path: Path) -> list[list[str]]:
    """The cells of a Markdown table."""
    text = path.read_text(encoding="utf-8").replace("**", "")
    rows = [line for line in text.splitlines() if line[:2] in ("| ", "|")]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
