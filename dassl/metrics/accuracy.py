"""Top-k accuracy."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor


def compute_accuracy(
    output: Float[Tensor, "batch classes"] | Sequence[Any],
    target: Int[Tensor, "batch"],
    topk: Sequence[int] = (1,),
) -> list[Float[Tensor, "1"]]:
    """Percentage of samples whose label is among the k largest outputs, for each k.

    Args:
        output: scores; of several tensors, the first is taken.
        target: labels.
        topk: the values of k.

    Returns:
        One tensor of one element, in percent, for each k; left on the device.
    """
    scores = output if isinstance(output, Tensor) else output[0]
    best = scores.topk(min(max(topk), scores.shape[1]), dim=1).indices
    hits = best == target.view(-1, 1)
    return [hits[:, :k].any(dim=1).float().mean().mul(100.0).view(1) for k in topk]
