"""The methods computed the plain way, for golden cases of our own making.

The numbers come from float64 models, the padded prompts of tests/helpers/oracle.py and the papers'
formulas in loops, so that they owe nothing to the trainers.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from clip.model import CLIP
from tests.golden.cases import BUNDLED, GoldenFolder
from tests.helpers.oracle import plain_text_features

Logits = Callable[[Tensor, int], Tensor]
ORDERS = {"one": 1.0, "two": 2.0, "inf": math.inf}
CLASSES = ["old dog", "annual_crop_land", "pizza"]  # not the bundled ones, nor as many


@dataclass
class Maker:
    """Writes cases into a folder whose models and inputs are not the bundled ones."""

    path: Path
    entries: list[dict[str, Any]] = field(default_factory=list)
    models: dict[str, CLIP] = field(default_factory=dict)
    known: dict[tuple[str, int], Tensor] = field(default_factory=dict)

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
            self.models[arch] = GoldenFolder(self.path).clip(arch).double()

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

    def images(self, arch: str, batch: int) -> Tensor:
        return self.inputs[f"images_{arch}"][batch].double()

    def features(self, arch: str, batch: int) -> Tensor:
        """Pooled (first) and local features of a batch (B, M, E), computed once."""
        if (arch, batch) not in self.known:
            features = self.models[arch].encode_image_local(self.images(arch, batch))
            self.known[arch, batch] = features.detach()
        return self.known[arch, batch]

    def text(self, arch: str, ctx: Tensor, position: str = "end") -> Tensor:
        return plain_text_features(self.models[arch], CLASSES, ctx, position)

    def coop(self, arch: str, position: str = "end") -> Logits:
        """CoOp's logits of a batch under prompts."""
        scale = self.models[arch].logit_scale.exp()

        def logits(ctx: Tensor, batch: int) -> Tensor:
            text = functional.normalize(self.text(arch, ctx, position), dim=-1)
            return scale * functional.normalize(self.features(arch, batch)[:, 0], dim=-1) @ text.T

        return logits

    def plot(self, arch: str, eps: float = 0.1, position: str = "end") -> Logits:
        """PLOT's logits."""
        scale = self.models[arch].logit_scale.exp()

        def logits(ctx: Tensor, batch: int) -> Tensor:
            sim = self.plot_parts(arch, ctx, batch, position)[2]
            return scale * (transport(sim.detach(), eps) * sim).sum((-2, -1)).view(8, -1)

        return logits

    def plot_parts(
        self, arch: str, ctx: Tensor, batch: int, position: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Image features (M, B, E), text features (N C, E), similarities (B C, M, N)."""
        images = self.features(arch, batch).transpose(0, 1)
        text = torch.cat([self.text(arch, prompt, position) for prompt in ctx.unbind(-3)])
        unit = functional.normalize(text, dim=-1).view(ctx.shape[-3], len(CLASSES), -1)
        sim = torch.einsum("mbe,nce->bcmn", functional.normalize(images, dim=-1), unit)
        return images, text, sim.flatten(0, 1)

    def loss(self, logits: Tensor, batch: int) -> Tensor:
        return functional.cross_entropy(logits, self.inputs["labels"][batch])

    def nemesis(
        self, logits: Logits, ctx: Tensor, batch: int, params: dict[str, Any], factor: float
    ) -> dict[str, Tensor]:
        """One gradient of Nemesis with all that leads to it; params.aware is PAN's weight."""
        ctx = ctx.detach().requires_grad_()
        clean = logits(ctx, batch)
        rows, labels = [clean], self.inputs["labels"][batch]
        for position in params["positions"]:
            corrupted = ctx.detach().clone()
            corrupted[..., position, :] *= params["CW"]
            rows.append(logits(corrupted, batch))
        correct = torch.stack([(row.argmax(1) == labels).sum() for row in rows])
        alpha = torch.zeros(ctx.shape[-2], dtype=torch.float64)
        for position, count in zip(params["positions"], correct[1:], strict=True):
            alpha[position] = params["aware"] if count > correct[0] else 0.0
        pun, pan = (norms(ctx, a, params) for a in (torch.full_like(alpha, params["A"]), alpha))
        cross_entropy, beta = self.loss(clean, batch), params["beta"]
        total = cross_entropy + factor * (beta * pun + (1 - beta) * pan)
        return {
            **{"corrupt_logits": torch.stack(rows), "correct": correct, "alpha": alpha},
            **{"pun_loss": pun, "pan_loss": pan, "ce_loss": cross_entropy},
            "pan_grad": gradient(pan, ctx) if alpha.any() else torch.zeros_like(ctx),
            "total_grad": gradient(total, ctx),
        }


def gradient(loss: Tensor, ctx: Tensor) -> Tensor:
    return torch.autograd.grad(loss, ctx, retain_graph=True)[0]


def norms(ctx: Tensor, alpha: Tensor, params: dict[str, Any]) -> Tensor:
    """The weighted mean of the vectors' norms, summed over the prompt sets."""
    total = torch.zeros((), dtype=torch.float64) * ctx.sum()
    for j, weight in enumerate(alpha.tolist()):
        vectors = ctx[..., j, :].reshape(-1, ctx.shape[-1])
        order = ORDERS[params.get("norm_type", "two")]
        total = total + weight * sum(vector.norm(order) for vector in vectors)
    return total / max(1, int((alpha != 0).sum()))


def transport(sim: Tensor, eps: float, max_iter: int = 100, thresh: float = 0.01) -> Tensor:
    """Sinkhorn's plan, as PLOT's code stops it."""
    kernel = torch.exp(-(1 - sim) / eps)
    row, column = torch.ones_like(sim[..., 0]), torch.ones_like(sim[..., 0, :])
    for _ in range(max_iter):
        before = row
        row = 1 / sim.shape[-2] / (kernel @ column.unsqueeze(-1)).squeeze(-1)
        column = 1 / sim.shape[-1] / (kernel.mT @ row.unsqueeze(-1)).squeeze(-1)
        if (row - before).abs().mean() < thresh:
            break
    return row.unsqueeze(-1) * kernel * column.unsqueeze(-2)


def logistic(epoch: int, max_epoch: int) -> float:
    return 1 - 1 / (1 + math.exp(-0.2 * (epoch - max_epoch / 2)))
