"""Nemesis for prompts of both encoders: `class VPTNemesis(TowerNemesisMixin, VPT)`.

The layers of an encoder are a leading dimension, as PLOT's prompt sets: the norm at position j is
summed over the layers, M counts positions, and the pre-inference rescales v_j in all layers. Each
encoder has its own norm loss with N positions of its own; their losses add up.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clip.config import CLIPConfig
from dassl.config import CfgNode
from safeio.errors import UserError

from .core.two_tower_trainer import TowerStep, TwoTowerTrainer
from .nemesis import NORMS, norm_loss, omega_schedule
from .nemesis_trainer import NemesisMixin


class TowerNemesisMixin(NemesisMixin, TwoTowerTrainer):
    """Adds the norm losses to a method with prompts of both encoders; list it first."""

    resumes_within_epoch = True
    standard_step = False

    def shortest_prompt(self, cfg: CfgNode) -> int:
        """Return the number of positions of the encoder with the fewest learned ones."""
        text, vision = self.shapes(cfg)
        learned = [text] if self.coupled else [text, vision]
        return min(shape.length for shape in learned if shape.depth)

    def check_backbone(self, cfg: CfgNode, config: CLIPConfig) -> None:
        """Also check that some prompts have a norm that matters, if only these are normalised.

        Raises:
            UserError: none has.
        """
        super().check_backbone(cfg, config)
        text, vision = self.shapes(cfg)
        bears = text.depth or 1 < vision.depth < config.vision_layers  # type: ignore[operator]
        if cfg.TRAINER.NEMESIS.LAYERS == "scale_bearing" and not bears:
            raise UserError(
                f"TRAINER.NEMESIS.LAYERS is scale_bearing, but a layer norm removes the scale of "
                f"all vision prompts of depth {vision.depth} in {config.vision_layers} layers; "
                "choose all, or another depth above 1"
            )

    def step_penalty(self, step: TowerStep) -> tuple[Tensor | float, dict[str, Any]]:
        """Return the method's own term plus omega_E * (beta * PUN + (1 - beta) * PAN)."""
        total, summary = super().step_penalty(step)
        settings, start = self.norm_penalty, 0
        factor = omega_schedule(self.epoch, self.max_epoch, settings.schedule)
        for tower, prompts in self.model.prompt_learner.learned().items():
            positions = slice(start, start := start + prompts.shape[1])
            losses = self._norm_losses(tower, prompts, positions, step)
            weights = {"pun": settings.beta, "pan": 1 - settings.beta}
            for name, loss in losses.items():
                total = total + factor * weights[name] * loss
                summary[name] = summary.get(name, 0.0) + loss.detach()
        return total, {**summary, "omega_E": factor}

    def _norm_losses(
        self,
        tower: str,
        prompts: Float[Tensor, "depth length width"],
        positions: slice,
        step: TowerStep,
    ) -> dict[str, Tensor]:
        """Return PUN and PAN of an encoder, without those of weight 0; count PAN's selections."""
        settings = self.norm_penalty
        p, losses = NORMS[settings.norm], {}
        chosen = self._chosen(tower, prompts)
        if settings.beta > 0:
            uniform = settings.uniform(prompts.shape[1], prompts.device)
            losses["pun"] = norm_loss(chosen, uniform, p)
        if settings.beta < 1:
            alpha = self.tower_alpha(tower, prompts, step)
            self._selections[positions] += alpha != 0
            losses["pan"] = norm_loss(chosen, alpha, p)
        return losses

    def _chosen(
        self, tower: str, prompts: Float[Tensor, "depth length width"]
    ) -> Float[Tensor, "layers length width"]:
        """Return the prompts of the layers that TRAINER.NEMESIS.LAYERS names."""
        if self.norm_penalty.layers == "all":
            return prompts
        layers = self.model.scale_bearing(tower)
        return torch.stack([prompts[layer] for layer in layers]) if layers else prompts[:0]

    def draw_tower(self, tower: str, length: int) -> Tensor:
        """Draw N distinct positions of an encoder, on the CPU as `draw_positions`."""
        del tower
        return torch.randperm(length)[: self.norm_penalty.n]

    def tower_alpha(
        self, tower: str, prompts: Float[Tensor, "depth length width"], step: TowerStep
    ) -> Float[Tensor, " length"]:
        """Return PAN's alpha of an encoder's positions.

        Without scale-bearing layers, rescaled prompts give the same logits, so alpha is 0 and the
        pre-inference is left out.
        """
        settings, bearing = self.norm_penalty, self.model.scale_bearing(tower)
        if settings.select and not bearing:
            return torch.zeros(prompts.shape[1], device=prompts.device)

        def evaluate(groups: Tensor) -> Tensor:
            if settings.layers != "all":
                others, groups = groups, prompts.detach().repeat(len(groups), 1, 1, 1)
                for index, layer in enumerate(bearing):
                    groups[:, layer] = others[:, index]
            return self._corrupted_logits(tower, groups, step)

        drawn = self.draw_tower(tower, prompts.shape[1]).to(prompts.device, non_blocking=True)
        chosen, logits = self._chosen(tower, prompts), step.logits.detach()
        return settings.aware(chosen, drawn, step.labels, logits, evaluate)

    def _corrupted_logits(
        self, tower: str, prompts: Float[Tensor, "groups depth length width"], step: TowerStep
    ) -> Float[Tensor, "groups batch classes"]:
        """Return the batch's logits under groups of an encoder's prompts."""
        model, images, text = self.model, step.image_features, step.text_features.unsqueeze(0)
        if tower == "text":
            text = model.text_features(prompts)
        if model.prompt_learner.coupled:
            prompts = model.prompt_learner.couple(prompts)
        if tower == "vision" or model.prompt_learner.coupled:
            assert step.images is not None
            images = model.prompted_features(step.images, prompts)
            text = text.expand(len(images), -1, -1)
        return model.match(images, text)
