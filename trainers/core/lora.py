"""Low-rank adapters in the attention of a frozen CLIP: y = W x + b + gamma B A dropout(x).

LoRA (Hu et al., ICLR 2022) as CLIP-LoRA (Zanella and Ben Ayed, CVPR workshops 2024) places it: in
the projections q, k, v and o of chosen blocks of either tower. A is (r, width), B (width, r).
Adapters have keys TOWER.BLOCK.PROJECTION, such as "vision.0.q", with blocks counted from 0.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from clip.linear import Linear
from clip.model import CLIP
from clip.transformer import Attention, Transformer
from clip.vision_transformer import VisionTransformer

from .lora_settings import PROJECTIONS, TEXT, VISION, LoRASettings

Deltas = Mapping[str, Float[Tensor, "outgoing ingoing"]]  # gamma B A by key


def transformers(clip_model: CLIP) -> dict[str, Transformer]:
    """Return the transformer of each tower that has one; a ResNet has none."""
    visual = clip_model.visual
    own = {VISION: visual.transformer} if isinstance(visual, VisionTransformer) else {}
    return {**own, TEXT: clip_model.transformer}


def depths_of(clip_model: CLIP) -> dict[str, int]:
    """Return the number of blocks of each tower with attention blocks."""
    return {name: len(tower.blocks) for name, tower in transformers(clip_model).items()}


class Adapter(nn.Module):
    """gamma B A dropout(x) in fp32, A Kaiming-uniform and B zero at the start.

    Attributes:
        active: False skips the adapter, so that it gets no gradient (CoTo).
    """

    active = True

    def __init__(self, width: int, r: int, gamma: float, dropout: float) -> None:
        super().__init__()
        self.gamma, self.dropout = gamma, dropout
        bound = width**-0.5
        self.A = nn.Parameter(torch.empty(r, width).uniform_(-bound, bound))
        self.B = nn.Parameter(torch.zeros(width, r))

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Return the update of the projection of x, in the precision of x."""
        dropped = functional.dropout(x, self.dropout, self.training)
        inner = functional.linear(dropped.to(self.A.dtype), self.A)
        return functional.linear(self.gamma * inner, self.B).to(x.dtype)


class Adapters(nn.ModuleDict):
    """The adapters of a CLIP; the state dict has the keys TOWER.BLOCK.PROJECTION.A and .B."""

    def __init__(self, clip_model: CLIP, settings: LoRASettings) -> None:
        """Create the adapters on the CLIP's device, drawn on the CPU.

        Raises:
            UserError: a tower has no such layers.
        """
        super().__init__()
        towers, self.settings = transformers(clip_model), settings
        for key in settings.keys(depths_of(clip_model)):
            tower, block, name = key.split(".")
            blocks = self._child(self, tower)
            width = towers[tower].width
            adapter = Adapter(width, settings.r, settings.gamma, settings.dropout)
            self._child(blocks, block)[name] = adapter
        self.to(clip_model.logit_scale.device)
        self._by_key = {key: one for key, one in self.named_modules() if isinstance(one, Adapter)}

    @staticmethod
    def _child(parent: nn.ModuleDict, key: str) -> Any:
        """Return the child of this name, created if missing."""
        if key not in parent:
            parent[key] = nn.ModuleDict()
        return parent[key]

    def by_key(self) -> dict[str, Adapter]:
        """Return the adapters by key, vision blocks first."""
        return self._by_key

    def learns(self, tower: str) -> bool:
        """Return whether an adapter of the tower is active."""
        found = self._by_key.items()
        return any(one.active for key, one in found if key.startswith(f"{tower}."))

    def deltas(self) -> dict[str, Tensor]:
        """Return gamma B A by key, of active and inactive adapters."""
        return deltas_of(self.state_dict(), self.settings.gamma)


def deltas_of(state: Mapping[str, Tensor], gamma: float) -> dict[str, Tensor]:
    """Return gamma B A in fp32 by key, of a state dict of `Adapters`."""
    keys = [name.removesuffix(".A") for name in state if name.endswith(".A")]
    return {key: gamma * state[f"{key}.B"].float() @ state[f"{key}.A"].float() for key in keys}


