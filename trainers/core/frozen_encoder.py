"""Frozen encoders: their precision, preparation for inference, and features without gradient."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from clip.resnet import ModifiedResNet
from clip.vision_transformer import VisionTransformer
from safeio.errors import UserError

# The dtype of the frozen weights for each value of PREC.
PRECISIONS = {
    "fp32": torch.float32,
    "amp": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
# The activations of larger batches exceed a CPU's caches: 16 images of 224 x 224 per call are a
# little faster than 32, and 8 are slower.
PIXELS_PER_CALL = 16 * 224 * 224


def check_precision(precision: str, device: torch.device) -> None:
    """Raise an error for a precision that does not exist or that the device does not support.

    Raises:
        UserError: unknown precision, or fp16 on a CPU.
    """
    if precision not in PRECISIONS:
        raise UserError(f"PREC is {precision!r}, but must be one of {', '.join(PRECISIONS)}.")
    if precision == "fp16" and device.type == "cpu":
        raise UserError("PREC fp16 needs a GPU; on a CPU choose fp32, bf16 or amp.")


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return autocast for `amp` (fp16 on CUDA, else bf16), a null context for other precisions."""
    if precision != "amp":
        return nullcontext()
    dtype = torch.float16 if device.type == "cuda" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype)


def freeze(model: nn.Module) -> None:
    """Freeze every parameter and the statistics of normalisation layers."""
    model.requires_grad_(False)
    model.eval()


def speed_up(encoder: ModifiedResNet | VisionTransformer, compile_it: bool = False) -> None:
    """Prepare a frozen image encoder for inference, in place; its features do not change.

    torch.compile needs a C++ compiler on a CPU.
    """
    if isinstance(encoder, ModifiedResNet):
        encoder.fold_batch_norms()
        encoder.requires_grad_(False)
    # Convolutions are fastest in this layout, on CPU and GPU.
    encoder.to(memory_format=torch.channels_last)
    if compile_it:
        for name in ("forward", "forward_local"):
            setattr(encoder, name, torch.compile(getattr(encoder, name)))


def encode_frozen(
    encode: Callable[[Tensor], Tensor],
    images: Float[Tensor, "batch 3 height width"],
    normalised: bool = True,
) -> Float[Tensor, "batch *tokens embed"]:
    """Return features by CLIP's `encode_image(_local)`, by default L2-normalised, no gradient."""
    per_call = len(images)
    if images.device.type == "cpu":
        per_call = max(1, PIXELS_PER_CALL // (images.shape[-2] * images.shape[-1]))
    with torch.inference_mode():
        features = torch.cat([encode(part) for part in images.split(per_call)])
        if normalised:
            features = functional.normalize(features, dim=-1)
    return features.clone()  # inference tensors cannot take part in a training step
