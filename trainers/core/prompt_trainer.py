"""Base trainer of the prompt-tuning methods: frozen CLIP, prompt learner, training step, files.

A method's subclass names its node in cfg.TRAINER and may override `build_prompted_clip` or `loss`.
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
from .features.evaluation import CLASSIFY, INFERENCE, NO_MATRIX, CachedFeatures, no_class_weights
from .features.views import TRAINING, ViewFeatures, check_views, view_loader
from .frozen_clip import load_frozen_clip, text_memory
from .frozen_encoder import autocast, check_precision
from .prompt_checkpoints import PromptCheckpoints
from .prompt_file import PROMPT_FILE, save_tensors
from .prompt_learner import PromptLearner, prompt_length
from .prompt_metadata import METADATA
from .prompted_clip import PromptedCLIP

# `standard_step`: only PromptTrainer, CoOp's and PLOT's CLIP and NemesisMixin compute a step.
STEP = Capability(
    frozenset(
        {
            *("train", "run_epoch", "forward_backward", "features_and_labels", "loss", "penalty"),
            *("build_model", "build_prompted_clip", "model_zero_grad", "model_backward"),
            *("model_update", "model_backward_and_update", "aware_alpha"),
        }
    )
)


class PromptTrainer(TrainerX):
    """Tunes the soft prompts of a frozen CLIP with cross-entropy.

    Overriding a method that `capabilities` lists for an attribute lowers it, unless declared again.

    Attributes:
        paper, prompts, towers: publication, what is learned, encoders that take the prompts.
        normalizes: what the norm losses of a Nemesis variant act on.
        no_matrix: why the method has no `class_weights`, for the error message.
        features: the kind of frozen features that training and inference take; see `INFERENCE`.
        standard_classify: `classify` is the model's.
        standard_step: a step is that of `batched_step`, which trains many runs at once.
        trains_on_features: a step accepts cached augmentations; see INPUT.TRAIN_VIEWS.
    """

    paper = ""
    prompts = "context vectors"
    towers = "text"
    normalizes = "the context vectors"
    node = "COOP"
    no_matrix = NO_MATRIX
    features: str | None = "pooled"
    standard_classify = True
    standard_step = True
    trains_on_features = True
    resumes_within_epoch = standard_test = True
    capabilities: ClassVar[dict[str, Capability]] = {
        **TrainerX.capabilities,
        "resumes_within_epoch": Capability(STEP_HOOKS | {"loss", "penalty", "features_and_labels"}),
        "features": INFERENCE,
        "standard_classify": CLASSIFY,
        "standard_step": STEP,
        "trains_on_features": TRAINING,
    }
    model: PromptedCLIP
    batched = 0  # number of runs that are trained as one batch with this one

    @property
    def method_cfg(self) -> Any:
        """The method's own configuration node."""
        return self.cfg.TRAINER[self.node]

    @property
    def clip_precision(self) -> str:
        """The precision of the frozen CLIP."""
        return self.method_cfg.PREC

    def check_cfg(self, cfg: CfgNode) -> None:
        """Check the method's settings before anything is loaded."""
        node = cfg.TRAINER[self.node]
        check_precision(node.PREC, choose_device(cfg))
        if prompt_length(node.N_CTX, node.CTX_INIT) < 1:
            raise UserError(f"TRAINER.{self.node}.N_CTX is {node.N_CTX}, but must be at least 1.")

    def build_model(self) -> None:
        """Load the frozen CLIP, build the prompt learner and register it with its optimiser."""
        cfg = self.cfg
        self.loaded_clip = load_frozen_clip(cfg, self.device, self.clip_precision)
        self.model = self.build_prompted_clip(self.dm.dataset.classnames)
        self.model.text_encoder.memory_limit = text_memory(cfg, self.device)
        self.cached_features = CachedFeatures(self)
        if cfg.INPUT.TRAIN_VIEWS and self.train_loader_x is not None:
            check_views(self, self.train_loader_x, cfg.INPUT.TRAIN_VIEWS)
        learner = self.model.prompt_learner
        self.prompt_checkpoints = PromptCheckpoints(self)
        if cfg.MODEL.INIT_WEIGHTS:
            load_pretrained_weights(learner, cfg.MODEL.INIT_WEIGHTS)
        self.optim = build_optimizer(learner, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.optim._opt_called = True  # it would warn if a gradient scaler skips the first step
        self.register_model("prompt_learner", learner, self.optim, self.sched)
        scales_gradients = self.clip_precision == "amp" and self.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=scales_gradients)

    def build_prompted_clip(self, classnames: list[str]) -> PromptedCLIP:
        """Build CLIP and its prompt learner from the configuration."""
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
        """Return the training loss of a batch and the values to log."""
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
        """Return a term to add to the cross-entropy and values to log; subclasses may override."""
        return 0.0, {}

    def position_norms(self) -> Float[Tensor, " length"]:
        """Return each position's norm, averaged over classes (CSC) and PLOT's prompt sets."""
        ctx = self.model.prompt_learner.ctx.detach()
        return vector_norms(ctx) / math.prod(ctx.shape[:-2])

    def epoch_entries(self) -> dict[str, Any]:
        """Return entries for history.jsonl: the norm at each position."""
        return {"position_norms": [round(norm, 6) for norm in self.position_norms().tolist()]}

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Run one optimisation step."""
        with autocast(self.clip_precision, self.device):
            loss, summary = self.loss(*self.features_and_labels(batch))
        self.model_backward_and_update(loss)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return summary

    def model_backward(self, loss: Tensor) -> None:
        """Check the loss and compute its gradients, under the gradient scaler."""
        self.detect_anomaly(loss)
        self.scaler.scale(loss).backward()

    def model_update(self, names: Any = None) -> None:
        """Check the gradients and step the optimiser, under the gradient scaler."""
        self.detect_bad_gradients(names)
        self.scaler.step(self.optim)
        self.scaler.update()

    def features_and_labels(
        self, batch: dict[str, Any]
    ) -> tuple[Float[Tensor, "batch *tokens embed"], Int[Tensor, " batch"]]:
        """Return the batch's image features, cached (INPUT.TRAIN_VIEWS) or computed, and labels."""
        if "features" in batch:
            return self._on_device(batch["features"]), self._on_device(batch["label"])
        images, labels = self.parse_batch_train(batch)
        return self.image_features(images), labels

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the images and labels of a batch on the trainer's device."""
        return self._on_device(batch["img"]), self._on_device(batch["label"])

    def _on_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)

    def before_train(self) -> None:
        """Replace the training images by cached augmentations if INPUT.TRAIN_VIEWS is set."""
        super().before_train()
        views, loader = self.cfg.INPUT.TRAIN_VIEWS, self.train_loader_x
        trains = loader is not None and self.start_epoch < self.max_epoch
        if views and trains and not isinstance(loader.dataset, ViewFeatures):
            self.train_loader_x = view_loader(self, loader, views)

    def feature_kind(self) -> str | None:
        """Return the kind of features that `classify` takes; None if inference needs images."""
        frozen = self.model.frozen_features and self.model.clip_model is self.loaded_clip.model
        return type(self).features if frozen else None  # a method may have features of its own

    def predictions(
        self, loader: Any
    ) -> Iterator[tuple[Float[Tensor, "batch classes"], Int[Tensor, " batch"]]]:
        """Yield logits and labels, from cached image features if inference allows it."""
        yield from self.cached_features.predictions(loader) or super().predictions(loader)

    def model_inference(
        self, input: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits of images, computed as from cached features if the model allows it."""
        if self.model.frozen_features:
            return self.classify(self.image_features(input))
        return self.model(input)

    def image_features(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch *tokens embed"]:
        """Return the normalised frozen image features that the model matches."""
        return self.model.image_features(images)

    def classify(
        self, image_features: Float[Tensor, "batch *tokens embed"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits of image features under the learned prompts."""
        return self.model.classify(image_features)

    def test(self, split: str | None = None) -> float:
        """Evaluate a split; the text features are computed once."""
        with self.cached_text_features():
            return super().test(split)

    @contextmanager
    def cached_text_features(self) -> Iterator[None]:
        """Compute the text features once for this context, in which nothing is trained."""
        mixed = autocast(self.clip_precision, self.device)
        with torch.no_grad(), mixed, self.model.cached_text_features():
            yield

    def class_weights(self) -> Float[Tensor, "classes embed"]:
        """Return the normalised text features of the learned prompts.

        Raises:
            UserError: the logits are not exp(logit_scale) * f @ W^T with one W for all images.
        """
        linear = self.standard_classify and self.model.linear
        if not linear or self.feature_kind() != "pooled":
            raise no_class_weights(self.cfg, self.no_matrix)
        return self.model.text_features(self.model.prompt_learner())[0]

    def export_artifacts(self, directory: PathLike) -> None:
        """Write `prompt.safetensors`: the context vectors and their metadata."""
        path, tensors = Path(directory) / PROMPT_FILE, self.model.prompt_learner.state_dict()
        save_tensors(path, tensors, self.prompt_checkpoints.metadata)

    def state_dict(self) -> dict[str, Any]:
        """Also return the metadata of the prompts."""
        return {**super().state_dict(), METADATA: self.prompt_checkpoints.metadata}

    def check_resumed(self, state: dict[str, Any]) -> None:
        """Also check that the prompts fit; see `PromptCheckpoints.check_resumed`."""
        super().check_resumed(state)
        for name, model in state["models"].items():
            if self._models.get(name) is self.model.prompt_learner:
                self.prompt_checkpoints.check_resumed(state, model)

    def adapt_state(self, name: str, state: dict[str, Any], path: Path) -> dict[str, Any]:
        """Sort class-specific prompts by this run's classes; see `PromptCheckpoints.adapt`."""
        if self._models.get(name) is not self.model.prompt_learner:
            return state
        return self.prompt_checkpoints.adapt(state, path, self.ignore_mismatch)

    def result_entries(self) -> dict[str, Any]:
        """Return further entries for results.json."""
        mismatch = self.prompt_checkpoints.mismatch
        return {
            "weights_sha256": self.loaded_clip.sha256,
            "clip": self.loaded_clip.facts,
            "tf32": self.cfg.MODEL.TF32,
            "train_views": self.cfg.INPUT.TRAIN_VIEWS,
            "n_ctx": self.model.prompt_learner.length,
            "parameters": sum(tensor.numel() for tensor in self.model.prompt_learner.parameters()),
            **({"ignored_mismatch": mismatch} if mismatch else {}),
            **({"batched": self.batched} if self.batched else {}),
        }