class AdaptedLinear(Linear):
    """A frozen linear layer and its adapter."""

    def __init__(self, frozen: nn.Linear, adapter: Adapter) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = frozen.in_features, frozen.out_features
        self.weight, self.bias, self.adapter = frozen.weight, frozen.bias, adapter

    def forward(self, input: Float[Tensor, "*batch ingoing"]) -> Float[Tensor, "*batch outgoing"]:
        """Apply the layer."""
        base = super().forward(input)
        return base + self.adapter(input) if self.adapter.active else base


class AdaptedAttention(Attention):
    """Frozen self-attention with adapters."""

    def __init__(self, frozen: Attention, adapters: Mapping[str, Adapter]) -> None:
        nn.Module.__init__(self)
        self.heads = frozen.heads
        self.in_proj_weight, self.in_proj_bias = frozen.in_proj_weight, frozen.in_proj_bias
        has_output = "o" in adapters
        self.out_proj = (
            AdaptedLinear(frozen.out_proj, adapters["o"]) if has_output else frozen.out_proj
        )
        self._adapters = dict(adapters)  # not registered again

    def project(
        self, x: Float[Tensor, "*batch width"], part: slice = slice(None)
    ) -> Float[Tensor, "*batch outputs"]:
        """Return queries, keys and values, concatenated, or only the outputs in `part`."""
        joint, width = super().project(x, part), x.shape[-1]
        first, last, _ = part.indices(3 * width)
        adapters = [self._adapters.get(name) for name in "qkv"[first // width : last // width]]
        updates = [one(x) if one is not None and one.active else None for one in adapters]
        if all(update is None for update in updates):
            return joint
        nothing = torch.zeros_like(x)
        return joint + torch.cat([nothing if one is None else one for one in updates], dim=-1)


def _with_attention(
    clip_model: CLIP, keys: Sequence[str], make: Callable[[str, str, Attention], Attention]
) -> CLIP:
    """Return a CLIP of the same tensors whose attention in the blocks of `keys` is another.

    A tower without such blocks is the same module.
    """
    blocks = dict.fromkeys(key.rpartition(".")[0] for key in keys)
    shared = [*clip_model.parameters(), *clip_model.buffers()]
    if not any(block.startswith(f"{VISION}.") for block in blocks):
        shared.append(clip_model.visual)  # type: ignore[arg-type]
    copied = copy.deepcopy(clip_model, {id(one): one for one in shared})
    if copied.visual is not clip_model.visual:
        for name in ("forward", "forward_local"):  # compiled for the original (MODEL.COMPILE)
            vars(copied.visual).pop(name, None)
    towers = transformers(copied)
    for block in blocks:
        tower, number = block.split(".")
        one = towers[tower].blocks[int(number)]
        one.attn = make(tower, number, one.attn)
    return copied


def attach(clip_model: CLIP, adapters: Adapters) -> CLIP:
    """Return a CLIP of the same frozen tensors with the adapters in its attention."""
    found: Any = adapters

    def make(tower: str, block: str, attention: Attention) -> Attention:
        return AdaptedAttention(attention, dict(found[tower][block].items()))

    return _with_attention(clip_model, list(adapters.by_key()), make)


def merge(clip_model: CLIP, deltas: Deltas) -> CLIP:
    """Return a CLIP with W + delta as weights; all other tensors are shared."""
    return _with_attention(clip_model, list(deltas), partial(_merged, deltas))


def _merged(deltas: Deltas, tower: str, block: str, attention: Attention) -> Attention:
    width = attention.in_proj_weight.shape[1]
    with torch.no_grad():
        weights = [
            attention.in_proj_weight.float().clone(),
            attention.out_proj.weight.float().clone(),
        ]
        places = [*weights[0].split(width), weights[1]]
        for name, place in zip(PROJECTIONS, places, strict=True):
            delta = deltas.get(f"{tower}.{block}.{name}")
            if delta is not None:
                place += delta.to(place.device)
    for module, name, weight in zip(
        (attention, attention.out_proj), ("in_proj_weight", "weight"), weights, strict=True
    ):
        dtype = module.get_parameter(name).dtype
        setattr(module, name, nn.Parameter(weight.to(dtype), requires_grad=False))
    return attention
