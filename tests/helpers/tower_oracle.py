"""Prompts in both encoders computed plainly in float64, and the norm losses on them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.reference_clip import ReferenceCLIP, build_reference_clip
from benchmarks.reference_methods import better_positions, vector_norms
from clip.clip import tokenize
from clip.model import CLIP


def run_layers(transformer: nn.Module, x: Tensor, prompts: Tensor, rows: slice) -> Tensor:
    """All blocks on (batch, length, width); prompts replace these rows from layer 1 on."""
    x = x.transpose(0, 1)
    for layer, block in enumerate(transformer.get_submodule("resblocks").children()):
        if 0 < layer < len(prompts):
            x = x.clone()
            x[rows] = prompts[layer].unsqueeze(1)
        x = block(x)
    return x.transpose(0, 1)


class PlainTowers:
    """A CLIP whose class names stand behind n vectors and fixed words."""

    def __init__(self, clip_model: CLIP, names: Sequence[str], length: int, words: str) -> None:
        self.clip: ReferenceCLIP = build_reference_clip(clip_model.double())
        self.length = length
        fillers = " ".join([*["X"] * length, words]).strip()
        self.ids = tokenize([f"{fillers} {name.replace('_', ' ')}." for name in names])

    def text(self, prompts: Tensor) -> Tensor:
        rows = slice(1, 1 + self.length)
        x = self.clip.token_embedding(self.ids)
        if len(prompts):
            x[:, rows] = prompts[0]
        x = run_layers(self.clip.transformer, x + self.clip.positional_embedding, prompts, rows)
        x = self.clip.ln_final(x)[torch.arange(len(x)), self.ids.argmax(-1)]
        return functional.normalize(x @ self.clip.text_projection, dim=-1)

    def images(self, images: Tensor, prompts: Tensor) -> Tensor:
        visual = self.clip.visual
        x = visual.get_submodule("conv1")(images.double()).flatten(2).transpose(1, 2)
        cls = visual.get_parameter("class_embedding").expand(len(x), 1, -1)
        x = torch.cat([cls, x], dim=1) + visual.get_parameter("positional_embedding")
        rows = slice(x.shape[1], x.shape[1] + prompts.shape[1])
        if len(prompts):
            x = torch.cat([x, prompts[0].expand(len(x), -1, -1)], dim=1)
        x = visual.get_submodule("ln_pre")(x)
        x = run_layers(visual.get_submodule("transformer"), x, prompts, rows)
        x = visual.get_submodule("ln_post")(x[:, 0]) @ visual.get_parameter("proj")
        return functional.normalize(x, dim=-1)

    def logits(self, images: Tensor, text: Tensor, vision: Tensor) -> Tensor:
        scale = self.clip.logit_scale.exp()
        return scale * self.images(images, vision) @ self.text(text).T


def halved(prompts: Tensor, layers: Sequence[int], position: int, tau: float) -> Tensor:
    """The prompts with the vectors at a position of these layers multiplied by tau."""
    prompts = prompts.clone()
    for layer in layers:
        prompts[layer, position] *= tau
    return prompts


def norm_losses(
    prompts: Tensor,
    layers: Sequence[int],
    alpha: Tensor,
) -> Tensor:
    """(1 / M) sum_j alpha_j sum_l ||v_lj||, over the layers that count."""
    norms = vector_norms(prompts[list(layers)])
    return (alpha * norms).sum() / max(1, int((alpha != 0).sum()))


__all__ = ["PlainTowers", "better_positions", "halved", "norm_losses"]
