"""Running averages of training metrics."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch

Scalar = float | int | torch.Tensor


class AverageMeter:
    """The last value and the running average of a metric.

    Values may be tensors of one element. They stay on their device until `val`, `avg` or `sum` is
    read, because every read makes the CPU wait for the accelerator.

    Attributes:
        count: number of samples: the sum of all `n`.
    """

    def __init__(self, ema: bool = False) -> None:
        """Create an empty meter; with `ema`, `avg` is 0.9 of the old average + 0.1 of the value."""
        self.ema = ema
        self.reset()

    def reset(self) -> None:
        """Remove all values."""
        self._val = self._avg = self._sum = 0.0
        self.count = 0
        self._pending: list[tuple[Scalar, int]] = []

    def update(self, val: Scalar, n: int = 1) -> None:
        """Add the mean value of `n` samples."""
        self._pending.append((val.detach() if isinstance(val, torch.Tensor) else val, n))

    def state(self) -> list[float]:
        """Return the state for `set_state` as plain numbers."""
        self._fold()
        return [self._val, self._avg, self._sum, self.count]

    def set_state(self, state: Sequence[float]) -> None:
        """Restore the `state` of a meter."""
        self.reset()
        self._val, self._avg, self._sum = state[:3]
        self.count = int(state[3])

    def _fold(self) -> None:
        pending, self._pending = self._pending, []
        for value, (_, n) in zip(_to_floats([v for v, _ in pending]), pending, strict=True):
            self._val = value
            self._sum += value * n
            self.count += n
            self._avg = 0.9 * self._avg + 0.1 * value if self.ema else self._sum / self.count

    @property
    def val(self) -> float:
        """The last value."""
        self._fold()
        return self._val

    @property
    def avg(self) -> float:
        """The average so far."""
        self._fold()
        return self._avg

    @property
    def sum(self) -> float:
        """The sum of value * n."""
        self._fold()
        return self._sum


def _to_floats(values: list[Scalar]) -> list[float]:
    """Convert numbers and one-element tensors with one device transfer."""
    tensors = [v for v in values if isinstance(v, torch.Tensor)]
    wide = torch.float32 if tensors and tensors[0].device.type == "mps" else torch.float64
    read = iter(torch.stack([t.reshape(()).to(wide) for t in tensors]).tolist() if tensors else [])
    return [next(read) if isinstance(v, torch.Tensor) else float(v) for v in values]


class MetricMeter:
    """A set of named `AverageMeter`s, printed as "loss 0.1234 (0.2345) acc 50.0000 (43.7500)"."""

    def __init__(self, delimiter: str = " ") -> None:
        self.meters: defaultdict[str, AverageMeter] = defaultdict(AverageMeter)
        self.delimiter = delimiter

    def update(self, input_dict: Mapping[str, Any] | None) -> None:
        """Add one value to each named meter.

        Raises:
            TypeError: not a mapping.
        """
        if input_dict is None:
            return
        if not isinstance(input_dict, Mapping):
            raise TypeError("MetricMeter.update() takes a dictionary of numbers or tensors")
        for name, value in input_dict.items():
            self.meters[name].update(value)

    def state(self) -> dict[str, list[float]]:
        """Return the state of every meter."""
        return {name: meter.state() for name, meter in self.meters.items()}

    def set_state(self, state: Mapping[str, Sequence[float]]) -> None:
        """Restore the `state` of a set of meters."""
        self.meters.clear()
        for name, values in state.items():
            self.meters[name].set_state(values)

    def averages(self) -> dict[str, float]:
        """Return the average of every meter."""
        return {name: meter.avg for name, meter in self.meters.items()}

    def __str__(self) -> str:
        return self.delimiter.join(
            f"{name} {meter.val:.4f} ({meter.avg:.4f})" for name, meter in self.meters.items()
        )
