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
    """Return the percentage of samples whose label is among the k largest logits, for each k.

    The output may also be a sequence that starts with the logits.

    Returns:
        For each k, a tensor of one element, in percent, on the device of the logits.
    """
    logits = output if isinstance(output, Tensor) else output[0]
    best = logits.topk(min(max(topk), logits.shape[1]), dim=1).indices
    hits = best == target.view(-1, 1)
    return [hits[:, :k].any(dim=1).float().mean().mul(100.0).view(1) for k in topk]
