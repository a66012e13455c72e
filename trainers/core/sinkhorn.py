"""Optimal transport plan between the features of an image and a class's prompts, by Sinkhorn.

Sinkhorn Distances: Lightspeed Computation of Optimal Transport (Cuturi, NeurIPS 2013), as PLOT uses
it. It computes in the log domain and in fp32, so that half-precision inputs neither overflow nor
divide by zero.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

CHECK_EVERY = 8  # iterations on an accelerator; a group that has stopped keeps its plan


@torch.no_grad()
def sinkhorn(
    cost: Float[Tensor, "groups *pairs tokens sets"],
    eps: float = 0.1,
    max_iter: int = 100,
    thresh: float = 0.01,
) -> Float[Tensor, "groups *pairs tokens sets"]:
    """Return optimal transport plans between uniform marginals, without gradient.

    Args:
        cost: of moving a token's mass (1/M) to a prompt set (1/P), for every image and class.
        eps: strength of the entropic regularisation; the kernel is exp(-cost / eps).
        max_iter: maximal number of iterations.
        thresh: a group stops when its row scalings change by less than this on average over all
            its pairs, which is PLOT's rule for a batch. Groups do not influence each other.

    Returns:
        The plans in fp32; their columns sum to 1/P.
    """
    log_kernel = -cost.float() / eps
    tokens, sets = cost.shape[-2:]
    log_row = log_kernel.new_zeros(*cost.shape[:-1])
    log_column = log_kernel.new_zeros(*cost.shape[:-2], sets)
    running = torch.ones(len(cost), dtype=torch.bool, device=cost.device)
    # Asking whether all groups have stopped stalls an accelerator, and a graph cannot do it.
    every = 1 if cost.device.type == "cpu" else CHECK_EVERY
    captured = cost.is_cuda and torch.cuda.is_current_stream_capturing()
    for iteration in range(1, max_iter + 1):
        row = -math.log(tokens) - (log_kernel + log_column.unsqueeze(-2)).logsumexp(-1)
        column = -math.log(sets) - (log_kernel + row.unsqueeze(-1)).logsumexp(-2)
        change = (row.exp() - log_row.exp()).abs().flatten(1).mean(1)
        shape = (-1, *(1,) * (row.dim() - 1))
        log_row = torch.where(running.view(shape), row, log_row)
        log_column = torch.where(running.view(shape), column, log_column)
        running = running & (change >= thresh)
        if not captured and iteration % every == 0 and not running.any().tolist():
            break
    return (log_row.unsqueeze(-1) + log_kernel + log_column.unsqueeze(-2)).exp()
