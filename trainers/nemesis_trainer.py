"""Nemesis for any prompt method by inheritance: `class CoOpNemesis(NemesisMixin, CoOp)`."""

from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dassl.config import CfgNode

from .core.prompt_learner import prompt_length
from .core.prompt_trainer import PromptTrainer
from .nemesis import NORMS, NormPenalty, norm_loss, omega_schedule


class NemesisMixin(PromptTrainer):
    """Adds the norm losses to a method's loss; list it before the method among the bases."""

    resumes_within_epoch = True
    standard_step = True

    def check_cfg(self, cfg: CfgNode) -> None:
        """Check the settings of TRAINER.NEMESIS before anything is loaded."""
        super().check_cfg(cfg)
        NormPenalty.from_config(cfg.TRAINER.NEMESIS).check_length(self.shortest_prompt(cfg))

    def shortest_prompt(self, cfg: CfgNode) -> int:
        """Return the number of positions from which N are drawn."""
        node = cfg.TRAINER[self.node]
        return prompt_length(node.N_CTX, node.CTX_INIT)

    @cached_property
    def norm_penalty(self) -> NormPenalty:
        """The norm losses with the settings of TRAINER.NEMESIS."""
        return NormPenalty.from_config(self.cfg.TRAINER.NEMESIS)

    def before_epoch(self) -> None:
        """Reset the counts of PAN's selections."""
        super().before_epoch()
        self._selections = torch.zeros(self.model.prompt_learner.length, device=self.device)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Also restore PAN's selections from the key under which earlier versions saved them."""
        super().load_state_dict(state)
        if (selections := state.get("own", {}).get("selections")) is not None:
            self._selections = selections.to(self.device)

    def draw_positions(self) -> Int[Tensor, " drawn"]:
        """Draw N distinct positions uniformly, on the CPU so that every device gets the same."""
        return torch.randperm(self.model.prompt_learner.length)[: self.norm_penalty.n]

    def penalty(
        self,
        image_features: Float[Tensor, "batch *tokens embed"],
        labels: Int[Tensor, " batch"],
        logits: Float[Tensor, "batch classes"],
    ) -> tuple[Tensor | float, dict[str, Any]]:
        """Return omega_E * (beta * PUN + (1 - beta) * PAN) without terms of weight 0."""
        settings, ctx = self.norm_penalty, self.model.prompt_learner.ctx
        p, beta = NORMS[settings.norm], settings.beta
        factor = omega_schedule(self.epoch, self.max_epoch, settings.schedule)
        total: Tensor | float = 0.0
        summary: dict[str, Any] = {}
        if beta > 0:
            pun = norm_loss(ctx, settings.uniform(ctx.shape[-2], ctx.device), p)
            total, summary["pun"] = total + beta * pun, pun.detach()
        if beta < 1:
            alpha = self.aware_alpha(image_features, labels, logits)
            pan = norm_loss(ctx, alpha, p)
            total, summary["pan"] = total + (1 - beta) * pan, pan.detach()
        return factor * total, {**summary, "omega_E": factor}

    def aware_alpha(
        self,
        image_features: Float[Tensor, "batch *tokens embed"],
        labels: Int[Tensor, " batch"],
        logits: Float[Tensor, "batch classes"],
    ) -> Float[Tensor, " length"]:
        """Return PAN's alpha for this batch and count the selected positions."""
        alpha = self.norm_penalty.aware(
            self.model.prompt_learner.ctx,
            self.draw_positions().to(self.device, non_blocking=True),
            labels,
            logits.detach(),
            lambda ctx: self.model.logits(image_features, ctx),
        )
        self._selections += alpha != 0
        return alpha

    def epoch_entries(self) -> dict[str, Any]:
        """Also return how often PAN selected each position in the epoch."""
        entries = super().epoch_entries()
        if self.norm_penalty.beta < 1:
            entries["selections"] = [int(count) for count in self._selections.tolist()]
        return entries
