"""A frozen image tower: fixed, prepared for inference, and its features without gradient."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from clip.resnet import ModifiedResNet
from clip.vision_transformer import VisionTransformer

# More activations would not fit a CPU's caches, and take memory: 16 images of 224 x 224 at once are
# a little faster than 32, and 8 are slower.
PIXELS_AT_ONCE = 16 * 224 * 224


def freeze(model: nn.Module) -> None:
    """Fix every parameter and the statistics of normalisation layers."""
    model.requires_grad_(False)
    model.eval()


def speed_up(tower: ModifiedResNet | VisionTransformer, compile_it: bool = False) -> None:
    """Prepare a frozen image tower for inference, in place; its features stay the same.

    Args:
        tower: in evaluation mode.
        compile_it: let torch.compile make its kernels, which needs a C++ compiler on a CPU.
    """
    if isinstance(tower, ModifiedResNet):
        tower.fold_batch_norms()
        tower.requires_grad_(False)
    # The layout that convolutions are fastest in, on CPU and GPU alike.
    tower.to(memory_format=torch.channels_last)
    if compile_it:
        for name in ("forward", "forward_local"):
            setattr(tower, name, torch.compile(getattr(tower, name)))


def encode_frozen(
    encode: Callable[[Tensor], Tensor], images: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch *tokens embed"]:
    """L2-normalised features of a frozen tower, computed without gradient.

    Args:
        encode: CLIP's `encode_image` or `encode_image_local`.
        images: a batch.
    """
    at_once = len(images)
    if images.device.type == "cpu":
        at_once = max(1, PIXELS_AT_ONCE // (images.shape[-2] * images.shape[-1]))
    with torch.inference_mode():
        features = torch.cat([encode(part) for part in images.split(at_once)])
        features = functional.normalize(features, dim=-1)
    return features.clone()  # inference tensors cannot take part in a training step
