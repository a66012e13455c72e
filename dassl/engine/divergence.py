"""Noticing that a training has diverged, before anything of it is kept."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from safeio.untrusted import printable

from ..utils import find_checkpoint
from .run_files import RESUME

Names = str | Sequence[str] | None
MOST_UNCHECKED = 200
# A gradient scaler begins with 65536 and halves it with every step that it leaves out.
LEAST_SCALE = 2.0**-30


@dataclass(frozen=True)
class _Unchecked:
    """A number that must be finite, of what, in which batch, and that batch's images."""

    what: str
    number: Tensor
    batch: int
    files: Sequence[str]


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The L2 norm of all tensors together, computed in single precision at least: ()."""
    device = tensors[0].device
    norms = [
        torch.linalg.vector_norm(tensor, dtype=torch.promote_types(tensor.dtype, torch.float32))
        for tensor in tensors
    ]
    return torch.linalg.vector_norm(torch.stack([norm.to(device) for norm in norms]))


class DivergenceWatch:
    """Checks losses, gradients and what was learned of the models that a trainer keeps.

    Attributes:
        epoch: the present epoch, from 0.
        batch_idx: the present batch, from 0, where the subclass counts it.
        batch_files: the present batch's images, where the subclass knows them.
    """

    epoch = 0
    batch_idx = 0
    batch_files: Sequence[str] = ()

    def __init__(self) -> None:
        self._models: OrderedDict[str, Any] = OrderedDict()
        self._optims: OrderedDict[str, Any] = OrderedDict()
        self._unchecked: list[_Unchecked] = []

    def get_model_names(self, names: Names = None) -> list[str]:
        """See `ModelKeeper`."""
        raise NotImplementedError

    def detect_anomaly(self, loss: Tensor) -> None:
        """Stop when a loss is infinite or not a number.

        On the CPU at once; on an accelerator reading a number stalls the queue, so losses are
        collected and checked together, at the latest before the epoch's checkpoint.

        Raises:
            FloatingPointError: says in which step, on which images, and what to go back to.
        """
        self._collect("loss", loss.detach())

    def detect_bad_gradients(self, names: Names = None) -> None:
        """Stop when a gradient is infinite or not a number; as `detect_anomaly`, by their norm.

        Under a gradient scaler that is no fault of the training: the scaler leaves the step out
        and scales less from then on. Then it is one when no scale is small enough.

        Raises:
            FloatingPointError: see `detect_anomaly`.
        """
        scaler = getattr(self, "scaler", None)
        if scaler is not None and scaler.is_enabled():
            return
        gradients = [
            parameter.grad.detach()
            for name in self.get_model_names(names)
            if self._optims[name] is not None
            for group in self._optims[name].param_groups
            for parameter in group["params"]
            if parameter.grad is not None and not parameter.grad.is_sparse
        ]
        if gradients:
            self._collect("norm of the gradients", total_norm(gradients))

    def _collect(self, what: str, number: Tensor) -> None:
        self._unchecked.append(_Unchecked(what, number, self.batch_idx, self.batch_files))
        if number.device.type == "cpu" or len(self._unchecked) >= MOST_UNCHECKED:
            self.check_losses()

    def check_losses(self) -> None:
        """Check all losses and gradients that were collected.

        Raises:
            FloatingPointError: see `detect_anomaly`.
        """
        unchecked, self._unchecked = self._unchecked, []
        if unchecked:
            finite = torch.stack([torch.isfinite(one.number).all() for one in unchecked]).tolist()
            for one, good in zip(unchecked, finite, strict=True):
                if not good:
                    raise self._diverged(one)
        scaler = getattr(self, "scaler", None)
        if scaler is not None and scaler.is_enabled() and scaler.get_scale() < LEAST_SCALE:
            what = _Unchecked("gradient", torch.tensor(math.nan), self.batch_idx, self.batch_files)
            raise self._diverged(what)

    def _diverged(self, one: "_Unchecked") -> FloatingPointError:
        """The error that says where; the batch's images are printed, for the log."""
        for path in one.files:
            print(f"In the batch: {printable(path)}")
        files = f" on {', '.join(one.files[:3])}{' and others' * (len(one.files) > 3)}"
        return FloatingPointError(
            f"The {one.what} is {one.number.flatten()[0].item()} in epoch {self.epoch + 1}, batch "
            f"{one.batch + 1}{files * bool(one.files)}: the training has diverged; a smaller "
            f"OPTIM.LR may help; {self._last_good()}"
        )

    def _last_good(self) -> str:
        directory = getattr(self, "output_dir", None)
        found = [find_checkpoint(Path(directory or "") / name) for name in self._models]
        found.append(Path(directory or "") / RESUME)
        paths = [str(path) for path in found if path is not None and path.is_file()]
        if directory is None or not paths:
            return "no checkpoint was written before"
        return f"the last good checkpoint is {' and '.join(paths)}"

    def check_learned(self) -> None:
        """Make sure that what learns is worth keeping.

        Raises:
            FloatingPointError: a learned number is infinite or none, whatever the trainer checks.
        """
        for name, model in self._models.items():
            for key, parameter in model.named_parameters():
                if parameter.requires_grad and not torch.isfinite(parameter).all():
                    raise FloatingPointError(
                        f"{name}.{key} holds numbers that are not finite after epoch "
                        f"{self.epoch + 1}: the training has diverged; a smaller OPTIM.LR may "
                        f"help; {self._last_good()}"
                    )
