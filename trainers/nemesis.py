"""Nemesis: Normalizing the Soft-prompt Vectors of Vision-Language Models (Fu et al., ICLR 2024).

Soft prompts tend to grow norms that cost accuracy. Two penalties shrink them:

    L = CE + omega_E * (beta * PUN + (1 - beta) * PAN),
    norm loss(alpha) = (1/M) sum_j alpha_j ||v_j||_p,   M = number of non-zero alpha_j.

PUN (position-uniform) takes alpha_j = omega everywhere. PAN (position-aware) takes alpha_j = omega
at those of N drawn positions where the prompts with v_j rescaled by tau classify more images of
the batch correctly than the prompts as they are; a pre-inference without gradient finds out.
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
STEEPNESS = 0.2  # k of the logistic schedule

declare_config(
    "TRAINER.NEMESIS",
    {
        "OMEGA": 1.0,  # weight of the norm losses
        "TAU": 0.5,  # PAN: a drawn vector is rescaled by it
        "N": 1,  # PAN: how many positions are drawn for each batch
        "BETA": 1.0,  # 1: PUN, 0: PAN, in between: both
        "NORM": "two",  # one, two, inf
        "SCHEDULE": "logistic",  # logistic falls over the epochs, constant stays 1
        "SELECT": True,  # PAN: False takes every drawn position, without pre-inference
    },
)


def omega_schedule(epoch: int, max_epoch: int, kind: str = "logistic") -> float:
    """omega_E, the factor of the norm losses in epoch E (from 0). Nemesis, section 3.3."""
    if kind == "constant":
        return 1.0
    return 1 - 1 / (1 + math.exp(-STEEPNESS * (epoch - max_epoch / 2)))


def vector_norms(
    ctx: Float[Tensor, "*sets length width"], p: float = 2.0
) -> Float[Tensor, " length"]:
    """The norms of the vectors at each position, summed over all prompt sets."""
    norms = torch.linalg.vector_norm(ctx, ord=p, dim=-1)
    return norms.flatten(0, -2).sum(0) if norms.dim() > 1 else norms


def norm_loss(
    ctx: Float[Tensor, "*sets length width"],
    alpha: Float[Tensor, " length"],
    p: float = 2.0,
) -> Float[Tensor, ""]:
    """Weighted mean of the prompt vectors' norms: (1/M) sum_j alpha_j ||v_j||_p.

    M counts the non-zero alpha_j; without any, the loss is 0. Norms of several prompt sets
    (class-specific contexts, PLOT) are summed. Nemesis, eq. 3 and 4.
    """
    count = alpha.count_nonzero().clamp(min=1)
    return (alpha * vector_norms(ctx, p)).sum() / count


def rescale(
    ctx: Float[Tensor, "*sets length width"], positions: Int[Tensor, " drawn"], tau: float
) -> Float[Tensor, "drawn *sets length width"]:
    """One copy of the prompts per position, with the vectors there multiplied by tau."""
    factors = torch.ones(len(positions), ctx.shape[-2], device=ctx.device, dtype=ctx.dtype)
    factors[torch.arange(len(positions), device=ctx.device), positions] = tau
    sets = (1,) * (ctx.dim() - 2)
    return ctx * factors.view(len(positions), *sets, -1, 1)


def count_correct(
    logits: Float[Tensor, "*groups batch classes"], labels: Int[Tensor, " batch"]
) -> Int[Tensor, "*groups"]:
    """How many images of the batch each group of prompts classifies correctly."""
    return (logits.argmax(dim=-1) == labels).sum(dim=-1)


@dataclass(frozen=True)
class NormPenalty:
    """Both norm losses with their settings; the names are those of TRAINER.NEMESIS."""

    omega: float = 1.0
    tau: float = 0.5
    n: int = 1
    beta: float = 1.0
    norm: str = "two"
    schedule: str = "logistic"
    select: bool = True

    @classmethod
    def from_config(cls, node: Any) -> "NormPenalty":
        """Read and check cfg.TRAINER.NEMESIS.

        Raises:
            UserError: a value that the method does not define.
        """
        penalty = cls(**{key.lower(): value for key, value in node.items()})
        penalty.check()
        return penalty

    def check(self) -> None:
        """Refuse values that the method does not define.

        Raises:
            UserError: names the key, the value and what is accepted.
        """
        for key, name, known in (
            ("NORM", self.norm, tuple(NORMS)),
            ("SCHEDULE", self.schedule, SCHEDULES),
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
        """Refuse to draw more positions than there are.

        Raises:
            UserError: N is larger than the number of context vectors.
        """
        if self.n > length:
            raise UserError(
                f"TRAINER.NEMESIS.N is {self.n}, but the prompt has only {length} vectors."
            )

    def uniform(self, length: int, device: torch.device) -> Float[Tensor, " length"]:
        """PUN's alpha: omega everywhere."""
        return torch.full((length,), self.omega, device=device)

    def aware(
        self,
        ctx: Float[Tensor, "*sets length width"],
        positions: Int[Tensor, " drawn"],
        labels: Int[Tensor, " batch"],
        logits: Float[Tensor, "batch classes"],
        evaluate: Callable[[Tensor], Tensor],
    ) -> Float[Tensor, " length"]:
        """PAN's alpha: omega at the drawn positions where rescaled prompts beat those as they are.

        Args:
            ctx: the prompts.
            positions: the drawn positions.
            labels: of the batch.
            logits: of the batch under the prompts as they are, from the training step.
            evaluate: from groups of prompts (N, *sets, L, D) to logits (N, B, C) on the batch.
        """
        alpha = torch.zeros(ctx.shape[-2], device=ctx.device)
        if not self.select:
            alpha[positions] = self.omega
            return alpha
        with torch.no_grad():
            correct = count_correct(logits, labels)
            if correct == len(labels):
                return alpha  # no prompt can classify more
            corrupted = evaluate(rescale(ctx.detach(), positions, self.tau))
            better = count_correct(corrupted, labels) > correct
        alpha[positions] = better.to(alpha.dtype) * self.omega
        return alpha
