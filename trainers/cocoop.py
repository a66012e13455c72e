"""CoCoOp: Conditional Prompt Learning for Vision-Language Models (Zhou et al., CVPR 2022).

The meta-net h shifts the context vectors v_j by each image's feature f(x),

    L = CE(logits of x under v_j + h(f(x)), y),   h = Linear(E, E/16) - ReLU - Linear(E/16, D).

The text encoder processes the prompts of all images of a batch as groups of one call.
"""

from collections import OrderedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clip.model import CLIP
from dassl.config import declare_config
from dassl.engine import TRAINER_REGISTRY

from .core.prompt_learner import PromptLearner
from .core.prompt_trainer import PromptTrainer
from .core.prompted_clip import PromptedCLIP
from .nemesis_trainer import NemesisMixin

declare_config(
    "TRAINER.COCOOP",
    {
        "N_CTX": 16,
        "CTX_INIT": "",
        "PREC": "fp32",
    },
)


class ConditionalPromptLearner(PromptLearner):
    """Context vectors and the meta-net h, which shifts them by an image's feature."""

    def __init__(
        self, clip_model: CLIP, num_classes: int, n_ctx: int = 16, ctx_init: str = ""
    ) -> None:
        super().__init__(clip_model, num_classes, n_ctx, ctx_init)
        embed, width = clip_model.visual.output_dim, self.ctx.shape[-1]
        layers = [
            ("linear1", nn.Linear(embed, embed // 16)),
            ("relu", nn.ReLU(inplace=True)),
            ("linear2", nn.Linear(embed // 16, width)),
        ]
        self.meta_net = nn.Sequential(OrderedDict(layers)).to(self.ctx.device)

    def shift(self, image_features: Float[Tensor, "batch embed"]) -> Float[Tensor, "batch 1 width"]:
        """Return h(f): one vector per image, added to each of its context vectors."""
        return self.meta_net(image_features.float()).unsqueeze(1)


class ConditionalCLIP(PromptedCLIP):
    """A frozen CLIP that classifies each image with prompts conditioned on it."""

    conditional = True
    prompt_learner: ConditionalPromptLearner

    def logits(
        self,
        image_features: Float[Tensor, "batch embed"],
        ctx: Float[Tensor, "groups length width"],
    ) -> Float[Tensor, "groups batch classes"]:
        """Return the logits of every image under every group's prompts, shifted by its feature."""
        shifted = ctx.unsqueeze(1) + self.prompt_learner.shift(image_features)
        text = self.text_features(shifted.flatten(0, 1)).unflatten(0, shifted.shape[:2])
        scaled = self.clip_model.logit_scale.exp() * image_features
        return torch.einsum("be,gbce->gbc", scaled, text)


@TRAINER_REGISTRY.register()
class CoCoOp(PromptTrainer):
    """Conditional context optimization."""

    paper = "Zhou et al., CVPR 2022"
    prompts = "context vectors, shifted for each image by a meta-net"
    normalizes = "the context vectors before the meta-net shifts them"
    node = "COCOOP"
    no_matrix = "computes different text features for every image"

    def build_prompted_clip(self, classnames: list[str]) -> PromptedCLIP:
        """Build CLIP with a conditional prompt learner."""
        node, clip_model = self.method_cfg, self.loaded_clip.model
        learner = ConditionalPromptLearner(clip_model, len(classnames), node.N_CTX, node.CTX_INIT)
        return ConditionalCLIP(clip_model, classnames, learner)


@TRAINER_REGISTRY.register()
class CoCoOpNemesis(NemesisMixin, CoCoOp):
    """CoCoOp with Nemesis: normalizes the context vectors v_j, before h is added."""
