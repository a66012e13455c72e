"""Registered trainers on synthetic data, for benchmarks."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

import trainers  # noqa: F401  (registers)
from clip.config import ARCHITECTURES, CLIPConfig, canonical_name
from clip.description import PIXEL_MEAN, PIXEL_STD
from clip.weights import RANDOM_PREFIX, LoadedCLIP, load_clip
from dassl.config import load_config
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.engine import build_trainer
from datasets.imagenet import imagenet_classnames
from trainers.core.batched_step import BatchedPrompts, Inputs, Settings
from trainers.nemesis import NormPenalty

CLASSNAMES_FILE = "classnames.txt"
N_CTX = 16
PROMPT_SETS = 4  # PLOT's P


@dataclass(frozen=True)
class Backbone:
    """A CLIP to measure: its name, its weights for `load_clip`, and what they do not contain.

    0 heads are read from the weights.
    """

    name: str
    weights: str
    config: CLIPConfig
    pixel_mean: tuple[float, ...] = PIXEL_MEAN
    pixel_std: tuple[float, ...] = PIXEL_STD
    text_heads: int = 0
    vision_heads: int = 0

    @classmethod
    def find(cls, name: str, text_heads: int = 0, vision_heads: int = 0) -> "Backbone":
        """Return random weights for an architecture's name, else the CLIP that `load_clip` finds.

        Raises:
            WeightsError: the CLIP does not exist.
        """
        canonical = canonical_name(name)
        if canonical is not None:
            return cls(canonical, RANDOM_PREFIX + canonical, ARCHITECTURES[canonical])
        loaded = load_clip(
            name, transformer_heads=text_heads or None, vision_heads=vision_heads or None
        )
        config, mean, std = loaded.model.config, loaded.pixel_mean, loaded.pixel_std
        return cls(name, name, config, mean, std, text_heads, vision_heads)

    def load(self, device: torch.device) -> LoadedCLIP:
        """Load a new copy of the model."""
        return load_clip(
            self.weights,
            device=device,
            transformer_heads=self.text_heads or None,
            vision_heads=self.vision_heads or None,
        )


@DATASET_REGISTRY.register()
class SyntheticClasses(DatasetBase):
    """Dataset with one blank image and the class names of a file, to build trainers."""

    def __init__(self, cfg: Any) -> None:
        root = Path(cfg.DATASET.ROOT)
        names = (root / CLASSNAMES_FILE).read_text(encoding="utf-8").splitlines()
        path = root / "blank.png"
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
        items = [Datum(str(path), label, classname=name) for label, name in enumerate(names)]
        super().__init__(train_x=items, test=items)


def class_names(count: int) -> list[str]:
    """Return evenly spaced ImageNet class names, as adjacent ones (a hundred dogs) are similar."""
    names = imagenet_classnames()
    return [names[index * len(names) // count] for index in range(count)]


def synthetic_trainer(
    name: str, backbone: Backbone, classnames: Sequence[str], device: torch.device, *opts: Any
) -> Any:
    """Build a registered trainer on a backbone, ready for `forward_backward`; opts are settings."""
    side = backbone.config.image_resolution
    with TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        (Path(folder) / CLASSNAMES_FILE).write_text("\n".join(classnames), encoding="utf-8")
        settings: dict[str, Any] = {
            "TRAINER.NAME": name,
            "DATASET.NAME": SyntheticClasses.__name__,
            "DATASET.ROOT": folder,
            "OUTPUT_DIR": folder,
            "DEVICE": str(device),
            "DATALOADER.NUM_WORKERS": 0,
            "INPUT.SIZE": (side, side),
            "INPUT.PIXEL_MEAN": list(backbone.pixel_mean),
            "INPUT.PIXEL_STD": list(backbone.pixel_std),
            "MODEL.BACKBONE.NAME": backbone.weights,
            "MODEL.CLIP.TEXT_HEADS": backbone.text_heads,
            "MODEL.CLIP.VISION_HEADS": backbone.vision_heads,
            "OPTIM.NAME": "sgd",
            "OPTIM.LR": 0.002,
            "TRAINER.NEMESIS.SCHEDULE": "constant",
        }
        pairs = [item for pair in settings.items() for item in pair]
        trainer = build_trainer(load_config(opts=[*pairs, *opts]))
    trainer.num_batches, trainer.batch_idx = 2, 0  # never an epoch's last batch
    trainer.before_epoch()
    trainer.set_model_mode("train")
    return trainer


def precision_settings(node: str, precision: str) -> tuple[Any, ...]:
    """Return the settings of a precision: one of `PRECISIONS`, or tf32, fp32 with MODEL.TF32."""
    tf32 = precision == "tf32"
    return f"TRAINER.{node}.PREC", "fp32" if tf32 else precision, "MODEL.TF32", tf32


def batch_of_runs(
    trainer: Any, penalties: Sequence[NormPenalty | None], batch: int, tokens: Sequence[int] = ()
) -> tuple[BatchedPrompts, Inputs]:
    """Return a batch of runs that begin with a trainer's prompts, and what they train on.

    Args:
        trainer: from `synthetic_trainer`.
        penalties: of each run.
        batch: images of each run's step.
        tokens: the number of PLOT's image features, if it is PLOT.
    """
    settings = [replace(Settings.of(trainer), penalty=penalty) for penalty in penalties]
    settings.sort(key=lambda setting: setting.p)
    parameter, model, device = trainer.model.prompt_learner.ctx, trainer.model, trainer.device
    prompts = BatchedPrompts(model, trainer.clip_precision, settings, parameter.shape)
    with torch.no_grad():
        prompts.ctx.copy_(parameter)
    embed = model.clip_model.config.embed_dim
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(len(settings), batch, *tokens, embed, generator=generator)
    labels = torch.arange(batch).remainder(len(model.text_encoder.prompts))
    inputs = Inputs(
        functional.normalize(features, dim=-1).to(device, model.clip_model.dtype),
        labels.repeat(len(settings), 1).to(device),
        torch.cat([torch.arange(setting.drawn) for setting in settings]).to(device),
        torch.full((len(settings),), 0.002, device=device),
        torch.ones(len(settings), device=device),
    )
    return prompts, inputs


def random_images(count: int, backbone: Backbone, device: torch.device, seed: int = 0) -> Tensor:
    """Return noise in the shape of normalised images (B, 3, H, W)."""
    side = backbone.config.image_resolution
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, side, side, generator=generator).to(device)


def random_labels(count: int, classes: int, device: torch.device, seed: int = 0) -> Tensor:
    """Return random labels (B,)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(classes, (count,), generator=generator).to(device)


@contextlib.contextmanager
def own_seed(seed: int) -> Iterator[None]:
    """Seed PyTorch's generator within the context and restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
