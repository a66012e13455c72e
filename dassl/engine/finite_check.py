"""Stop on NaN or Inf in loss, gradients or parameters before a checkpoint is written."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from safeio.files import PathLike
from safeio.untrusted import printable

from .resume_checkpoint import written_checkpoints

MAX_UNCHECKED = 200
# A gradient scaler starts at 65536 and halves its scale with every step that it skips.
MIN_SCALE = 2.0**-30


class Step(NamedTuple):
    """A training step: its epoch and batch, from 0, and its image files, if known."""

    epoch: int
    batch: int
    files: Sequence[str] = ()


def _are_finite(numbers: Sequence[Tensor]) -> list[bool]:
    """Return whether each tensor is finite; those of an accelerator are read at once."""
    if all(number.device.type == "cpu" for number in numbers):
        return [all(map(math.isfinite, number.flatten().tolist())) for number in numbers]
    return torch.stack([torch.isfinite(number).all() for number in numbers]).tolist()


class FiniteCheck:
    """Raises FloatingPointError if a loss, a gradient or a parameter is NaN or infinite.

    Numbers on the CPU are checked immediately. Reading a number from an accelerator stalls its
    queue, so these are collected and checked at once, at the latest before a checkpoint. The error
    names the step, its images and the last checkpoint.

    Args:
        models: name -> module, whose parameters `check_all` checks.

    Attributes:
        directory: the run's folder, for the error message; may be "".
    """

    def __init__(self, models: Mapping[str, nn.Module]) -> None:
        self.models = models
        self.directory: PathLike = ""
        self._unchecked: list[tuple[str, Tensor, Step]] = []

    def add(self, name: str, number: Tensor, step: Step) -> None:
        """Add a detached number; the error message calls it `name`."""
        self._unchecked.append((name, number, step))
        if number.device.type == "cpu" or len(self._unchecked) >= MAX_UNCHECKED:
            self.check()

    def add_gradients(self, optimizers: Iterable[Any], step: Step) -> None:
        """Add the norm of the gradients of all parameters of the optimisers."""
        gradients = [
            parameter.grad.detach().to(torch.promote_types(parameter.grad.dtype, torch.float32))
            for optimizer in optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None and not parameter.grad.is_sparse
        ]
        if gradients:
            self.add("norm of the gradients", nn.utils.get_total_norm(gradients), step)

    def check(self) -> None:
        """Check all collected numbers."""
        unchecked, self._unchecked = self._unchecked, []
        if not unchecked:
            return
        finite = _are_finite([number for _, number, _ in unchecked])
        for good, (name, number, step) in zip(finite, unchecked, strict=True):
            if not good:
                for path in step.files:
                    print(f"In the batch: {printable(path)}")
                files = f" on {', '.join(step.files[:3])}" if step.files else ""
                more = " and others" if len(step.files) > 3 else ""
                place = f"epoch {step.epoch + 1}, batch {step.batch + 1}{files}{more}"
                self._stop(f"The {name} is {number.flatten()[0].item()} in {place}")

    def check_all(self, epoch: int, scaler: Any = None) -> None:
        """Check the collected numbers, the trainable parameters and the gradient scaler's scale."""
        self.check()
        if scaler is not None and scaler.is_enabled() and scaler.get_scale() < MIN_SCALE:
            self._stop(f"The gradient is nan in epoch {epoch + 1}, at every scale")
        for name, model in self.models.items():
            for key, value in model.named_parameters():
                if value.requires_grad and not torch.isfinite(value).all():
                    self._stop(f"{name}.{key} contains NaN or Inf after epoch {epoch + 1}")

    def _stop(self, problem: str) -> None:
        paths = " and ".join(map(str, written_checkpoints(self.directory, self.models)))
        last = f"the last good checkpoint is {paths}" if paths else "no checkpoint was written yet"
        raise FloatingPointError(
            f"{problem}: the training has diverged; a smaller OPTIM.LR may help; {last}"
        )
