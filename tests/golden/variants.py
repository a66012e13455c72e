"""Golden cases of our own making, with other settings than the bundled ones."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.reference_methods import ReferenceCoOp, ReferencePLOT, transport, vector_norms
from clip.clip import tokenize
from tests.golden.cases import GoldenFolder
from tests.golden.maker import CLASSES, ORDERS, Maker, gradient, logistic, norms


def combine(**choices: list[Any]) -> Iterator[dict[str, Any]]:
    """Every combination of the settings."""
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


def make_coop(maker: Maker) -> None:
    archs = itertools.cycle(["rn", "vit"])
    starts = [
        ("", (16,)),
        ("", (5,)),
        ("", (len(CLASSES), 7)),
        ("photo of one", (3,)),
        ("a", (3, 1)),
    ]
    for choice in combine(position=["end", "middle", "front"], start=starts):
        arch, position, (words, shape) = next(archs), choice["position"], choice["start"]
        model, ctx = maker.models[arch], maker.ctx(*shape).double()
        if words:
            ids = tokenize(words)[0, 1 : 1 + shape[-1]]
            ctx = model.token_embedding.weight[ids].expand(*shape, -1).clone()
        ctx.requires_grad_()
        method = maker.method(arch, ctx, position=position)
        logits = method.logits(maker.features(method, arch, 0), ctx)
        loss = maker.loss(logits, 0)
        params = {"class_token_position": position, "ctx_init": words, "n_ctx": shape[-1]}
        prompts = method.prompts(ctx)
        arrays = {
            **{"ctx": ctx, "logits": logits, "loss": loss, "grad_ctx": gradient(loss, ctx)},
            "prompts": prompts,
            "text_features": model.encode_prompts(prompts, method.prompts.eos),
            "image_features": model.visual(maker.images(arch, 0)),
        }
        maker.write("coop", arch, params, arrays)


def make_crt(maker: Maker) -> None:
    archs = itertools.cycle(["rn", "vit", "vit"])
    kinds: list[dict[str, Any]] = [
        {"type": "original"},
        {"type": "rescale", "position": 2, "factor": 0.3},
        {"type": "replace", "position": 4, "std": 0.2},
        {"type": "replace", "position": 0, "std": 0.0},
    ]
    for choice in combine(params=kinds, key=["ctx_five", "ctx_own"]):
        arch, params, ctx = next(archs), choice["params"], maker.inputs[choice["key"]].clone()
        arrays = {}
        if params["type"] == "rescale":
            ctx[..., params["position"], :] *= params["factor"]
        elif params["type"] == "replace":
            arrays["replacement"] = torch.randn(32, generator=maker.noise) * params["std"]
            ctx[..., params["position"], :] = arrays["replacement"]
        method = maker.method(arch, ctx.double())
        logits = method.logits(maker.features(method, arch, 0), method.ctx)
        maker.write("crt", arch, params, {**arrays, "ctx": ctx, "logits": logits})


def make_pun(maker: Maker) -> None:
    for choice in combine(norm_type=list(ORDERS), A=[7.0], shape=[(5,), (2, 3, 4)]):
        ctx = maker.ctx(*choice.pop("shape")).double().requires_grad_()
        loss = norms(ctx, torch.full((ctx.shape[-2],), choice["A"]), choice)
        logged = vector_norms(ctx, ORDERS[choice["norm_type"]]) / math.prod(ctx.shape[:-2])
        arrays = {"ctx": ctx, "loss": loss, "grad_ctx": gradient(loss, ctx)}
        maker.write("pun", "none", choice, {**arrays, "vector_norm_logged": logged})


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


def make_steps(maker: Maker) -> None:
    """Steps and steps_plot."""
    archs = itertools.cycle(["rn", "rn", "vit", "vit"])
    for number, choice in enumerate(
        combine(own=[True, False], method=["plain", "pun", "pan", "beta0.6"])
    ):
        arch = next(archs)
        plot, scheduled = bool(number % 2), number % 4 == 0
        method, name = choice["method"], "plot" if plot else "coop"
        beta = {"plain": 1.0, "pun": 1.0, "pan": 0.0, "beta0.6": 0.6}[method]
        rates = [1e-5, 0.002, 0.001 * (1 + math.cos(math.pi / 8))] if scheduled else [0.002] * 3
        params: dict[str, Any] = {
            **{"A": 2.0, "aware": 2.0, "CW": 0.4, "beta": beta, "mode": ("lr", "sched")[scheduled]},
            **{"positions": [[0, 3], [1, 4], [2, 5]], "max_epoch": 8, "lr": rates},
            **{"epochs": [0, 1, 2] if scheduled else [4] * 3, "dataset": "Caltech101"},
        }
        ctx = maker.ctx(*[len(CLASSES)] * choice["own"], *[2] * plot, 6).double()
        model = maker.method(arch, ctx, ReferencePLOT if plot else ReferenceCoOp)
        arrays: dict[str, list[Tensor]] = {"ctx_after": [], "grad": [], "ce_loss": [], "alpha": []}
        start, momentum = ctx, torch.zeros_like(ctx)
        for step, (epoch, rate) in enumerate(zip(params["epochs"], rates, strict=True)):
            factor = 0.0 if method == "plain" else logistic(epoch, 8)
            drawn = {**params, "positions": params["positions"][step]}
            found = maker.nemesis(model, arch, ctx, step, drawn, factor)
            momentum = 0.9 * momentum + found["total_grad"] + 5e-4 * ctx
            ctx = ctx - rate * momentum
            for key, value in {**found, "ctx_after": ctx, "grad": found["total_grad"]}.items():
                if key in arrays:
                    arrays[key].append(value)
        params["method"] = name if method == "plain" else method
        stacked = {key: torch.stack(values) for key, values in arrays.items()}
        kind = "steps_plot" if plot else "steps"
        maker.write(kind, arch, params, {**stacked, "ctx0": start})


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
    """A folder with all of them."""
    maker = Maker(path)
    for make in (make_coop, make_crt, make_pun, make_nemesis, make_steps, make_plot):
        make(maker)
    return maker.finish()
