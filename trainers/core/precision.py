"""The precisions that a frozen CLIP computes in (PREC)."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from safeio.errors import UserError

PRECISIONS = {
    "fp32": torch.float32,
    "amp": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse a precision that does not exist or that the device cannot compute in.

    Raises:
        UserError: unknown precision, or fp16 on a CPU.
    """
    if precision not in PRECISIONS:
        raise UserError(f"PREC is {precision!r}, but must be one of {', '.join(PRECISIONS)}.")
    if precision == "fp16" and device.type == "cpu":
        raise UserError("PREC fp16 needs a GPU; on a CPU choose fp32, bf16 or amp.")


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Autocast for `amp` (fp16 on CUDA, bf16 elsewhere), nothing for the other precisions."""
    if precision != "amp":
        return nullcontext()
    dtype = torch.float16 if device.type == "cuda" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype)
