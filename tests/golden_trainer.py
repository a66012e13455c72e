"""Real trainers on the golden models: only the batches and the starting prompts are given."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import trainers  # noqa: F401  (registers)
from dassl.config import load_config
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.engine import build_trainer
from tests.golden import FOLDER, TEXT_HEADS, images, index, labels

SIZES = {"vit": 32, "rn": 64}


@DATASET_REGISTRY.register()
class GoldenClasses(DatasetBase):
    """The golden cases' class names with a blank picture each, so that a trainer can be built."""

    def __init__(self, cfg: Any) -> None:
        path = Path(cfg.DATASET.ROOT) / "blank.png"
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
        items = [Datum(str(path), k, classname=name) for k, name in enumerate(index()["classes"])]
        super().__init__(train_x=items, test=items)


def golden_trainer(name: str, arch: str, folder: Path, *opts: Any) -> Any:
    """A trainer by name on a tiny golden model."""
    settings: dict[str, Any] = {
        "TRAINER.NAME": name,
        "DATASET.NAME": "GoldenClasses",
        "DATASET.ROOT": str(folder),
        "OUTPUT_DIR": str(folder / "run"),
        "DEVICE": "cpu",
        "SEED": 1,
        "DATALOADER.NUM_WORKERS": 0,
        "INPUT.SIZE": (SIZES[arch], SIZES[arch]),
        "INPUT.PIXEL_MEAN": [0.48145466, 0.4578275, 0.40821073],
        "INPUT.PIXEL_STD": [0.26862954, 0.26130258, 0.27577711],
        "MODEL.BACKBONE.NAME": str(FOLDER / f"tiny_{arch}.safetensors"),
        "MODEL.CLIP.TEXT_HEADS": TEXT_HEADS,
        "OPTIM.NAME": "sgd",
        "OPTIM.LR": 0.002,
        "OPTIM.MAX_EPOCH": 50,
        "OPTIM.LR_SCHEDULER": "cosine",
        "OPTIM.WARMUP_EPOCH": 1,
        "OPTIM.WARMUP_TYPE": "constant",
        "OPTIM.WARMUP_CONS_LR": 1e-5,
    }
    pairs = [item for pair in settings.items() for item in pair]
    trainer = build_trainer(load_config(opts=[*pairs, *opts]))
    trainer.max_epoch = trainer.cfg.OPTIM.MAX_EPOCH
    trainer.num_batches = 2  # the learning rate changes when a test says so
    trainer.batch_idx = 0
    trainer.set_model_mode("train")
    return trainer


def set_prompts(trainer: Any, ctx: Tensor) -> None:
    """Start from given prompts."""
    parameter = trainer.model.prompt_learner.ctx
    assert parameter.shape == ctx.shape
    with torch.no_grad():
        parameter.copy_(ctx)


def fix_positions(trainer: Any, positions: list[int]) -> None:
    """Draw these positions instead of random ones."""
    trainer.draw_positions = functools.partial(torch.tensor, positions)


def set_rate(trainer: Any, rate: float) -> None:
    """Set the learning rate in force."""
    for group in trainer.optim.param_groups:
        group["lr"] = rate


def batch(arch: str, number: int = 0) -> dict[str, Tensor]:
    """A golden batch as the loader would give it."""
    return {"img": images(arch, number), "label": labels(number)}


def step(trainer: Any, arch: str, number: int = 0, epoch: int = 0) -> dict[str, Any]:
    """One real optimisation step in an epoch; returns what it logs."""
    trainer.epoch = epoch
    trainer.before_epoch()
    return trainer.forward_backward(batch(arch, number))


def nemesis_options(params: dict[str, Any]) -> list[Any]:
    """TRAINER.NEMESIS for a golden case.

    On OxfordPets and Food101 the reference hard-codes a constant schedule and weighs PAN, but not
    PUN, by 50. Here one omega weighs both, so the same sum takes another omega and beta.
    """
    hard_coded = params.get("dataset") in ("OxfordPets", "Food101")
    beta = float(params.get("beta", 0.0))
    uniform, aware = beta * params["A"], (1 - beta) * (50.0 if hard_coded else params["A"])
    given = {
        "OMEGA": uniform + aware,
        "BETA": uniform / (uniform + aware),
        "SCHEDULE": "constant" if hard_coded else "logistic",
        "NORM": params.get("norm_type", "two"),
        "N": len(params["positions"]),
    }
    return [item for key, value in given.items() for item in (f"TRAINER.NEMESIS.{key}", value)]
