"""Reference implementation of CLIP with prompts in both towers, at any depth.

As the published code of MaPLe (Khattak et al., CVPR 2023) and PromptSRC (Khattak et al., ICCV 2023)
computes it: all classes over 77 tokens, and the prompts' rows replaced between the layers for every
class and image.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .reference_clip import ReferenceCLIP, ReferencePrompts, ReferenceVisionTransformer


class ReferenceTowers(nn.Module):
    """Both plain encoders for fixed classes, with the calls of this repository's encoders.

    Args:
        clip_model: the frozen model with a vision transformer.
        classnames: C names.
        length: n, the number of text vectors per layer.
        words_behind: fixed words between the vectors and the name.
    """

    def __init__(
        self, clip_model: ReferenceCLIP, classnames: Sequence[str], length: int, words_behind: str
    ) -> None:
        super().__init__()
        names = [f"{words_behind} {name}" for name in classnames]
        self.clip_model = clip_model
        self.prompts = ReferencePrompts(clip_model, names, length)

    def texts(self, prompts: Float[Tensor, "depth length width"]) -> Float[Tensor, "classes embed"]:
        """Return the text features at EOS, not normalised."""
        clip_model = self.clip_model
        x = (self.prompts(prompts[0]) + clip_model.positional_embedding).permute(1, 0, 2)
        x = _prompted_blocks(clip_model.transformer, x, prompts, start=1).permute(1, 0, 2)
        x = clip_model.ln_final(x)[torch.arange(len(x), device=x.device), self.prompts.eos]
        return x @ clip_model.text_projection

    def images(
        self,
        images: Float[Tensor, "batch 3 height width"],
        prompts: Float[Tensor, "depth length channels"],
    ) -> Float[Tensor, "batch embed"]:
        """Return the image features at the class token, not normalised."""
        visual = self.clip_model.visual
        assert isinstance(visual, ReferenceVisionTransformer)
        x = visual.conv1(images).flatten(2).permute(0, 2, 1)
        cls = visual.class_embedding.expand(len(x), 1, -1)
        x = torch.cat([cls, x], dim=1) + visual.positional_embedding
        start = x.shape[1]
        if len(prompts):
            x = torch.cat([x, prompts[0].expand(len(x), -1, -1)], dim=1)
        x = visual.ln_pre(x).permute(1, 0, 2)
        x = _prompted_blocks(visual.transformer, x, prompts, start).permute(1, 0, 2)
        return visual.ln_post(x[:, 0]) @ visual.proj


def _prompted_blocks(
    transformer: nn.Module, x: Float[Tensor, "length batch width"], prompts: Tensor, start: int
) -> Float[Tensor, "length batch width"]:
    """Run all blocks; prompts[l] replaces the rows from `start` on before each layer l >= 1."""
    for number, block in enumerate(transformer.get_submodule("resblocks").children()):
        if 0 < number < len(prompts):
            rows = prompts[number].unsqueeze(1).expand(-1, x.shape[1], -1)
            x = torch.cat([x[:start], rows, x[start + len(rows) :]])
        x = block(x)
    return x
