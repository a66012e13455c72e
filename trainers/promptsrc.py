"""PromptSRC: Self-regulating Prompts (Khattak et al., ICCV 2023).

It learns IVLP's prompts of both encoders. Superscript t is the teacher, the same CLIP without
prompts, whose g^t is the mean over 60 templates; f and g are normalised, p = softmax(logits):

    L = CE + w_t mean|g - g^t| + w_i mean|f - f^t| + sum KL(p^t || p) / (B C).

The final prompts are a mean of those at the ends of the epochs e = 1 ... E_max, weighted by
exp(-(e - mean)^2 / (2 std^2)): Gaussian aggregation (section 3.2).
"""

from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dassl.config import CfgNode, declare_config
from dassl.engine import TRAINER_REGISTRY
from safeio.errors import UserError

from .core.dataset_settings import declare_dataset_settings
from .core.promptsrc_teacher import Teacher
from .core.two_tower_trainer import TowerStep, TwoTowerTrainer
from .tower_nemesis import TowerNemesisMixin

# Mean and std of the aggregation in epochs: those of the few-shot experiments. The files of some
# datasets state other values, and those of the other protocols override both.
GPA = {"GPA_MEAN": 30.0, "GPA_STD": 30.0}

declare_config(
    "TRAINER.PROMPTSRC",
    {
        "N_CTX_TEXT": 4,  # vectors per layer
        "N_CTX_VISION": 4,
        "CTX_INIT": "a photo of a",  # of T_0 with up to 4 vectors; further words stay fixed
        "PROMPT_DEPTH_TEXT": 9,  # prompted layers, from the first one on
        "PROMPT_DEPTH_VISION": 9,
        "PREC": "fp32",  # fp32, fp16, bf16, amp
        "TEXT_LOSS_WEIGHT": 25.0,  # w_t
        "IMAGE_LOSS_WEIGHT": 10.0,  # w_i
        **GPA,
    },
)


declare_dataset_settings("PROMPTSRC", *GPA)


def gaussian_weights(
    epochs: int, mean: float, std: float, first: int = 1
) -> Float[Tensor, " epochs"]:
    """Return the weights of the epochs `first` ... `epochs` in the aggregation; their sum is 1."""
    distance = torch.arange(first, epochs + 1, dtype=torch.float64) - mean
    return torch.softmax(-(distance**2) / (2 * std**2), dim=0)


@TRAINER_REGISTRY.register()
class PromptSRC(TwoTowerTrainer):
    """Prompts regulated by CLIP without prompts and by Gaussian aggregation."""

    paper = "Khattak et al., ICCV 2023"
    normalizes = "the vectors of each encoder at a position, before their aggregation over epochs"
    node = "PROMPTSRC"
    taught = True
    resumes_within_epoch = True
    checkpoints_complete = True  # `after_epoch` aggregates before it saves

    def check_cfg(self, cfg: CfgNode) -> None:
        """Also check the weights and the aggregation before anything is loaded."""
        super().check_cfg(cfg)
        node = cfg.TRAINER.PROMPTSRC
        if node.GPA_STD <= 0:
            raise UserError(f"TRAINER.PROMPTSRC.GPA_STD is {node.GPA_STD}, but must be above 0")
        for key in ("TEXT_LOSS_WEIGHT", "IMAGE_LOSS_WEIGHT"):
            if node[key] < 0:
                raise UserError(f"TRAINER.PROMPTSRC.{key} is {node[key]}, but must be at least 0")

    @cached_property
    def view_encoder(self) -> Teacher:
        """CLIP without prompts, whose image features of cached augmentations are computed once."""
        return Teacher(self)

    def check_train(self) -> None:
        """Also check that the class names fit the teacher's templates."""
        super().check_train()
        self.view_encoder.check_names()

    def before_train(self) -> None:
        """Also start the mean over the epochs, which every checkpoint contains."""
        super().before_train()
        self._mean: dict[str, Tensor] = {}
        self._first_epoch = 1

    def after_epoch(self) -> None:
        """Add the prompts to the mean, and replace them by it after the last epoch."""
        self.aggregate()
        super().after_epoch()

    @torch.no_grad()
    def aggregate(self) -> None:
        """Add this epoch's prompts to the mean; those of the last epoch become the mean.

        A run that resumes from a checkpoint without a mean aggregates the epochs from there on.
        """
        node, learner, epoch = self.method_cfg, self.model.prompt_learner, self.epoch + 1
        if not self._mean:
            self._first_epoch = epoch
        weights = gaussian_weights(epoch, node.GPA_MEAN, node.GPA_STD, self._first_epoch)
        for name, tensor in learner.state_dict().items():
            before = self._mean.get(name, tensor)
            self._mean[name] = torch.lerp(before, tensor, float(weights[-1]))
        if epoch == self.max_epoch:
            learner.load_state_dict(self._mean)

    def step_penalty(self, step: TowerStep) -> tuple[Tensor | float, dict[str, Any]]:
        """Return the three self-regulating losses and their values to log."""
        losses = self.regulation(step)
        logged = {f"loss_{name}": loss.detach() for name, loss in losses.items()}
        return torch.stack(list(losses.values())).sum(), logged

    def regulation(self, step: TowerStep) -> dict[str, Float[Tensor, ""]]:
        """Return the weighted losses of text features, image features and logits."""
        node, teacher = self.method_cfg, self.view_encoder
        images, text = step.frozen_features, teacher.text_features
        if images is None:
            assert step.images is not None
            images = teacher.image_features(step.images)
        images, text = images.float(), text.float()
        taught = self.model.clip_model.logit_scale.exp().float() * images @ text.T
        own = functional.log_softmax(step.logits.float(), dim=-1)
        expected = functional.log_softmax(taught, dim=-1)
        return {
            "text": node.TEXT_LOSS_WEIGHT * functional.l1_loss(step.text_features.float(), text),
            "image": node.IMAGE_LOSS_WEIGHT
            * functional.l1_loss(step.image_features.float(), images),
            # PyTorch's mean divides by the number of logits.
            "logits": functional.kl_div(own, expected, reduction="none", log_target=True).mean(),
        }


@TRAINER_REGISTRY.register()
class PromptSRCNemesis(TowerNemesisMixin, PromptSRC):
    """PromptSRC with Nemesis: normalizes the prompts in training, before their aggregation."""
