"""Golden cases of our own making, computed by the reference implementations in float64."""

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from benchmarks.reference_clip import ReferenceCLIP, build_reference_clip
from benchmarks.reference_methods import (
    ReferenceCoOp,
    ReferencePLOT,
    better_positions,
    transport,
    vector_norms,
)
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
        index = {"classes": CLASSES, "cases": self.entries}
        (self.path / "cases.json").write_text(json.dumps(index))
        return GoldenFolder(self.path)

    def write(
        self, kind: str, arch: str, params: dict[str, Any], arrays: dict[str, Tensor]
    ) -> None:
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


def combine(**choices: list[Any]) -> Iterator[dict[str, Any]]:
    """Every combination of the settings."""
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


def make_nemesis(maker: Maker) -> None:
    """pan, combined and plot_nemesis."""
    archs = itertools.cycle(["rn", "vit"])
    settings = combine(
        shape=[(6,), (len(CLASSES), 6)],
        how=[("two", 0.5, 1.0), ("one", 2.0, 3.0), ("inf", 0.1, 10.0)],
        data=[("OxfordPets", 0.3), ("Food101", 0.0), ("EuroSAT", 0.7)],
    )
    for number, choice in enumerate(settings):
        arch, (norm, tau, weight), (dataset, beta) = next(archs), choice["how"], choice["data"]
        epoch, max_epoch = (3, 20) if number % 2 else (12, 40)
        hard_coded = dataset in ("OxfordPets", "Food101")
        factor = 1.0 if hard_coded else logistic(epoch, max_epoch)
        params = {
            **{"norm_type": norm, "CW": tau, "A": weight, "beta": beta, "dataset": dataset},
            **{"epoch": epoch, "max_epoch": max_epoch, "omega_used": factor},
            **{"positions": [5, 0, 3], "aware": 50.0 if hard_coded else weight},
        }
        kind = ("pan", "combined", "plot_nemesis")[(number + number // 3) % 3]
        sets = (2,) if kind == "plot_nemesis" else ()
        ctx = maker.ctx(*choice["shape"][:-1], *sets, 6).double()
        method = maker.method(arch, ctx, ReferencePLOT if sets else ReferenceCoOp)
        arrays = maker.nemesis(method, arch, ctx, 0, params, factor)
        after = ctx - 1e-5 * (arrays["total_grad"] + 5e-4 * ctx)
        maker.write(kind, arch, params, {**arrays, "ctx": ctx, "ctx_after": after})


def make_plot(maker: Maker) -> None:
    for choice in combine(arch=["rn", "vit"], own=[True, False], eps=[0.1, 0.3]):
        arch, eps = choice["arch"], choice["eps"]
        position = "front" if choice["own"] else "end"
        ctx = maker.ctx(*[len(CLASSES)] * choice["own"], 3, 5).double().requires_grad_()
        method = maker.method(arch, ctx, ReferencePLOT, position=position)
        method.eps = eps
        features = maker.features(method, arch, 0)
        prompts = torch.cat([method.prompts(prompt) for prompt in ctx.unbind(-3)])
        text = maker.models[arch].encode_prompts(prompts, method.prompts.eos.repeat(3))
        sim = torch.einsum("bme,nce->bcmn", features, method.text_features(ctx)).flatten(0, 1)
        logits, plan = method.logits(features, ctx), transport(sim.detach(), eps)
        loss = maker.loss(logits, 0)
        images = maker.models[arch].visual(maker.images(arch, 0), local=True).transpose(0, 1)
        arrays = {
            **{"ctx": ctx, "logits": logits, "loss": loss, "grad_ctx": gradient(loss, ctx)},
            **{"image_features": images, "text_features": text, "sim": sim, "T": plan},
            **{"T_row_sum": plan.sum(-1), "T_col_sum": plan.sum(-2), "prompts": prompts},
        }
        settings = {"eps": eps, "max_iter": 100, "thresh": 0.01, "class_token_position": position}
        maker.write("plot", arch, settings, arrays)


def make_all(path: Path) -> GoldenFolder:
    maker = Maker(path)
    for make in (make_nemesis, make_plot):
        make(maker)
    return maker.finish()
