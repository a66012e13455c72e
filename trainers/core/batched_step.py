"""One training step of R runs at once: their prompts are one tensor, their settings are tensors.

The runs share the classes, the frozen CLIP and the layout of the prompts, and train on cached image
features. A step is one pass of the text encoder for all prompts, one matching with each run's own
batch, R cross-entropies, PUN and PAN as masks, and SGD in closed form. It makes no decision on the
CPU and reads nothing, so that an accelerator is never waited for. The sum of the losses has each
prompt's own gradient, and no row of one prompt enters another's: a run that diverges spoils only
itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from ..nemesis import NORMS, NormPenalty, count_correct
from .frozen_encoder import autocast
from .prompted_clip import PromptedCLIP

# The numbers that a step returns for each run, in this order.
NUMBERS = ("loss", "ce", "pun", "pan", "norm", "acc", "gradients")


@dataclass(frozen=True)
class Settings:
    """What may differ between runs of a batch.

    Attributes:
        penalty: Nemesis' settings; None without norm losses.
        momentum: of SGD.
        weight_decay: of SGD.
    """

    penalty: NormPenalty | None
    momentum: float
    weight_decay: float

    @classmethod
    def of(cls, trainer: Any) -> "Settings":
        """Return those of a trainer's configuration."""
        optim = trainer.cfg.OPTIM
        return cls(trainer.norm_penalty, optim.MOMENTUM, optim.WEIGHT_DECAY)

    @property
    def p(self) -> float:
        """The order of the norm."""
        return NORMS[self.penalty.norm] if self.penalty else 2.0

    @property
    def drawn(self) -> int:
        """The number of positions that PAN draws per batch."""
        return self.penalty.n if self.penalty and self.penalty.beta < 1 else 0


@dataclass(frozen=True)
class Inputs:
    """What R runs train on in one step.

    Attributes:
        features: image features of each run's batch.
        labels: of these.
        positions: PAN's drawn positions of all runs, concatenated.
        rates: learning rates.
        factors: omega_E.
    """

    features: Float[Tensor, "runs batch *tokens embed"]
    labels: Int[Tensor, "runs batch"]
    positions: Int[Tensor, " drawn"]
    rates: Float[Tensor, " runs"]
    factors: Float[Tensor, " runs"]


