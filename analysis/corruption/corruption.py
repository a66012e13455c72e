"""Corruption of learned prompts, one vector at a time: the Low-Norm Effect study.

    REPLACE: v_j := r, r ~ N(0, sigma^2 I)        RESCALE: v_j := s * v_j

Nemesis (Fu et al., ICLR 2024), section 2. The paper lists sigma as 0, 0.001, 0.01, 0.1, 0.5 and
calls them variances; its released code takes them for standard deviations, and so do we.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from trainers.nemesis import rescale

REPLACE, RESCALE = "replace", "rescale"


@dataclass(frozen=True)
class Corruption:
    """One vector's change.

    Attributes:
        kind: `replace` or `rescale`.
        value: the noise's standard deviation, or the factor.
        position: j, from 0.
    """

    kind: str
    value: float
    position: int


def unit_noise(seed: int, length: int, width: int) -> Float[Tensor, "length width"]:
    """A standard normal vector for each position; the same on every device and for every sigma."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(length, width, generator=generator)


def replace(
    ctx: Float[Tensor, "*sets length width"],
    positions: Int[Tensor, " drawn"],
    vectors: Float[Tensor, "drawn width"],
) -> Float[Tensor, "drawn *sets length width"]:
    """One copy of the prompts per position, with the given vector there in every prompt set."""
    copies = ctx.repeat(len(positions), *(1,) * ctx.dim())
    for copy, position, vector in zip(copies, positions.tolist(), vectors, strict=True):
        copy[..., position, :] = vector
    return copies


def corrupt(
    ctx: Float[Tensor, "*sets length width"],
    corruptions: Sequence[Corruption],
    noise: Float[Tensor, "length width"],
) -> Float[Tensor, "groups *sets length width"]:
    """One copy of the prompts per corruption.

    Args:
        ctx: the learned prompts.
        corruptions: G of them.
        noise: of `unit_noise`; REPLACE multiplies it by its standard deviation.
    """
    copies = []
    for corruption in corruptions:
        position = torch.tensor([corruption.position], device=ctx.device)
        if corruption.kind == RESCALE:
            copies.append(rescale(ctx, position, corruption.value))
        else:
            drawn = (corruption.value * noise[corruption.position]).to(ctx)
            copies.append(replace(ctx, position, drawn.unsqueeze(0)))
    return torch.cat(copies)
