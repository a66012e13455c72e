"""Nemesis: Normalizing the Soft-prompt Vectors of Vision-Language Models (Fu et al., ICLR 2024).

Low-Norm Effect: reducing the norms of context vectors can raise accuracy. Two norm losses use it:

    L = CE + omega_E * (beta * PUN + (1 - beta) * PAN),
    norm loss(alpha) = (1/M) sum_j alpha_j ||v_j||_p,   M = number of non-zero alpha_j.

Position-uniform normalization (PUN) sets alpha_j = omega at every position. Position-aware
normalization (PAN) draws N positions; a pre-inference without gradient rescales v_j there by tau,
and alpha_j = omega where these corrupted prompts classify more images of the batch correctly.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dassl.config import declare_config
from dassl.utils import get_most_similar_str_to_a_from_b
from safeio.errors import UserError

NORMS = {"one": 1.0, "two": 2.0, "inf": math.inf}
SCHEDULES = ("logistic", "constant")
LAYERS = ("all", "scale_bearing")
STEEPNESS = 0.2  # k of the logistic schedule

declare_config(
    "TRAINER.NEMESIS",
    {
        "OMEGA": 1.0,  # weight of the norm losses
        "TAU": 0.5,  # PAN: factor of the vectors at drawn positions in the pre-inference
        "N": 1,  # PAN: number of positions drawn per batch
        "BETA": 1.0,  # 1: PUN, 0: PAN, in between: both
        "NORM": "two",  # one, two, inf
        "SCHEDULE": "logistic",  # of omega_E: logistic decreases over the epochs, constant is 1
        "SELECT": True,  # PAN: False selects every drawn position, without pre-inference
        # Prompts of several layers: all, or those whose norms affect the logits (scale_bearing).
        "LAYERS": "all",
    },
)


def omega_schedule(epoch: int, max_epoch: int, kind: str = "logistic") -> float:
    """Return omega_E, the factor of the norm losses in epoch E (from 0). Nemesis, section 3.3."""
    if kind == "constant":
        return 1.0
    return 1 - 1 / (1 + math.exp(-STEEPNESS * (epoch - max_epoch / 2)))


def vector_norms(
    ctx: Float[Tensor, "*sets length width"], p: float = 2.0
) -> Float[Tensor, " length"]:
    """Return the norm of the vectors at each position, summed over all prompt sets."""
    norms = torch.linalg.vector_norm(ctx, ord=p, dim=-1)
    return norms.flatten(0, -2).sum(0) if norms.dim() > 1 else norms


def position_norms(ctx: Float[Tensor, "*sets length width"]) -> Float[Tensor, " length"]:
    """Return each position's norm, averaged over classes (CSC) and PLOT's prompt sets."""
    return vector_norms(ctx.detach()) / math.prod(ctx.shape[:-2])


def norm_loss(
    ctx: Float[Tensor, "*sets length width"],
    alpha: Float[Tensor, " length"],
    p: float = 2.0,
) -> Float[Tensor, ""]:
    """Return the weighted mean norm of the context vectors: (1/M) sum_j alpha_j ||v_j||_p.

    M is the number of non-zero alpha_j; if all are 0, the loss is 0. The norms of several prompt
    sets (class-specific contexts, PLOT) are summed. Nemesis, eq. 3 and 4.
    """
    count = alpha.count_nonzero().clamp(min=1)
    return (alpha * vector_norms(ctx, p)).sum() / count


def rescale(
    ctx: Float[Tensor, "*sets length width"], positions: Int[Tensor, " drawn"], tau: float
) -> Float[Tensor, "drawn *sets length width"]:
    """Return one copy of the prompts per position, with the vectors there multiplied by tau."""
    factors = torch.ones(len(positions), ctx.shape[-2], device=ctx.device, dtype=ctx.dtype)
    factors.scatter_(1, positions.unsqueeze(1), tau)
    sets = (1,) * (ctx.dim() - 2)
    return ctx * factors.view(len(positions), *sets, -1, 1)


def count_correct(
    logits: Float[Tensor, "*groups batch classes"], labels: Int[Tensor, "*own batch"]
) -> Int[Tensor, "*groups"]:
    """Return the number of images that each group of prompts classifies correctly."""
    return (logits.argmax(dim=-1) == labels).sum(dim=-1)


@dataclass(frozen=True)
class NormPenalty:
    """Settings of TRAINER.NEMESIS and the weights alpha of both norm losses."""

    omega: float = 1.0
    tau: float = 0.5
    n: int = 1
    beta: float = 1.0
    norm: str = "two"
    schedule: str = "logistic"
    select: bool = True
    layers: str = "all"

    @classmethod
    def from_config(cls, node: Any) -> "NormPenalty":
        """Read and check cfg.TRAINER.NEMESIS.

        Raises:
            UserError: see `check`.
        """
        penalty = cls(**{key.lower(): value for key, value in node.items()})
        penalty.check()
        return penalty

    def check(self) -> None:
        """Raise an error for values that Nemesis does not define.

        Raises:
            UserError: an unknown name or a number out of range.
        """
        for key, name, known in (
            ("NORM", self.norm, tuple(NORMS)),
            ("SCHEDULE", self.schedule, SCHEDULES),
            ("LAYERS", self.layers, LAYERS),
        ):
            if name not in known:
                nearest = get_most_similar_str_to_a_from_b(name, known)
                raise UserError(
                    f"TRAINER.NEMESIS.{key} is {name!r}, but must be one of "
                    f"{', '.join(known)}; did you mean {nearest!r}?"
                )
        bounds = {
            "OMEGA": (self.omega, self.omega >= 0 and math.isfinite(self.omega), "at least 0"),
            "TAU": (self.tau, 0 < self.tau < 1, "between 0 and 1"),
            "N": (self.n, self.n >= 1, "at least 1"),
            "BETA": (self.beta, 0 <= self.beta <= 1, "from 0 to 1"),
        }
        for key, (value, valid, accepted) in bounds.items():
            if not valid:
                raise UserError(f"TRAINER.NEMESIS.{key} is {value}, but must be {accepted}.")

    def check_length(self, length: int) -> None:
        """Raise an error if N exceeds the number of context vectors.

        Raises:
            UserError: N exceeds it.
        """
        if self.n > length:
            raise UserError(
                f"TRAINER.NEMESIS.N is {self.n}, but the prompt has only {length} vectors."
            )

    def uniform(self, length: int, device: torch.device) -> Float[Tensor, " length"]:
        """Return PUN's alpha: omega at every position."""
        return torch.full((length,), self.omega, device=device)

    def aware(
        self,
        ctx: Float[Tensor, "*sets length width"],
        positions: Int[Tensor, " drawn"],
        labels: Int[Tensor, " batch"],
        logits: Float[Tensor, "batch classes"],
        evaluate: Callable[[Tensor], Tensor],
    ) -> Float[Tensor, " length"]:
        """Return PAN's alpha: omega at drawn positions where rescaling v_j raises the accuracy.

        On a CPU, PAN skips its pre-inference if the batch is already classified correctly.

        Args:
            ctx: the context vectors.
            positions: the drawn positions.
            labels: of the batch.
            logits: of the batch under `ctx`, from the training step.
            evaluate: maps groups of prompts (N, *sets, L, D) to logits (N, B, C) on the batch.
        """
        alpha = torch.zeros(ctx.shape[-2], device=ctx.device)
        if not self.select:
            return alpha.scatter_(0, positions, self.omega)
        with torch.no_grad():
            correct = count_correct(logits, labels)
            if correct.device.type == "cpu" and correct.tolist() == len(labels):
                return alpha  # nothing can be better; reading it would stall an accelerator
            corrupted = evaluate(rescale(ctx.detach(), positions, self.tau))
            better = count_correct(corrupted, labels) > correct
        return alpha.scatter_(0, positions, better * self.omega)
