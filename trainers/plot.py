"""PLOT: Prompt Learning with Optimal Transport (Chen et al., ICLR 2023).

Every class has P prompts, every image M features (one pooled, the others local). S (M, P) holds
the cosine similarities of an image and a class, T is the optimal transport plan for the cost 1 - S:

    L = CE(exp(logit_scale) * sum(T * S), y),   T = Sinkhorn(1 - S, eps), without gradient.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dassl.config import CfgNode, declare_config
from dassl.engine import TRAINER_REGISTRY
from safeio.errors import UserError

from .core.frozen_encoder import encode_frozen
from .core.prompt_learner import PromptLearner
from .core.prompt_trainer import PromptTrainer
from .core.prompted_clip import PromptedCLIP
from .core.sinkhorn import sinkhorn
from .nemesis_trainer import NemesisMixin

declare_config(
    "TRAINER.PLOT",
    {
        "N": 4,  # P, prompts per class
        "N_CTX": 16,
        "CSC": False,
        "CTX_INIT": "",
        "PREC": "fp32",
        "CLASS_TOKEN_POSITION": "end",
        "EPS": 0.1,  # strength of the entropic regularisation
        "MAX_ITER": 100,  # most Sinkhorn iterations
        "THRESH": 0.01,  # stop iterating when the scalings change by less
    },
)


class TransportCLIP(PromptedCLIP):
    """A frozen CLIP that matches local image features with several prompts per class."""

    transport: Mapping[str, Any] = {}  # settings of `sinkhorn`
    frozen_features = True

    def image_features(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch tokens embed"]:
        """Return normalised image features: the pooled one, then the local ones."""
        return encode_frozen(self.clip_model.encode_image_local, images)

    def text_features(
        self, ctx: Float[Tensor, "groups *sets length width"]
    ) -> Float[Tensor, "groups prompts classes embed"]:
        """Return normalised text features of ctx (G, P, L, D) or (G, C, P, L, D)."""
        features = functional.normalize(self.text_encoder(self.encoder_groups(ctx)), dim=-1)
        return features.unflatten(0, (len(ctx), -1))

    def encoder_groups(
        self, ctx: Float[Tensor, "groups *sets length width"]
    ) -> Float[Tensor, "prompts *classes length width"]:
        """Return every set of every group as one group, (G P, L, D) or (G P, C, L, D)."""
        return (ctx if ctx.dim() == 4 else ctx.transpose(1, 2)).flatten(0, 1)

    def similarities(
        self,
        image_features: Float[Tensor, "*runs batch tokens embed"],
        text_features: Float[Tensor, "groups prompts classes embed"],
    ) -> Float[Tensor, "groups batch classes tokens prompts"]:
        """Return the cosine similarity of every image feature with every prompt."""
        text = text_features.to(image_features.dtype)
        images = "bme" if image_features.dim() == 3 else "gbme"
        return torch.einsum(f"{images},gpce->gbcmp", image_features, text)

    def match(
        self,
        image_features: Float[Tensor, "*runs batch tokens embed"],
        text_features: Float[Tensor, "groups prompts classes embed"],
    ) -> Float[Tensor, "groups batch classes"]:
        """Return logits: the scaled similarity under the optimal transport plan."""
        similarity = self.similarities(image_features, text_features)
        plan = sinkhorn(1 - similarity.detach(), **self.transport)
        return self.clip_model.logit_scale.exp() * (plan * similarity.float()).sum((-2, -1))


@TRAINER_REGISTRY.register()
class PLOT(PromptTrainer):
    """Prompt learning with optimal transport."""

    paper = "Chen et al., ICLR 2023"
    prompts = "several sets of context vectors, matched with local image features"
    normalizes = "the vectors of all sets"
    node = "PLOT"
    standard_step = True  # its CLIP matches each run's prompts with the run's own images, too
    features = "local"
    no_matrix = "matches several prompts per class with local features by optimal transport"

    def check_cfg(self, cfg: CfgNode) -> None:
        """Also check the settings of PLOT before anything is loaded."""
        super().check_cfg(cfg)
        for key in ("N", "EPS", "MAX_ITER", "THRESH"):
            if cfg.TRAINER.PLOT[key] <= 0:
                raise UserError(f"TRAINER.PLOT.{key} must be above 0.")

    def build_prompted_clip(self, classnames: list[str]) -> PromptedCLIP:
        """Build CLIP with P prompts per class and the optimal transport plan."""
        node = self.method_cfg
        clip_model = self.loaded_clip.model
        learner = PromptLearner(
            clip_model, len(classnames), node.N_CTX, node.CTX_INIT, node.CSC, num_sets=node.N
        )
        model = TransportCLIP(clip_model, classnames, learner, node.CLASS_TOKEN_POSITION)
        model.transport = {"eps": node.EPS, "max_iter": node.MAX_ITER, "thresh": node.THRESH}
        return model


@TRAINER_REGISTRY.register()
class PLOTNemesis(NemesisMixin, PLOT):
    """PLOT with Nemesis: the pre-inference rescales position j in all P sets at once."""
