"""A task of coloured squares and a trainer as for Dassl, for the tests of the engine."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from dassl.config import CfgNode, load_config
from dassl.data.datasets import DATASET_REGISTRY, Datum, SplitDataset
from dassl.engine import TRAINER_REGISTRY, TrainerX, build_trainer
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import set_random_seed, setup_logger

CLASSES = ("red", "green", "blue", "dark_grey")
COLOURS = ((220, 40, 40), (40, 200, 60), (50, 60, 210), (60, 60, 60))


def make_images(root: Path, per_class: int = 12, side: int = 20) -> Path:
    """Write noisy coloured squares to <root>/squares/images/<class>/<number>.png."""
    rng = np.random.default_rng(0)
    for name, colour in zip(CLASSES, COLOURS, strict=True):
        folder = root / "squares" / "images" / name
        folder.mkdir(parents=True)
        for number in range(per_class):
            noise = rng.integers(-30, 30, (side, side + 4, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return root


class Squares(SplitDataset):
    """Half of each class is for training, a quarter for validation and a quarter for the test."""

    dataset_dir = "squares"
    split_file = "split_squares.json"

    def make_split(self) -> dict[str, list[Datum]]:
        split: dict[str, list[Datum]] = {"train": [], "val": [], "test": []}
        for label, name in enumerate(CLASSES):
            for number, path in enumerate(sorted((self.images / name).iterdir())):
                part = ("train", "train", "val", "test")[number % 4]
                split[part].append(Datum(str(path), label, classname=name.replace("_", " ")))
        return split


def toy_settings(root: Path, output: Path) -> dict[str, Any]:
    """The settings of the toy task: 4 epochs of CoOp's recipe on 16 x 16 pixels."""
    return {
        **{"OUTPUT_DIR": str(output), "SEED": 1, "USE_CUDA": False, "DATASET.ROOT": str(root)},
        **{"DATASET.NAME": "Squares", "DATASET.NUM_SHOTS": 4, "TRAINER.NAME": "ToyTrainer"},
        **{"INPUT.SIZE": (16, 16), "INPUT.INTERPOLATION": "bicubic", "TRAIN.PRINT_FREQ": 2},
        "INPUT.TRANSFORMS": ("random_resized_crop", "random_flip", "normalize"),
        **{"DATALOADER.NUM_WORKERS": 0, "DATALOADER.TRAIN_X.BATCH_SIZE": 4},
        **{"DATALOADER.TEST.BATCH_SIZE": 5, "OPTIM.NAME": "sgd", "OPTIM.LR": 0.02},
        **{"OPTIM.MAX_EPOCH": 4, "OPTIM.LR_SCHEDULER": "cosine", "OPTIM.WARMUP_EPOCH": 1},
        **{"OPTIM.WARMUP_TYPE": "constant", "OPTIM.WARMUP_CONS_LR": 1e-3},
    }


def toy_config(root: Path, output: Path, *opts: str) -> CfgNode:
    """The configuration of the toy task."""
    return load_config(flag_overrides=toy_settings(root, output), opts=opts)


def toy_command(root: Path, output: Path, *opts: str, flags: Sequence[str] = ()) -> list[str]:
    """The same run as arguments of train.py."""
    settings = toy_settings(root, output)
    given = ["--output-dir", str(settings.pop("OUTPUT_DIR")), "--seed", str(settings.pop("SEED"))]
    pairs = [str(item) for pair in settings.items() for item in pair]
    return [*given, *flags, *pairs, *opts]


class ToyNet(nn.Module):
    """A linear layer on the mean colour, with dropout from the global generator."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, num_classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(F.dropout(image.mean((2, 3)), 0.2, self.training))


class ToyTrainer(TrainerX):
    """Written as trainers for Dassl are."""

    def build_model(self) -> None:
        cfg = self.cfg
        torch.manual_seed(5)
        self.model = ToyNet(self.num_classes)
        self.model.to(self.device)
        self.optim = build_optimizer(self.model, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("toy", self.model, self.optim, self.sched)

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, Any]:
        image, label = self.parse_batch_train(batch)
        output = self.model(image)
        loss = F.cross_entropy(output, label)
        self.model_backward_and_update(loss)
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return {"loss": loss.item(), "acc": compute_accuracy(output, label)[0]}

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        return batch["img"].to(self.device), batch["label"].to(self.device)


def run(root: Path, output: Path, *opts: str) -> Any:
    """Train and test as train.py does; returns the trainer."""
    cfg = toy_config(root, output, *opts)
    with setup_logger(output):  # type: ignore[union-attr]
        set_random_seed(cfg.SEED)
        trainer = build_trainer(cfg)
        trainer.train()
    return trainer


def make_split(root: Path) -> Path:
    """Make the images and their split file; return the data root."""
    make_images(root)
    Squares(toy_config(root, root))
    return root


@contextmanager
def registered(*trainers: type[TrainerX]) -> Iterator[None]:
    """Register the toy dataset, the toy trainer and others during the block."""
    registries = (DATASET_REGISTRY, TRAINER_REGISTRY)
    before = [dict(registry.items()) for registry in registries]
    DATASET_REGISTRY.register(Squares)
    for trainer in (ToyTrainer, *trainers):
        TRAINER_REGISTRY.register(trainer)
    try:
        yield
    finally:
        for registry, objects in zip(registries, before, strict=True):
            registry._objects = objects
