"""Trainers with their own feature cache, and its content."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import train
from dassl.engine import build_trainer
from tests.helpers.runs import command

# One validation image a class: small enough for CoCoOp.
OFF = "--no-feature-cache"
FEW = ("DATASET.NUM_SHOTS", "1", "TEST.SPLIT", "val")


def make(output: Path, data_root: Path, *extra: str, trainer: str = "CoOp") -> Any:
    """A trainer as train.py builds it; its cache is output/cache."""
    cache = ("TEST.FEATURE_CACHE", str(output / "cache"))
    arguments = command(output / "run", data_root, *extra, *cache, trainer=trainer)
    cfg = train.make_config(train.build_parser().parse_args(arguments))
    torch.manual_seed(1)
    return build_trainer(cfg)


def scores(trainer: Any) -> Tensor:
    """All scores of a test."""
    collected: list[Tensor] = []
    process = trainer.evaluator.process

    def keep(scores: Tensor, labels: Tensor) -> None:
        collected.append(scores)
        process(scores, labels)

    trainer.evaluator.process = keep
    trainer.test()
    return torch.cat(collected)


def entries(output: Path) -> list[Path]:
    """The feature files in the cache."""
    return sorted((output / "cache").glob("*.npy"))


def spoil(paths: list[Path]) -> None:
    """Overwrite the content of files, with the same size and time of change."""
    for path in paths:
        stat = path.stat()
        path.write_bytes(b"\0" * stat.st_size)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
