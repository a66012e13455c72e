"""Base trainer of the methods with prompts in both encoders: VPT, IVLP, MaPLe, PromptSRC."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clip.config import CLIPConfig
from clip.weights import known_config
from dassl.config import CfgNode
from dassl.utils import choose_device
from safeio.errors import UserError

from ..nemesis import vector_norms
from .features.evaluation import no_class_weights
from .frozen_clip import text_memory
from .frozen_encoder import check_precision
from .prompt_trainer import PromptTrainer
from .tower_checkpoints import TowerCheckpoints
from .training_step import total_loss
from .two_towers import (
    MOST_FROM_WORDS,
    TEXT,
    VISION,
    Shape,
    TowerPrompts,
    TwoTowerCLIP,
    split_words,
)


@dataclass(frozen=True)
class TowerStep:
    """A training batch under the learned prompts.

    Attributes:
        images: the augmented images; None if the frozen image features are cached.
        labels: of the images.
        image_features: normalised, with gradient if there are vision prompts.
        text_features: normalised, with gradient if there are text prompts.
        logits: of the images.
        frozen_features: the cached image features of CLIP without prompts, if known.
    """

    images: Float[Tensor, "batch 3 height width"] | None
    labels: Int[Tensor, " batch"]
    image_features: Float[Tensor, "batch embed"]
    text_features: Float[Tensor, "classes embed"]
    logits: Float[Tensor, "batch classes"]
    frozen_features: Float[Tensor, "batch embed"] | None


class TwoTowerTrainer(PromptTrainer):
    """Tunes prompts of both encoders; a method states its prompts in `shapes`.

    A term of its own is `step_penalty`, in place of `loss` and `penalty`.

    Attributes:
        least_depth: the smallest depth of the text and of the vision prompts.
        coupled: vision prompts are computed from text prompts (MaPLe).
        taught: a step compares with CLIP without prompts, whose features may be cached.
    """

    prompts = "vectors in the first layers of both encoders"
    towers = "text, image"
    normalizes = "the vectors of each encoder at a position, in all of its prompted layers"
    least_depth = (1, 0)
    coupled = taught = False
    standard_step = False
    resumes_within_epoch = True
    model: TwoTowerCLIP

    def shapes(self, cfg: CfgNode) -> tuple[Shape, Shape]:
        """Return the shape of the text and of the vision prompts."""
        node = cfg.TRAINER[self.node]
        text = Shape(node.N_CTX_TEXT, node.PROMPT_DEPTH_TEXT)
        return text, Shape(node.N_CTX_VISION, node.PROMPT_DEPTH_VISION)

    def words(self, cfg: CfgNode) -> tuple[str, str]:
        """Return the initial words of T_0 and the fixed words behind it."""
        text, _ = self.shapes(cfg)
        return split_words(cfg.TRAINER[self.node].get("CTX_INIT", ""), text.length)

    def check_cfg(self, cfg: CfgNode) -> None:
        """Check the method's settings before anything is loaded."""
        check_precision(cfg.TRAINER[self.node].PREC, choose_device(cfg))
        shapes = self.shapes(cfg)
        for tower, shape, least in zip((TEXT, VISION), shapes, self.least_depth, strict=True):
            self._check_shape(tower, shape, least)
        self.words(cfg)
        if known := known_config(cfg.MODEL.BACKBONE.NAME):
            self.check_backbone(cfg, known)
        if cfg.INPUT.TRAIN_VIEWS and shapes[1].depth and not self.taught:
            optional = self.least_depth[1] == 0
            other = f", or set TRAINER.{self.node}.PROMPT_DEPTH_VISION 0" if optional else ""
            raise UserError(
                f"INPUT.TRAIN_VIEWS is {cfg.INPUT.TRAIN_VIEWS}, but the vision prompts of "
                f"{cfg.TRAINER.NAME} change image features in training; leave it at 0{other}"
            )

    def _check_shape(self, tower: str, shape: Shape, least: int) -> None:
        if shape.depth < least:
            other = "; choose VPT for vision prompts alone" if tower == TEXT else ""
            raise UserError(
                f"TRAINER.{self.node}: the depth of the {tower} prompts is {shape.depth}, but must "
                f"be at least {least}{other}"
            )
        if shape.depth and shape.length < 1:
            raise UserError(
                f"TRAINER.{self.node}: the {tower} prompts have {shape.length} vectors, but need "
                "at least 1"
            )

    def check_backbone(self, cfg: CfgNode, config: CLIPConfig) -> None:
        """Raise an error if the prompts do not fit the encoders.

        Raises:
            UserError: the image encoder is a ResNet, or a depth exceeds an encoder's layers.
        """
        name, layers = cfg.MODEL.BACKBONE.NAME, config.vision_layers
        if not isinstance(layers, int):
            raise UserError(
                f"The image encoder of {name} is a ResNet, but {cfg.TRAINER.NAME} needs a vision "
                "transformer; choose a backbone such as ViT-B/16 or mini_vit"
            )
        for tower, shape, most in zip(
            (TEXT, VISION), self.shapes(cfg), (config.transformer_layers, layers), strict=True
        ):
            if shape.depth > most:
                raise UserError(
                    f"TRAINER.{self.node}: the depth of the {tower} prompts is {shape.depth}, but "
                    f"the {tower} encoder of {name} has {most} layers; choose at most {most}"
                )

    def build_model(self) -> None:
        """Also check checkpoints by the tensors of both encoders."""
        super().build_model()
        self.prompt_checkpoints = TowerCheckpoints(self)

    def build_prompted_clip(self, classnames: list[str]) -> TwoTowerCLIP:
        """Build CLIP with the prompts of both encoders."""
        cfg, clip_model = self.cfg, self.loaded_clip.model
        self.check_backbone(cfg, clip_model.config)
        (text, vision), (words, fixed) = self.shapes(cfg), self.words(cfg)
        if text.length > MOST_FROM_WORDS and self.method_cfg.get("CTX_INIT"):
            print(f"CTX_INIT is ignored: with more than {MOST_FROM_WORDS} vectors all are random")
        learner = TowerPrompts(clip_model, text, vision, words, self.coupled)
        model = TwoTowerCLIP(clip_model, classnames, learner, fixed)
        model.image_encoder.memory_limit = text_memory(cfg, self.device)
        return model

    def tower_step(self, batch: dict[str, Any]) -> TowerStep:
        """Run the forward pass of a batch, with cached features where the model takes them."""
        frozen = self._on_device(batch["features"]) if "features" in batch else None
        images = self._on_device(batch["img"]) if "img" in batch else None
        labels = self._on_device(batch["label"])
        if self.model.frozen_features and frozen is not None:
            image_features = frozen
        else:
            image_features = self.image_features(self._on_device(batch["img"]))
        text = self.model.text_features(self.model.prompt_learner())
        logits = self.model.match(image_features, text)[0]
        return TowerStep(images, labels, image_features, text[0], logits, frozen)

    def batch_loss(self, batch: dict[str, Any]) -> tuple[Float[Tensor, ""], dict[str, Any]]:
        """Return the cross-entropy plus `step_penalty`, and the values to log."""
        step = self.tower_step(batch)
        penalty = self.step_penalty(step)
        return total_loss(step.logits, step.labels, penalty, self.position_norms())

    def step_penalty(self, step: TowerStep) -> tuple[Tensor | float, dict[str, Any]]:
        """Return a term to add to the cross-entropy and values to log; subclasses may override."""
        return 0.0, {}

    def position_norms(self) -> Float[Tensor, " positions"]:
        """Return the norms at the text, then the vision positions, averaged over the layers."""
        learned = self.model.prompt_learner.learned().values()
        return torch.cat([vector_norms(one.detach()) / len(one) for one in learned])

    def epoch_entries(self) -> dict[str, Any]:
        """Also return the norms of every layer."""
        entries = super().epoch_entries()
        for tower, prompts in self.model.prompt_learner.learned().items():
            for layer, norms in enumerate(prompts.detach().norm(dim=-1).tolist()):
                entries[f"norms_{tower}.{layer}"] = [round(norm, 6) for norm in norms]
        return entries

    def class_weights(self) -> Float[Tensor, "classes embed"]:
        """Return the normalised text features of the learned prompts.

        Image features need the vision prompts, which `Classifier.export` writes beside them.
        """
        if not (self.standard_classify and self.model.linear):
            raise no_class_weights(self.cfg, self.no_matrix)
        return self.model.text_features(self.model.prompt_learner())[0]

    def vision_prompts(self) -> Float[Tensor, "depth length channels"] | None:
        """Return the vision prompts V_0 ... V_{d-1}; None if images are encoded without any."""
        if self.model.frozen_features:
            return None
        return self.model.prompt_learner.vision_prompts().detach()

    def result_entries(self) -> dict[str, Any]:
        """Also return the length and depth of each encoder's learned prompts."""
        shapes = {
            tower: {"length": one.shape[1], "depth": one.shape[0]}
            for tower, one in self.model.prompt_learner.learned().items()
        }
        return {**super().result_entries(), "prompts": shapes}
