"""Encode images with prompts in CLIP's frozen vision transformer.

V_0 stands behind the patches before `ln_pre`; V_l replaces what layer l-1 made of the prompts, for
l = 1 ... d-1 (Visual Prompt Tuning, Jia et al., ECCV 2022; MaPLe, Khattak et al., CVPR 2023, 3.2).
The result equals that of a full pass, gradients included, at a part of its cost: prompts that the
next layer replaces are keys and values alone, computed once for all images; the last layer computes
the class token alone; and what stands before the first prompt has no gradient.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from .deep_prompts import check_depth
from .errors import PromptError
from .model import CLIP
from .transformer import ResidualAttentionBlock
from .vision_transformer import VisionTransformer

# Bytes of tokens in one pass: 16 images of ViT-B/16, as more would not fit a CPU's caches.
BYTES_AT_ONCE = {"cpu": 10 << 20}
BYTES_AT_ONCE_ELSEWHERE = 128 << 20

# Floats that autograd saves per token and layer, in units of the width: the inputs of both norms
# (2) and of the activation (4), queries, keys, values and attention output (4).
SAVED_WIDTHS = 10


class PromptedImageEncoder(nn.Module):
    """Image encoder with prompts: images (B, 3, H, W), prompts (G, d, n, D) -> (G, B, E).

    Attributes:
        memory_limit: bytes that autograd may save. If more are needed, the backward pass computes
            every layer again instead (activation checkpointing).
    """

    memory_limit = 4 << 30

    def __init__(self, clip_model: CLIP) -> None:
        """Use a CLIP's image encoder, without changing it.

        Raises:
            PromptError: the image encoder is a ResNet.
        """
        super().__init__()
        if not isinstance(clip_model.visual, VisionTransformer):
            raise PromptError(
                "The image encoder is a ResNet, but prompts need a vision transformer; choose a "
                "backbone such as ViT-B/16."
            )
        self.visual = clip_model.visual

    def forward(
        self,
        images: Float[Tensor, "batch 3 height width"],
        prompts: Float[Tensor, "depth length channels"]
        | Float[Tensor, "groups depth length channels"],
    ) -> Float[Tensor, "batch embed"] | Float[Tensor, "groups batch embed"]:
        """Return the features of the images at the class token, not normalised.

        Args:
            images: normalised images.
            prompts: V_0 ... V_{d-1}, the vectors that enter each of the first d layers; d may be 0.

        Raises:
            PromptError: d exceeds the number of layers.
            ImageSizeError: the images are not `visual.input_resolution` pixels wide and high.
        """
        if prompts.dim() == 3:
            return self(images, prompts.unsqueeze(0))[0]
        check_depth(prompts.shape[1], self.visual.transformer.layers, "image")
        dtype = self.visual.conv1.weight.dtype
        with torch.no_grad():
            # Autocast's patches are cast back: the residual stream stays at fp32.
            x = self.visual.ln_pre(self.visual.embed(images.to(dtype)).to(dtype)).unsqueeze(0)
        learns = torch.is_grad_enabled() and prompts.requires_grad
        recompute = learns and self.saved_bytes(x, len(prompts)) > self.memory_limit
        limit = BYTES_AT_ONCE.get(x.device.type, BYTES_AT_ONCE_ELSEWHERE)
        images_at_once = max(1, limit // x[0, 0].nbytes)
        groups_at_once = max(1, images_at_once // len(images))
        distinct = prompts if prompts.shape[1] else prompts[:1]
        features = [
            torch.cat(
                [self._encode(part, some, recompute) for part in x.split(images_at_once, dim=1)],
                dim=1,
            )
            for some in distinct.to(dtype).split(groups_at_once)
        ]
        return torch.cat(features).expand(len(prompts), -1, -1)

    def saved_bytes(self, x: Float[Tensor, "1 batch tokens width"], groups: int) -> int:
        """Estimate the bytes that autograd saves for all groups."""
        return groups * x.nbytes * self.visual.transformer.layers * SAVED_WIDTHS

    def _encode(
        self,
        x: Float[Tensor, "1 batch tokens width"],
        prompts: Float[Tensor, "groups depth length width"],
        recompute: bool,
    ) -> Float[Tensor, "groups batch embed"]:
        """Return the features of images after `ln_pre`, computed in one pass."""
        layers = list(prompts.unbind(1))
        layers[:1] = [self.visual.ln_pre(layer) for layer in layers[:1]]
        blocks = self.visual.transformer.blocks
        for number, block in enumerate(blocks):
            entering = layers[number] if number < len(layers) else None
            outputs = slice(1 if block is blocks[-1] else None)
            stays = number == len(layers) - 1 and block is not blocks[-1]
            if recompute:
                x = checkpoint(
                    *(_layer, block, x, entering, outputs, stays),
                    use_reentrant=False,
                    preserve_rng_state=False,
                )
            else:
                x = _layer(block, x, entering, outputs, stays)
        return self.visual.ln_post(x[:, :, 0]) @ self.visual.proj


def _layer(
    block: ResidualAttentionBlock,
    x: Float[Tensor, "some_groups batch tokens width"],
    prompts: Float[Tensor, "groups length width"] | None,
    outputs: slice,
    stays: bool,
) -> Float[Tensor, "groups batch outputs width"]:
    """Run one block on class token, patches and prompts.

    Args:
        block: the block.
        x: the tokens so far; one group of them may stand for all.
        prompts: vectors that enter with this block; None for none.
        outputs: the tokens whose states are needed after the block.
        stays: whether the prompts' states are needed, too.
    """
    attention, width, normed = block.attn, x.shape[-1], block.ln_1(x)
    query = attention.project(normed[:, :, outputs], slice(width))
    key_value = attention.project(normed, slice(width, None))
    x = x[:, :, outputs]
    if prompts is not None:
        normed = block.ln_1(prompts)
        key_value = _append(key_value, attention.project(normed, slice(width, None)))
        if stays:
            query, x = _append(query, attention.project(normed, slice(width))), _append(x, prompts)
    query = query.expand(len(key_value), -1, -1, -1)
    parts = (part.flatten(0, 1) for part in (query, *key_value.chunk(2, dim=-1)))
    q, k, v = (part.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for part in parts)
    mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    return block.finish(x.expand_as(query), mixed.reshape(query.shape))


def _append(
    tokens: Float[Tensor, "some_groups batch tokens width"],
    prompts: Float[Tensor, "groups length width"],
) -> Float[Tensor, "groups batch more_tokens width"]:
    """Append every group's prompts to the tokens of all its images."""
    groups, batch = len(prompts), tokens.shape[1]
    parts = tokens.expand(groups, -1, -1, -1), prompts.unsqueeze(1).expand(-1, batch, -1, -1)
    return torch.cat(parts, dim=2)