class BatchedPrompts:
    """The prompts of R runs, their momenta, and the step that trains them.

    Args:
        model: a CLIP whose text encoder serves all runs.
        precision: of the frozen CLIP.
        settings: of each run, in order of `Settings.p`, so that runs with one norm are neighbours.
        shape: of one run's prompts, (*sets, L, D).

    Attributes:
        ctx: the prompts.
        momenta: of SGD; zero before the first step.
        selections: how often PAN selected each position.
    """

    def __init__(
        self,
        model: PromptedCLIP,
        precision: str,
        settings: Sequence[Settings],
        shape: Sequence[int],
    ) -> None:
        self.model, self.precision = model, precision
        self.device = model.prompt_learner.ctx.device
        runs, length = len(settings), shape[-2]
        self.ctx = torch.zeros(runs, *shape, device=self.device, requires_grad=True)
        self.momenta = torch.zeros_like(self.ctx, requires_grad=False)
        self.selections = torch.zeros(runs, length, device=self.device)
        sets = (1,) * (len(shape))
        self.momentum = self._column([s.momentum for s in settings]).view(-1, *sets)
        self.decay = self._column([s.weight_decay for s in settings]).view(-1, *sets)
        # Neighbours with one norm: (order, number of runs).
        self.norms = [(p, len(list(same))) for p, same in groupby(s.p for s in settings)]
        self.nemesis = any(s.penalty for s in settings)
        penalties = [s.penalty or NormPenalty(omega=0.0) for s in settings]
        self.omega = self._column([p.omega for p in penalties])
        self.beta = self._column([p.beta for p in penalties])
        self.counted = (self.omega != 0).float().unsqueeze(1)
        # Each drawn position is one corrupted prompt; without selection it is chosen untested.
        drawn = [run for run, s in enumerate(settings) for _ in range(s.drawn)]
        self.drawn_by = drawn
        self.tested = [index for index, run in enumerate(drawn) if penalties[run].select]
        self.run_of, self.all_tested = self._index(drawn), self._index(self.tested)
        self.tau = self._column([penalties[run].tau for run in drawn])
        self.given = self._column([float(not penalties[run].select) for run in drawn])

    def _index(self, values: Sequence[int]) -> Int[Tensor, " values"]:
        return torch.tensor(values, dtype=torch.long, device=self.device)

    @torch.no_grad()
    def load(self, trainers: Sequence[Any]) -> None:
        """Copy the prompts and momenta of the trainers."""
        self.selections.zero_()
        for trainer, ctx, momentum in zip(trainers, self.ctx, self.momenta, strict=True):
            parameter = trainer.model.prompt_learner.ctx
            ctx.copy_(parameter)
            found = trainer.optim.state[parameter].get("momentum_buffer")
            momentum.zero_() if found is None else momentum.copy_(found)

    @torch.no_grad()
    def store(self, trainers: Sequence[Any]) -> None:
        """Hand prompts, momenta and PAN's selections to the trainers."""
        for index, trainer in enumerate(trainers):
            parameter = trainer.model.prompt_learner.ctx
            parameter.copy_(self.ctx[index])
            if self.momentum[index]:
                trainer.optim.state[parameter]["momentum_buffer"] = self.momenta[index].clone()
            if self.nemesis and hasattr(trainer, "_selections"):
                trainer._selections += self.selections[index]
        self.selections.zero_()

    def _column(self, values: Sequence[float]) -> Float[Tensor, " values"]:
        return torch.tensor(values, dtype=torch.float32, device=self.device)

    def step(self, inputs: Inputs) -> Float[Tensor, "numbers runs"]:
        """Train on one batch of each run.

        Returns:
            The `NUMBERS` of each run, and its term if its CLIP has one; the norm is that before the
            step.
        """
        with autocast(self.precision, self.device):
            logits, term = self.model.training_outputs(inputs.features, self.ctx)  # (R, B, C)
            flat = functional.cross_entropy(
                logits.flatten(0, 1), inputs.labels.flatten(), reduction="none"
            )
            cross_entropy = flat.view(inputs.labels.shape).mean(1)
            correct = count_correct(logits.detach(), inputs.labels)
            pun, pan = self._penalties(inputs, correct)
            loss = cross_entropy
            if term is not None:
                loss = loss + self.model.term_weight * term
            if self.nemesis:
                loss = loss + inputs.factors * (self.beta * pun + (1 - self.beta) * pan)
        (gradient,) = torch.autograd.grad(loss.sum(), self.ctx)
        with torch.no_grad():
            norm = torch.linalg.vector_norm(self.ctx, dim=-1).flatten(1).mean(1)
            size = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
            self._update(gradient, inputs.rates)
            accuracy = correct * (100.0 / inputs.labels.shape[1])
            numbers = [loss, cross_entropy, pun, pan, norm, accuracy, size]
            numbers += [] if term is None else [term]
            return torch.stack([number.detach().float() for number in numbers])

    def _update(self, gradient: Tensor, rates: Float[Tensor, " runs"]) -> None:
        """Step SGD with momentum and weight decay, as torch.optim.SGD does, rounding included."""
        gradient = torch.addcmul(gradient, self.decay, self.ctx)
        self.momenta.mul_(self.momentum).add_(gradient)
        self.ctx.addcmul_(self.momenta, rates.view_as(self.momentum), value=-1)

    def _penalties(self, inputs: Inputs, correct: Int[Tensor, " runs"]) -> tuple[Tensor, Tensor]:
        """Return PUN's and PAN's loss of every run; see `trainers.nemesis.norm_loss`."""
        zeros = torch.zeros_like(self.omega)
        if not self.nemesis:
            return zeros, zeros
        norms = self.omega[:, None] * self._position_norms()
        if not len(self.run_of):
            return norms.mean(1), zeros
        chosen = self._chosen(inputs, correct)
        self.selections += chosen * self.counted
        return norms.mean(1), (chosen * norms).sum(1) / chosen.sum(1).clamp(min=1)

    def _position_norms(self) -> Float[Tensor, "runs length"]:
        """Return the norm at each position, summed over prompt sets."""
        parts = self.ctx.split([count for _, count in self.norms])
        found = [
            torch.linalg.vector_norm(part, ord=p, dim=-1).flatten(1, -2).sum(1)
            if part.dim() > 3
            else torch.linalg.vector_norm(part, ord=p, dim=-1)
            for part, (p, _) in zip(parts, self.norms, strict=True)
        ]
        return found[0] if len(found) == 1 else torch.cat(found)

    @torch.no_grad()
    def _chosen(
        self, inputs: Inputs, correct: Int[Tensor, " runs"]
    ) -> Float[Tensor, "runs length"]:
        """Return 1 where PAN selects a position, else 0."""
        better, tested = self.given, self._worth_testing(correct, inputs.labels.shape[1])
        if len(tested) == len(better):
            better = self._better(inputs, correct, self.run_of, inputs.positions, self.tau)
        elif tested:
            index = self.all_tested if tested is self.tested else self._index(tested)
            subset = (values[index] for values in (self.run_of, inputs.positions, self.tau))
            better = better.index_copy(0, index, self._better(inputs, correct, *subset))
        chosen = torch.zeros_like(self.selections)
        place = self.run_of * chosen.shape[1] + inputs.positions
        chosen.view(-1).scatter_(0, place, better)
        return chosen

    def _worth_testing(self, correct: Int[Tensor, " runs"], batch: int) -> list[int]:
        """Return the corrupted prompts to test; on a CPU not those of a run with all correct."""
        if self.device.type != "cpu":
            return self.tested
        found = correct.tolist()
        return [index for index in self.tested if found[self.drawn_by[index]] < batch]

    def _better(
        self,
        inputs: Inputs,
        correct: Int[Tensor, " runs"],
        run_of: Int[Tensor, " groups"],
        positions: Int[Tensor, " groups"],
        tau: Float[Tensor, " groups"],
    ) -> Float[Tensor, " groups"]:
        """Return 1 for corrupted prompts that classify more images of their run's batch, else 0."""
        factors = torch.ones(len(tau), self.ctx.shape[-2], device=self.device)
        factors.scatter_(1, positions.unsqueeze(1), tau.unsqueeze(1))
        sets = (1,) * (self.ctx.dim() - 3)
        corrupted = self.ctx[run_of] * factors.view(len(tau), *sets, -1, 1)
        text = self.model.text_features(corrupted)
        logits = self.model.match(inputs.features[run_of], text)
        return (count_correct(logits, inputs.labels[run_of]) > correct[run_of]).float()
