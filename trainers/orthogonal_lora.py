"""Low-rank adapters whose A is orthogonal to those of earlier tasks; a baseline for `continual`.

CLIP-LoRA's loss and settings. The rows of A are orthonormal, drawn at random in the complement of
the rows of the past adapters of the same layer, and stay fixed; only B learns:

    W + gamma B A,   A A^T = I,   A A_past^T = 0.

The past adapters are merged into the backbone. This is no published method.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from dassl.config import declare_config
from dassl.engine import TRAINER_REGISTRY
from safeio.errors import UserError

from .clip_lora import CLIPLoRA
from .core.prompt_file import read_tensors

# Files adapters.safetensors of the earlier tasks' runs.
declare_config("TRAINER.ORTHOGONALLORA", {"PAST": []})


def orthonormal_rows(
    past: Float[Tensor, "earlier width"], count: int
) -> Float[Tensor, "{count} width"]:
    """Draw orthonormal rows in the complement of the rows of `past`, in fp32.

    Raises:
        UserError: the complement is too small.
    """
    width = past.shape[1]
    basis, _ = torch.linalg.qr(past.double().T)
    if basis.shape[1] + count > width:
        raise UserError(
            f"The past adapters leave {width - basis.shape[1]} of {width} dimensions, too few for "
            f"rank {count}; choose a lower TRAINER.CLIPLORA.R or fewer tasks"
        )
    drawn = torch.randn(width, count, dtype=torch.float64)
    for _ in range(2):  # the second pass removes the first one's rounding errors
        drawn = torch.linalg.qr(drawn - basis @ (basis.T @ drawn))[0]
    return drawn.T.float()


@TRAINER_REGISTRY.register()
class OrthogonalLoRA(CLIPLoRA):
    """Adapters of which B learns; A is fixed and orthogonal to the A of earlier tasks."""

    paper = "none; a baseline of continual learning"
    prompts = "B of low-rank adapters; the template is fixed"

    def build_model(self) -> None:
        """Build CLIP-LoRA's model, then draw and fix A."""
        super().build_model()
        files = [Path(file) for file in self.cfg.TRAINER.ORTHOGONALLORA.PAST]
        past = [read_tensors(file)[0] for file in files]
        for key, adapter in self.adapters.by_key().items():
            known = [state[f"{key}.A"] for state in past if f"{key}.A" in state]
            rows = torch.cat([adapter.A.new_empty(0, adapter.A.shape[1]).cpu(), *known])
            adapter.A.requires_grad_(False).copy_(orthonormal_rows(rows, len(adapter.A)))
