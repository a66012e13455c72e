"""Corruption operations of the Low-Norm Effect study, applied to one context vector at a time.

    REPLACE: v_j := r, r ~ N(0, sigma^2 I)        RESCALE: v_j := s * v_j

Nemesis (Fu et al., ICLR 2024), section 2. The paper calls 0, 0.001, 0.01, 0.1, 0.5 variances; its
released code and this repository use them as standard deviations.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from safeio.errors import UserError
from trainers.nemesis import rescale

REPLACE, RESCALE = "replace", "rescale"
STDS = (0.0, 0.001, 0.01, 0.1, 0.5)
FACTORS = (0.001, 0.01, 0.1, 0.5, 2.0)


@dataclass(frozen=True)
class Corruption:
    """Corruption of one context vector.

    Attributes:
        kind: `replace` or `rescale`.
        value: the noise's standard deviation, or the factor.
        position: j, from 0.
    """

    kind: str
    value: float
    position: int


@dataclass(frozen=True)
class CorruptionGrid:
    """The corruptions to test: every kind and value at every position.

    Attributes:
        replace: standard deviations of REPLACE.
        rescale: factors of RESCALE.
        positions: from 0; None for all.
        noise_seed: seed of REPLACE's noise, the same for every run.
    """

    replace: tuple[float, ...] = STDS
    rescale: tuple[float, ...] = FACTORS
    positions: tuple[int, ...] | None = None
    noise_seed: int = 0

    @property
    def settings(self) -> list[tuple[str, float]]:
        """The pairs (kind, value)."""
        return [(REPLACE, std) for std in self.replace] + [(RESCALE, s) for s in self.rescale]

    def corruptions(self, length: int) -> list[Corruption]:
        """Return all corruptions by position, so that groups of prompts share their prefix.

        Raises:
            UserError: a position is not below the length.
        """
        wanted = range(length) if self.positions is None else self.positions
        for position in wanted:
            if position >= length:
                raise UserError(
                    f"position {position} does not exist; the prompt has {length} vectors, "
                    f"0 to {length - 1}"
                )
        return [Corruption(kind, value, j) for j in wanted for kind, value in self.settings]


def check_values(flag: str, values: Sequence[float]) -> None:
    """Check standard deviations or factors.

    Raises:
        UserError: a value is negative, infinite or NaN.
    """
    for value in values:
        if not (value >= 0 and math.isfinite(value)):
            raise UserError(f"{flag} is {value:g}, but must be a finite number from 0 on")


def unit_noise(seed: int, length: int, width: int) -> Float[Tensor, "length width"]:
    """Draw a standard normal vector per position, the same on every device and for every sigma."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(length, width, generator=generator)


def replace(
    ctx: Float[Tensor, "*sets length width"],
    positions: Int[Tensor, " drawn"],
    vectors: Float[Tensor, "drawn width"],
) -> Float[Tensor, "drawn *sets length width"]:
    """Return one copy of the prompts per position, with its vector there in every prompt set."""
    copies = ctx.repeat(len(positions), *(1,) * ctx.dim())
    for copy, position, vector in zip(copies, positions.tolist(), vectors, strict=True):
        copy[..., position, :] = vector
    return copies


def corrupt(
    ctx: Float[Tensor, "*sets length width"],
    corruptions: Sequence[Corruption],
    noise: Float[Tensor, "length width"],
) -> Float[Tensor, "groups *sets length width"]:
    """Return one corrupted copy of the prompts per corruption.

    Args:
        ctx: the learned prompts.
        corruptions: G of them.
        noise: from `unit_noise`; REPLACE multiplies it by its standard deviation.
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
