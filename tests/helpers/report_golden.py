"""Runs of every protocol with drawn accuracies, whose tables are stored in tests/data/report."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dassl.engine import identity
from nemesis.sweeps.command import resolve_sweep
from safeio.checksums import write_json_with_checksum
from tests.helpers.report_runs import a_run, a_test

GOLDEN = Path(__file__).parents[1] / "data" / "report"
NEMESIS = (
    {"BETA": 1.0, "OMEGA": 1.0},
    {"BETA": 1.0, "OMEGA": 50.0},
    {"BETA": 0.0, "OMEGA": 1.0},
)


def every_protocol() -> list[dict[str, Any]]:
    """Few-shot, base-to-new and transfer runs; one seed and one evaluation are missing."""
    draw = random.Random(15)
    runs = [*_few_shot(draw), *_base_to_new(draw), *_transfer(draw)]
    del runs[7], runs[-1]
    return runs


def _few_shot(draw: random.Random) -> Iterator[dict[str, Any]]:
    for level, dataset in ((85.0, "OxfordPets"), (50.0, "EuroSAT"), (87.0, "Caltech101")):
        yield a_run(level - 5, "ZeroshotCLIP", dataset, 0, backbone="RN50")
        for shots in (1, 4, 16):
            for seed in (1, 2, 3):
                here: dict[str, Any] = {
                    "dataset": dataset,
                    "shots": shots,
                    "seed": seed,
                    "backbone": "RN50",
                }
                yield a_run(level + shots + draw.gauss(0, 2), **here)
                for settings in NEMESIS:
                    accuracy = level + shots + draw.gauss(0.5, 2)
                    yield a_run(accuracy, "CoOpNemesis", **here, nemesis=settings)


def _base_to_new(draw: random.Random) -> Iterator[dict[str, Any]]:
    for dataset in ("OxfordPets", "EuroSAT"):
        for trainer in ("CoCoOp", "CoCoOpNemesis"):
            for seed in (1, 2, 3):
                base = a_run(
                    80 + draw.gauss(0, 2),
                    *(trainer, dataset, 16, seed, "ViT-B/16"),
                    subsample_classes="base",
                )
                yield base
                yield a_test(base, 70 + draw.gauss(0, 3), subsample_classes="new")


def _transfer(draw: random.Random) -> Iterator[dict[str, Any]]:
    for trainer in ("CoOp", "CoOpNemesis"):
        for seed in (1, 2, 3):
            source = a_run(62 + draw.gauss(0, 1), trainer, "ImageNet", 16, seed, "RN50")
            yield source
            for target in ("ImageNetV2", "ImageNetSketch", "ImageNetA"):
                yield a_test(source, 40 + draw.gauss(0, 1), target)


def fill_sweep(path: Path, folder: Path, missing: int = 0, profile: str = "paper") -> None:
    """Write a drawn results.json for every run of a sweep but the last `missing`."""
    draw = random.Random(15)
    runs = resolve_sweep(path, profile, output=folder).runs
    for run in runs[: len(runs) - missing]:
        level = 50.0 + sum(map(ord, run.dataset)) % 30 + run.shots
        gain = (sum(map(ord, f"{run.method} {dict(run.point)}")) % 7 - 2) / 3
        results = {
            **identity(run.config),
            "split": "test",
            "accuracy": level + gain + draw.gauss(0, 1),
            "macro_f1": level - 1,
            "ece": 5 + draw.random(),
            "num_test": 1000,
            "epochs": 50,
            "train_seconds": 60.0 + 10 * draw.random(),
            "device": "cpu",
            "status": "finished",
            "weights_sha256": "0" * 64,
            "config": {**run.config, "OUTPUT_DIR": str(run.folder)},
            "versions": {"python": "3.11.7", "torch": "2.6.0"},
        }
        if run.source:
            source = {**identity(run.source.config), "config": run.source.config}
            results |= {"model_dir": str(run.source.folder), "source_run": source}
        run.folder.mkdir(parents=True)
        write_json_with_checksum(results, run.folder / "results.json")
