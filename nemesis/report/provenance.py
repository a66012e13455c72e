"""Tables of the runs behind a report: folders, settings, commands and versions."""

import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping
from os.path import relpath
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from dassl.engine import CONFIG

from .results import Run, Runs, counted, trained, trained_on
from .settings import TRAITS, flat, settings_of, show
from .table import Cell, Entry, Table, number

RECORDED = (
    *("seed", "accuracy", "macro_f1", "ece", "train_seconds", "parameters", "num_test", "epochs"),
    *("device", "backbone", "weights_sha256"),
)
SHOWN_TRAITS = ("backbone", "weights", "train_views", "size", "split")


def runs_table(runs: Runs, output: Path) -> Table:
    """Tabulate every run, with a link to its folder relative to the report's."""
    records = [_record(label, run, output) for label, run in runs]
    words = ("method", "dataset", "tested on", "shots", "seed")
    header = [*words, "accuracy", "training, s", "folder"]
    caption = f"{counted(len(runs), 'finished and tested run')}; folders are links."
    return Table("runs", "Runs", header, list(map(_row, records)), caption, records=records)


def _record(label: str, run: Run, output: Path) -> dict[str, Any]:
    dataset, shots = trained_on(run)
    return {
        "method": label,
        "dataset": dataset,
        "tested_on": _tested(run),
        "shots": shots,
        **{name: run.get(name) for name in RECORDED},
        "train_views": TRAITS["train_views"](run),
        "folder": relpath(run["folder"], output),
    }


def _row(record: Mapping[str, Any]) -> list[Entry]:
    folder = record["folder"]
    return [
        *(record[name] for name in ("method", "dataset", "tested_on", "shots", "seed")),
        number(record["accuracy"]),
        number(record["train_seconds"], 1),
        Cell(folder, link=quote(Path(folder).as_posix()) + "/"),
    ]


def _tested(run: Run) -> str:
    """Describe a run's test set in a few words."""
    classes = run["subsample_classes"]
    words = [run["dataset"], *run["target_domains"]]
    if classes != "all":
        words.append(f"{classes} classes")
    if run["split"] != "test":
        words.append(run["split"])
    return ", ".join(words)


def settings_table(runs: Runs) -> Table:
    """Tabulate the settings that differ between rows or within one."""
    values: defaultdict[str, defaultdict[str, dict[str, None]]]
    values = defaultdict(lambda: defaultdict(dict))
    for label, run in runs:
        for key, value in settings_of(run).items():
            values[key][label][show(value)] = None
        for trait in SHOWN_TRAITS:
            if (value := TRAITS[trait](run)) is not None:
                values[trait][label][show(value)] = None
    labels = list(dict.fromkeys(label for label, _ in runs))
    keys = [key for key, found in values.items() if len({tuple(v) for v in found.values()}) > 1]
    keys += [key for key, found in values.items() if any(len(v) > 1 for v in found.values())]
    keys = list(dict.fromkeys([*keys, *(trait for trait in SHOWN_TRAITS if trait in values)]))
    rows = [[label, *(", ".join(values[key][label]) or None for key in keys)] for label in labels]
    header = ["method", *(key.removeprefix("TRAINER.") for key in keys)]
    caption = (
        "Settings that differ between rows, and each row's backbone and data. Several values in "
        "one cell belong to different datasets or shots."
    )
    return Table("settings", "Settings", header, rows, caption)


def common_settings(runs: Runs) -> str:
    """Return the settings shared by all runs, as YAML with dotted keys."""
    flats = [flat(trained(run)["config"]) for _, run in runs]
    shared = {
        key: value
        for key, value in flats[0].items()
        if all(key in other and other[key] == value for other in flats)
        and not key.startswith(("OUTPUT_DIR", "RESUME", "SEED", "VERSION"))
    }
    return yaml.safe_dump(shared, sort_keys=True, allow_unicode=True, width=100)


def command_of(run: Run, output: str) -> str:
    """Return the command that repeats a run in a new folder.

    Args:
        run: a run with its config.yaml in its folder.
        output: the new folder.
    """
    words = ["python", "train.py", "--config-file", str(run["folder"] / CONFIG)]
    words += ["--output-dir", output]
    if run.get("model_dir"):
        words += ["--eval-only", "--model-dir", str(run["model_dir"])]
        if run.get("ignored_mismatch"):
            words.append("--ignore-mismatch")
    return shlex.join(words)


def example_commands(runs: Runs) -> list[str]:
    """Return the command of one training and of one evaluation."""
    kinds: dict[bool, Run] = {}
    for _, run in runs:
        kinds.setdefault("model_dir" in run, run)
    return [command_of(run, "output/again") for _, run in sorted(kinds.items(), key=lambda k: k[0])]


def versions_table(runs: Runs) -> Table:
    """Tabulate package versions and devices, with the number of runs of each."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for _, run in runs:
        origin = run.get("provenance") or {}
        facts = {"device": run.get("device"), **run.get("versions", {})}
        facts |= {name: origin[name] for name in ("commit", "platform") if origin.get(name)}
        for name, version in facts.items():
            counts[name][str(version)] += 1
    rows: list[list[Entry]] = [
        [name, version, count]
        for name, found in counts.items()
        for version, count in sorted(found.items())
    ]
    caption = "Packages, code and devices of the runs."
    return Table("versions", "Versions", ["name", "version", "runs"], rows, caption)
