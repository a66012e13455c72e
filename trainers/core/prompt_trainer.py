"""What the prompt-tuning methods share: a frozen CLIP, soft prompts, one step, what is saved.

A method is a subclass that names its configuration node and, where it differs from CoOp, overrides
`build_prompted_clip` or `loss`.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from dassl.config import CfgNode
from dassl.engine import TrainerX
from dassl.engine.capabilities import STEP_HOOKS, Capability
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import choose_device, load_pretrained_weights
from safeio.errors import UserError
from safeio.files import PathLike

from ..nemesis import vector_norms
from .features.evaluation import (
    CLASSIFY,
    INFERENCE,
    NO_MATRIX,
    CachedFeatures,
    no_class_weights,
)
from .features.views import TRAINING, ViewFeatures, check_views, view_loader
from .frozen_clip import load_frozen_clip
from .precision import autocast, check_precision
from .prompt_checkpoints import PromptCheckpoints
from .prompt_file import PROMPT_FILE, save_prompt
from .prompt_learner import PromptLearner, prompt_length
from .prompt_origin import ORIGIN
from .prompted_clip import PromptedCLIP
from .step_hooks import StepHooks

# `standard_step`: losses and gradients are computed here or by NemesisMixin and nowhere else.
STEP = Capability(
    frozenset(
        {
            *("train", "run_epoch", "forward_backward", "features_and_labels", "loss", "penalty"),
            *("build_model", "model_zero_grad", "model_backward", "model_update", "step_hooks"),
        }
    )
)


class PromptTrainer(TrainerX):
    """Tunes the soft prompts of a frozen CLIP with cross-entropy.

    What others count on is declared in class attributes. A subclass whose body defines one of the
    methods in `capabilities` has the attribute lowered, unless it declares it, too.

    Attributes:
        node: the method's configuration node, cfg.TRAINER.<node>.
        no_matrix: why there are no `class_weights`, where there are none.
        features: the kind of frozen features that training and inference take; see `INFERENCE`.
        standard_classify: `classify` is the model's.
        standard_step: runs may be trained together; see `STEP`.
        trains_on_features: a step takes cached augmentations, too; see INPUT.TRAIN_VIEWS.
    """

    node = "COOP"
    no_matrix = NO_MATRIX
    features: str | None = "pooled"
    standard_classify = True
    standard_step = True
    trains_on_features = True
    resumes_within_epoch = True
    capabilities: ClassVar[dict[str, Capability]] = {
        **TrainerX.capabilities,
        "resumes_within_epoch": Capability(STEP_HOOKS | {"loss", "penalty", "features_and_labels"}),
        "features": INFERENCE,
        "standard_classify": CLASSIFY,
        "standard_step": STEP,
        "trains_on_features": TRAINING,
    }

    model: PromptedCLIP
    step_hooks = StepHooks()  # several runs that are trained together share one

    @property
    def method_cfg(self) -> Any:
        """The method's own configuration node."""
        return self.cfg.TRAINER[self.node]

    @property
    def tower_precision(self) -> str:
        """The towers' precision."""
        return self.method_cfg.PREC

    def check_cfg(self, cfg: CfgNode) -> None:
        """Refuse impossible settings before anything is loaded."""
        node = cfg.TRAINER[self.node]
        check_precision(node.PREC, choose_device(cfg))
        if prompt_length(node.N_CTX, node.CTX_INIT) < 1:
            raise UserError(f"TRAINER.{self.node}.N_CTX is {node.N_CTX}, but must be at least 1.")

    def build_model(self) -> None:
        """Load the frozen CLIP, make the prompts and register them with their optimiser."""
        cfg = self.cfg
        self.loaded_clip = load_frozen_clip(cfg, self.device, self.tower_precision)
        classnames = self.dm.dataset.classnames
        self.model = self.build_prompted_clip(classnames)
        self.model.text_encoder.memory_limit = int(cfg.MODEL.CLIP.TEXT_MEMORY * 2**30)
        self.cached_features = CachedFeatures(self)
        if cfg.INPUT.TRAIN_VIEWS and self.train_loader_x is not None:
            check_views(self, self.train_loader_x, cfg.INPUT.TRAIN_VIEWS)
        learner = self.model.prompt_learner
        self.prompt_checkpoints = PromptCheckpoints(
            cfg, self.node, self.loaded_clip, classnames, learner
        )
        if cfg.MODEL.INIT_WEIGHTS:
            load_pretrained_weights(learner, cfg.MODEL.INIT_WEIGHTS)
        self.optim = build_optimizer(learner, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("prompt_learner", learner, self.optim, self.sched)
        scales_gradients = self.tower_precision == "amp" and self.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=scales_gradients)

    def build_prompted_clip(self, classnames: list[str]) -> PromptedCLIP:
        """Compose CLIP and prompts as the configuration says."""
        node = self.method_cfg
        learner = PromptLearner(
            self.loaded_clip.model, len(classnames), node.N_CTX, node.CTX_INIT, node.CSC
        )
        return PromptedCLIP(self.loaded_clip.model, classnames, learner, node.CLASS_TOKEN_POSITION)

    def loss(
        self,
        image_features: Float[Tensor, "batch *tokens embed"],
        labels: Int[Tensor, " batch"],
    ) -> tuple[Float[Tensor, ""], dict[str, Any]]:
        """The training loss of one batch and what to log of it."""
        logits = self.model.logits(image_features, self.model.prompt_learner())[0]
        cross_entropy = functional.cross_entropy(logits, labels)
        penalty, summary = self.penalty(image_features, labels, logits)
        loss = cross_entropy + penalty
        if summary:  # otherwise the loss is the cross-entropy
            summary = {"ce": cross_entropy.detach(), **summary}
        return loss, {
            "loss": loss.detach(),
            **summary,
            "norm": self.position_norms().mean(),
            "acc": compute_accuracy(logits, labels)[0],
        }

    def penalty(
        self,
        image_features: Float[Tensor, "batch *tokens embed"],
        labels: Int[Tensor, " batch"],
        logits: Float[Tensor, "batch classes"],
    ) -> tuple[Tensor | float, dict[str, Any]]:
        """Hook: what is added to the cross-entropy, and what to log of it."""
        return 0.0, {}

    def position_norms(self) -> Float[Tensor, " length"]:
        """Each position's norm, averaged over the prompts: classes' own (CSC) and PLOT's sets."""
        ctx = self.model.prompt_learner.ctx.detach()
        return vector_norms(ctx) / math.prod(ctx.shape[:-2])

    def epoch_entries(self) -> dict[str, Any]:
        """The norm at each position."""
        return {"position_norms": [round(norm, 6) for norm in self.position_norms().tolist()]}

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """One optimisation step."""
        with autocast(self.tower_precision, self.device):
            loss, summary = self.loss(*self.features_and_labels(batch))
        self.detect_anomaly(loss)
        self.model_zero_grad()
        self.step_hooks.backward(self.scaler.scale(loss))
        self.detect_bad_gradients()
        self.scaler.step(self.optim)
        self.scaler.update()
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return summary

    def features_and_labels(
        self, batch: dict[str, Any]
    ) -> tuple[Float[Tensor, "batch *tokens embed"], Int[Tensor, " batch"]]:
        """The batch's image features, cached (INPUT.TRAIN_VIEWS) or computed now, and labels."""
        if "features" in batch:
            return batch["features"].to(self.device), batch["label"].to(self.device)
        images, labels = self.parse_batch_train(batch)
        return self.step_hooks.image_features(self.model, images), labels

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Images and labels of a batch, on the trainer's device."""
        return batch["img"].to(self.device), batch["label"].to(self.device)

    def before_train(self) -> None:
        """Let cached augmentations take the place of the training images (INPUT.TRAIN_VIEWS)."""
        super().before_train()
        views, loader = self.cfg.INPUT.TRAIN_VIEWS, self.train_loader_x
        trains = loader is not None and self.start_epoch < self.max_epoch
        if views and trains and not isinstance(loader.dataset, ViewFeatures):
            self.train_loader_x = view_loader(self, loader, views)

    def feature_kind(self) -> str | None:
        """The kind of features that the model matches; None if inference needs the images."""
        frozen = self.model.frozen_features and self.model.clip_model is self.loaded_clip.model
        return self.features if frozen else None

    def predictions(
        self, loader: Any
    ) -> Iterator[tuple[Float[Tensor, "batch classes"], Int[Tensor, " batch"]]]:
        """Scores and labels, from cached image features where inference is made of them."""
        yield from self.cached_features.predictions(loader) or super().predictions(loader)

    def image_features(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch *tokens embed"]:
        """Normalised features of the frozen tower, as the model matches them."""
        return self.model.image_features(images)

    def classify(
        self, image_features: Float[Tensor, "batch *tokens embed"]
    ) -> Float[Tensor, "batch classes"]:
        """Logits of known features under the learned prompts."""
        return self.model.classify(image_features)

    def test(self, split: str | None = None) -> float:
        """Evaluate with the text features computed once."""
        with self.cached_text_features():
            return super().test(split)

    @contextmanager
    def cached_text_features(self) -> Iterator[None]:
        """Within this context nothing learns, and text features are computed once."""
        mixed = autocast(self.tower_precision, self.device)
        with torch.no_grad(), mixed, self.model.cached_text_features():
            yield

    def class_weights(self) -> Float[Tensor, "classes embed"]:
        """The normalised text features of the learned prompts.

        Raises:
            UserError: the method matches prompts and image features in a way of its own.
        """
        linear = self.standard_classify and self.model.linear
        if not linear or self.feature_kind() != "pooled":
            raise no_class_weights(self.cfg, self.no_matrix)
        return self.model.text_features(self.model.prompt_learner())[0]

    def export_artifacts(self, directory: PathLike) -> None:
        """Write `prompt.safetensors`: the learned vectors and what they mean."""
        path = Path(directory) / PROMPT_FILE
        save_prompt(path, self.model.prompt_learner, self.prompt_checkpoints.origin())

    def state_dict(self) -> dict[str, Any]:
        """Also what the prompts mean."""
        return {**super().state_dict(), ORIGIN: self.prompt_checkpoints.origin()}

    def check_resumed(self, state: dict[str, Any]) -> None:
        """Also refuse prompts that do not fit; see `PromptCheckpoints.check_resumed`."""
        super().check_resumed(state)
        for name, model in state["models"].items():
            if self._models.get(name) is self.model.prompt_learner:
                self.prompt_checkpoints.check_resumed(state, model)

    def adapt_state(self, name: str, state: dict[str, Any], path: Path) -> dict[str, Any]:
        """Give every class the prompt that was learned for it; see `PromptCheckpoints.adapt`."""
        if self._models.get(name) is not self.model.prompt_learner:
            return state
        return self.prompt_checkpoints.adapt(state, path, self.ignore_mismatch)

    def result_entries(self) -> dict[str, Any]:
        """What a prompt run adds to results.json."""
        mismatch = self.prompt_checkpoints.mismatch
        return {
            "weights_sha256": self.loaded_clip.sha256,
            "clip": self.loaded_clip.facts,
            "train_views": self.cfg.INPUT.TRAIN_VIEWS,
            "n_ctx": self.model.prompt_learner.length,
            **({"ignored_mismatch": mismatch} if mismatch else {}),
            **self.step_hooks.result_entries(),
        }
