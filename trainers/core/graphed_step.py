"""The step of a batch as one CUDA graph, replayed without launching its operators one by one."""

import logging
from collections.abc import Callable
from dataclasses import fields

import torch
from torch import Tensor

from .batched_step import BatchedPrompts, Inputs

WARM_UPS = 3  # steps before the capture, in which libraries and the allocator prepare themselves
_log = logging.getLogger(__name__)


def can_capture(device: torch.device) -> bool:
    """Return whether a device has graphs."""
    return device.type == "cuda"


def capture(step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Capture a step, which is not executed.

    Returns:
        A function that executes it, and the tensor that then has its result.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()
    return graph.replay, result


class GraphedStep:
    """Executes the steps of a batch as a graph, or one operator after the other if it must.

    Args:
        prompts: the batch; the graph belongs to its tensors.
    """

    def __init__(self, prompts: BatchedPrompts) -> None:
        self.prompts = prompts
        self._possible = can_capture(prompts.device)
        self._inputs: Inputs | None = None  # the memory that the graph reads
        self._replay: Callable[[], None] | None = None
        self._numbers: Tensor | None = None

    @property
    def captured(self) -> bool:
        """Whether the steps are replayed."""
        return self._replay is not None

    def __call__(self, inputs: Inputs) -> Tensor:
        """Train on one batch of each run; see `BatchedPrompts.step`."""
        if self._possible and self._replay is None:
            self._prepare(inputs)
        if self._replay is None or self._inputs is None or self._numbers is None:
            return self.prompts.step(inputs)
        for name in (field.name for field in fields(Inputs)):
            getattr(self._inputs, name).copy_(getattr(inputs, name), non_blocking=True)
        self._replay()
        return self._numbers.clone()

    def _prepare(self, inputs: Inputs) -> None:
        """Capture the step; the prompts are afterwards what they were."""
        static = Inputs(**{f.name: getattr(inputs, f.name).clone() for f in fields(Inputs)})
        state = (self.prompts.ctx.detach(), self.prompts.momenta, self.prompts.selections)
        before = [tensor.clone() for tensor in state]
        try:
            for _ in range(WARM_UPS):
                self.prompts.step(static)
            self._replay, self._numbers = capture(lambda: self.prompts.step(static))
            self._inputs = static
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._possible = False
            _log.warning("The step cannot be captured as a graph (%s)", str(error).split("\n")[0])
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)
