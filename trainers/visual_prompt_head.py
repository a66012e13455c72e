"""Visual Prompt Tuning with a linear head, in its original form (Jia et al., ECCV 2022).

It learns prompts V that stand between the class token and the patches of a frozen vision
transformer, in its first layer (shallow) or anew in all of them (deep), and a linear head h:

    L = CE(h(f(V)), y);   with Nemesis, + omega_E * PUN(V), as in Table A10 of its paper.

Deviation: dropout draws one mask of the prompts for a batch instead of one for each image.
"""

import math
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dassl.config import CfgNode, declare_config
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.optim import build_lr_scheduler, build_optimizer
from safeio.errors import UserError
from safeio.files import PathLike

from .core.prompt_file import PROMPT_FILE, save_tensors
from .core.prompted_tower import PromptedTower, load_tower
from .core.training_step import total_loss
from .nemesis import NORMS, NormPenalty, norm_loss, omega_schedule, position_norms

declare_config(
    "TRAINER.VPTHEAD",
    {
        "N_CTX": 10,  # vectors per prompted layer
        "DEEP": False,  # prompts in all layers instead of the first one
        "DROPOUT": 0.0,  # of the prompts' values
    },
)


class PromptsAndHead(nn.Module):
    """Visual prompts `ctx` (d, n, D), uniform as by Xavier over a patch, and a linear head."""

    def __init__(
        self, tower: PromptedTower, num_classes: int, length: int, depth: int, dropout: float
    ) -> None:
        super().__init__()
        bound = math.sqrt(6 / (3 * math.prod(tower.patch_size) + tower.width))
        self.ctx = nn.Parameter(torch.empty(depth, length, tower.width).uniform_(-bound, bound))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(tower.embed_dim, num_classes)


@TRAINER_REGISTRY.register()
class VPTHead(TrainerX):
    """Visual prompts and a linear head, on CLIP's vision transformers or timm's."""

    paper = "Jia et al., ECCV 2022"
    prompts = "vectors in the first layer or in all, and a linear head"
    towers = "image"
    normalizes = "the visual prompts (PUN)"
    resumes_within_epoch = True
    bound_to_classes = True  # by its head

    def check_cfg(self, cfg: CfgNode) -> None:
        """Check the settings before anything is loaded."""
        node = cfg.TRAINER.VPTHEAD
        if node.N_CTX < 1:
            raise UserError(f"TRAINER.VPTHEAD.N_CTX is {node.N_CTX}, but must be at least 1.")
        if not 0 <= node.DROPOUT < 1:
            raise UserError(
                f"TRAINER.VPTHEAD.DROPOUT is {node.DROPOUT}, but must be from 0 to below 1."
            )

    def build_model(self) -> None:
        """Load the frozen image encoder; build the prompts and the head with their optimiser."""
        cfg, node = self.cfg, self.cfg.TRAINER.VPTHEAD
        self.tower = load_tower(cfg, self.device)
        depth = self.tower.layers if node.DEEP else 1
        learner = PromptsAndHead(self.tower, self.num_classes, node.N_CTX, depth, node.DROPOUT)
        self.model = learner.to(self.device)
        self.optim = build_optimizer(self.model, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("prompt_learner", self.model, self.optim, self.sched)

    def model_inference(
        self, input: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits of images under the learned prompts."""
        features = self.tower.encode(input, self.model.dropout(self.model.ctx))
        logits: Tensor = self.model.head(features)
        return logits

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Run one optimisation step."""
        images, labels, _ = self.parse_batch_train(batch)
        logits = self.model_inference(images)
        loss, summary = total_loss(logits, labels, self.penalty(), self.position_norms())
        self.model_backward_and_update(loss)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return summary

    def penalty(self) -> tuple[Tensor | float, dict[str, Any]]:
        """Return a term to add to the cross-entropy and values to log."""
        return 0.0, {}

    def position_norms(self) -> Float[Tensor, " length"]:
        """Return each position's norm, averaged over the layers."""
        return position_norms(self.model.ctx)

    def epoch_entries(self) -> dict[str, Any]:
        """Return entries for history.jsonl: the norm at each position."""
        return {"position_norms": [round(norm, 6) for norm in self.position_norms().tolist()]}

    def export_artifacts(self, directory: PathLike) -> None:
        """Write `prompt.safetensors`: the prompts and the head."""
        described = {"trainer": self.cfg.TRAINER.NAME, "backbone": self.cfg.MODEL.BACKBONE.NAME}
        save_tensors(Path(directory) / PROMPT_FILE, self.model.state_dict(), described)

    def result_entries(self) -> dict[str, Any]:
        """Return further entries for results.json."""
        count = sum(parameter.numel() for parameter in self.model.parameters())
        return {**self.tower.entries, "n_ctx": self.model.ctx.shape[1], "parameters": count}


@TRAINER_REGISTRY.register()
class VPTHeadNemesis(VPTHead):
    """Visual prompts and a linear head with Nemesis' PUN; the norms are summed over the layers."""

    def check_cfg(self, cfg: CfgNode) -> None:
        """Also check the settings of TRAINER.NEMESIS."""
        super().check_cfg(cfg)
        settings = NormPenalty.from_config(cfg.TRAINER.NEMESIS)
        if (settings.beta, settings.layers) != (1, "all"):
            raise UserError(
                f"TRAINER.NEMESIS: BETA is {settings.beta}, LAYERS {settings.layers}, but visual "
                "prompts with a head have PUN on all layers only, as in the paper's Table A10; "
                "set them to 1 and all."
            )

    def penalty(self) -> tuple[Tensor | float, dict[str, Any]]:
        """Return omega_E * PUN."""
        settings, ctx = NormPenalty.from_config(self.cfg.TRAINER.NEMESIS), self.model.ctx
        pun = norm_loss(ctx, settings.uniform(ctx.shape[1], ctx.device), NORMS[settings.norm])
        factor = omega_schedule(self.epoch, self.max_epoch, settings.schedule)
        return factor * pun, {"pun": pun.detach(), "omega_E": factor}
