"""Real trainers on the golden models, with given batches and initial prompts."""

import dataclasses
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
from tests.golden.cases import BUNDLED, TEXT_HEADS, Case, GoldenFolder

NODES = {"CoOp": "COOP", "CoCoOp": "COCOOP", "PLOT": "PLOT"}
WARM_UP_LR = 1e-5


@DATASET_REGISTRY.register()
class GoldenClasses(DatasetBase):
    """DATASET.CLASSNAMES with a blank picture each, so that a trainer can be built."""

    def __init__(self, cfg: Any) -> None:
        path = Path(cfg.DATASET.ROOT) / "blank.png"
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
        names = cfg.DATASET.CLASSNAMES
        items = [Datum(str(path), label, classname=name) for label, name in enumerate(names)]
        super().__init__(train_x=items, test=items)


def golden_trainer(
    name: str, arch: str, root: Path, *opts: Any, source: GoldenFolder = BUNDLED
) -> Any:
    settings: dict[str, Any] = {
        "TRAINER.NAME": name,
        "DATASET.NAME": "GoldenClasses",
        "DATASET.CLASSNAMES": source.index["classes"],
        "DATASET.ROOT": str(root),
        "OUTPUT_DIR": str(root / "run"),
        "DEVICE": "cpu",
        "SEED": 1,
        "DATALOADER.NUM_WORKERS": 0,
        "INPUT.SIZE": tuple(source.images(arch).shape[-2:]),
        "INPUT.PIXEL_MEAN": [0.48145466, 0.4578275, 0.40821073],
        "INPUT.PIXEL_STD": [0.26862954, 0.26130258, 0.27577711],
        "MODEL.BACKBONE.NAME": str(source.weights(arch)),
        "MODEL.CLIP.TEXT_HEADS": TEXT_HEADS,
        "OPTIM.NAME": "sgd",
        "OPTIM.LR": 0.002,
        "OPTIM.MAX_EPOCH": 50,
        "OPTIM.LR_SCHEDULER": "cosine",
        "OPTIM.WARMUP_EPOCH": 1,
        "OPTIM.WARMUP_TYPE": "constant",
        "OPTIM.WARMUP_CONS_LR": WARM_UP_LR,
    }
    pairs = [item for pair in settings.items() for item in pair]
    trainer = build_trainer(load_config(opts=[*pairs, *opts]))
    trainer.max_epoch = trainer.cfg.OPTIM.MAX_EPOCH
    trainer.num_batches = 2  # tests set the learning rate
    trainer.batch_idx = 0
    trainer.set_model_mode("train")
    return trainer


def case_trainer(case: Case, name: str, ctx: Tensor, root: Path, *opts: Any) -> Any:
    """The trainer of a case with its initial prompts, whose shape determines the settings."""
    method = name.removesuffix("Nemesis")
    node, sets = NODES[method], list(ctx.shape[:-2])
    settings: dict[str, Any] = {f"TRAINER.{node}.N_CTX": ctx.shape[-2]}
    if method == "PLOT":
        settings["TRAINER.PLOT.N"] = sets.pop()
    if method != "CoCoOp":
        settings[f"TRAINER.{node}.CSC"] = bool(sets)
        position = case.params.get("class_token_position", "end")
        settings[f"TRAINER.{node}.CLASS_TOKEN_POSITION"] = position
    settings["OPTIM.MAX_EPOCH"] = case.params.get("max_epoch", 50)
    settings["DATASET.CLASSNAMES"] = case.classes
    pairs = [item for pair in settings.items() for item in pair]
    trainer = golden_trainer(name, case.arch, root, *pairs, *opts, source=case.folder)
    set_prompts(trainer, ctx)
    return trainer


def nemesis_trainer(
    case: Case, name: str, ctx: Tensor, root: Path, beta: float | None = None
) -> Any:
    """The trainer of a case with Nemesis.

    On some datasets the reference hard-codes a constant schedule and weights PAN, but not PUN, by
    50. Here one omega weights both, so the same sum needs another omega and beta.
    """
    params = case.params
    beta = float(params["beta"] if beta is None else beta)
    uniform, aware = beta * params["A"], (1 - beta) * aware_weight(case)
    opts: dict[str, Any] = {
        "OMEGA": uniform + aware,
        "BETA": uniform / (uniform + aware),
        "SCHEDULE": "constant" if is_constant(params) else "logistic",
        "NORM": params.get("norm_type", "two"),
        "N": len(torch.atleast_2d(torch.tensor(params["positions"]))[0]),
    }
    pairs = [item for key, value in opts.items() for item in (f"TRAINER.NEMESIS.{key}", value)]
    trainer = case_trainer(case, name, ctx, root, *pairs)
    # The functions compute tau >= 1, too; only the configuration refuses it.
    trainer.norm_penalty = dataclasses.replace(trainer.norm_penalty, tau=params["CW"])
    return trainer


def aware_weight(case: Case) -> float:
    """The reference's weight of PAN: its alpha at the selected positions."""
    alpha = case.expected.get("alpha", torch.zeros(1))
    return float(alpha.max()) if alpha.any() else float(case.params["A"])


def is_constant(params: dict[str, Any]) -> bool:
    """Whether the norm losses have the same weight in all epochs."""
    if "omega_used" in params:
        return params["omega_used"] == 1.0
    return params.get("dataset") in ("OxfordPets", "Food101")  # hard-coded in the reference


def set_prompts(trainer: Any, ctx: Tensor) -> None:
    parameter = trainer.model.prompt_learner.ctx
    assert parameter.shape == ctx.shape
    with torch.no_grad():
        parameter.copy_(ctx)


def fix_positions(trainer: Any, positions: list[int]) -> None:
    """Draw these positions instead of random ones."""
    trainer.draw_positions = functools.partial(torch.tensor, positions)


def set_rate(trainer: Any, rate: float) -> None:
    for group in trainer.optim.param_groups:
        group["lr"] = rate


def step(
    trainer: Any,
    arch: str,
    number: int = 0,
    epoch: int = 0,
    source: GoldenFolder = BUNDLED,
    class_set: str = "",
) -> dict[str, Any]:
    """One optimisation step on a golden batch in an epoch; returns the logged values."""
    trainer.epoch = epoch
    trainer.before_epoch()
    batch = {"img": source.images(arch, number), "label": source.labels(number, class_set)}
    return trainer.forward_backward(batch)


def case_step(trainer: Any, case: Case, number: int = 0, epoch: int = 0) -> dict[str, Any]:
    """One optimisation step on a batch of the case's folder; returns the logged values."""
    class_set = case.params.get("class_set", "")
    summary = step(trainer, case.arch, number, epoch, case.folder, class_set)
    return {"ce": summary["loss"], **summary}
