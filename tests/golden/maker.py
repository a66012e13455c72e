"""Golden cases of our own making, computed by the reference implementations in float64."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from benchmarks.reference_clip import ReferenceCLIP, build_reference_clip
from benchmarks.reference_methods import ReferenceCoOp, better_positions, vector_norms
from tests.golden.cases import BUNDLED, GoldenFolder

ORDERS = {"one": 1.0, "two": 2.0, "inf": math.inf}
CLASSES = ["old dog", "annual_crop_land", "pizza"]  # not the bundled ones, nor as many


@dataclass
class Maker:
    """Writes cases into a folder whose models and inputs are not the bundled ones."""

    path: Path
    entries: list[dict[str, Any]] = field(default_factory=list)
    models: dict[str, ReferenceCLIP] = field(default_factory=dict)
    known: dict[tuple[Any, str, int], Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.noise = torch.Generator().manual_seed(0)
        inputs: dict[str, Any] = {
            key: value.flip(1) for key, value in BUNDLED.inputs.items() if key.startswith("images")
        }
        inputs["labels"] = torch.randint(0, len(CLASSES), (3, 8), generator=self.noise)
        inputs["ctx_five"], inputs["ctx_own"] = self.ctx(5), self.ctx(len(CLASSES), 7)
        np.savez(self.path / "inputs.npz", **inputs)
        for arch in ("vit", "rn"):
            weights = load_file(BUNDLED.weights(arch))
            weights["text_projection"] *= 0.8
            save_file(weights, self.path / f"tiny_{arch}.safetensors")
            model = GoldenFolder(self.path).clip(arch).double()
            self.models[arch] = build_reference_clip(model)

    @property
    def inputs(self) -> dict[str, Tensor]:
        return GoldenFolder(self.path).inputs

    def ctx(self, *shape: int) -> Tensor:
        """Prompts with vectors of norms around 1.7."""
        return torch.randn(*shape, 32, generator=self.noise) * 0.3

    def finish(self) -> GoldenFolder:
        """Write cases.json."""
        index = {"classes": CLASSES, "cases": self.entries}
        (self.path / "cases.json").write_text(json.dumps(index))
        return GoldenFolder(self.path)

    def write(
        self, kind: str, arch: str, params: dict[str, Any], arrays: dict[str, Tensor]
    ) -> None:
        """Add a case."""
        file = f"{len(self.entries)}.npz"
        plain = {key: value.detach().numpy() for key, value in arrays.items()}
        stored: dict[str, Any] = {
            key: value.astype(np.float32) if value.dtype == np.float64 else value
            for key, value in plain.items()
        }
        np.savez(self.path / file, **stored)
        described = {key: {"shape": list(value.shape)} for key, value in plain.items()}
        common = {"arch": arch, "file": file, "params": params, "arrays": described}
        self.entries.append({"name": f"{kind}{len(self.entries)}", "kind": kind, **common})

    def method(self, arch: str, ctx: Tensor, kind: Any = ReferenceCoOp, **more: Any) -> Any:
        """A reference method on one of the models."""
        return kind(self.models[arch], CLASSES, ctx, **more)

    def images(self, arch: str, batch: int) -> Tensor:
        return self.inputs[f"images_{arch}"][batch].double()

    def features(self, model: Any, arch: str, batch: int) -> Tensor:
        """A method's image features of a batch, computed once."""
        key = (type(model), arch, batch)
        if key not in self.known:
            self.known[key] = model.image_features(self.images(arch, batch))
        return self.known[key]

    def loss(self, logits: Tensor, batch: int) -> Tensor:
        return functional.cross_entropy(logits, self.inputs["labels"][batch])

    def nemesis(
        self, model: Any, arch: str, ctx: Tensor, batch: int, params: dict[str, Any], factor: float
    ) -> dict[str, Tensor]:
        """One gradient of Nemesis with all that leads to it; params.aware is PAN's weight."""
        ctx, positions = ctx.detach().requires_grad_(), params["positions"]
        features, labels = self.features(model, arch, batch), self.inputs["labels"][batch]
        clean = model.logits(features, ctx)
        corrupted = model.pre_inference(features, ctx, positions, params["CW"])
        rows = torch.stack([clean, *corrupted])
        alpha = torch.zeros(ctx.shape[-2], dtype=torch.float64)
        alpha[better_positions(clean, corrupted, labels, positions)] = params["aware"]
        pun, pan = (norms(ctx, a, params) for a in (torch.full_like(alpha, params["A"]), alpha))
        cross_entropy, beta = self.loss(clean, batch), params["beta"]
        total = cross_entropy + factor * (beta * pun + (1 - beta) * pan)
        return {
            **{"corrupt_logits": rows, "correct": (rows.argmax(-1) == labels).sum(-1)},
            **{"alpha": alpha, "pun_loss": pun, "pan_loss": pan, "ce_loss": cross_entropy},
            "pan_grad": gradient(pan, ctx) if alpha.any() else torch.zeros_like(ctx),
            "total_grad": gradient(total, ctx),
        }


def gradient(loss: Tensor, ctx: Tensor) -> Tensor:
    return torch.autograd.grad(loss, ctx, retain_graph=True)[0]


def norms(ctx: Tensor, alpha: Tensor, params: dict[str, Any]) -> Tensor:
    """The weighted mean of the positions' norms."""
    own = vector_norms(ctx, ORDERS[params.get("norm_type", "two")])
    return (own * alpha).sum() / max(1, int((alpha != 0).sum()))


def logistic(epoch: int, max_epoch: int) -> float:
    return 1 - 1 / (1 + math.exp(-0.2 * (epoch - max_epoch / 2)))
