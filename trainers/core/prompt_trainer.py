"""Base trainer of the prompt-tuning methods: frozen CLIP, prompt learner, training step, files.

A method's subclass names its node in cfg.TRAINER and may override `build_prompted_clip` or `loss`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dassl.config import CfgNode
from dassl.engine.capabilities import Capability
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import choose_device, load_pretrained_weights
from safeio.errors import UserError
from safeio.files import PathLike

from ..nemesis import position_norms
from .clip_trainer import CLIPTrainer
from .features.evaluation import NO_MATRIX, CachedFeatures, no_class_weights
from .features.views import check_views
from .frozen_clip import load_frozen_clip, text_memory
from .frozen_encoder import autocast, check_precision
from .prompt_checkpoints import PromptCheckpoints
from .prompt_file import PROMPT_FILE, save_tensors
from .prompt_learner import PromptLearner, prompt_length
from .prompt_metadata import METADATA
from .prompted_clip import PromptedCLIP
from .training_step import STANDARD, total_loss


class PromptTrainer(CLIPTrainer):
    """Tunes the soft prompts of a frozen CLIP with cross-entropy.

    Overriding a method that `capabilities` lists for an attribute lowers it, unless declared again.

    Attributes:
        paper, prompts, towers: publication, what is learned, encoders that take the prompts.
        normalizes: what the norm losses of a Nemesis variant act on.
        norm_penalty: the `NormPenalty` of these losses; None in other methods.
        prompted_clip: the class that `build_prompted_clip` builds.
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
    norm_penalty: Any = None  # a cached property of Nemesis variants
    node = "COOP"
    prompted_clip: ClassVar[type[PromptedCLIP]] = PromptedCLIP
    no_matrix = NO_MATRIX
    features: str | None = "pooled"
    standard_classify = True
    standard_step = True
    trains_on_features = True
    resumes_within_epoch = standard_test = True
    capabilities: ClassVar[dict[str, Capability]] = {
        **CLIPTrainer.capabilities,
        "standard_step": Capability(STANDARD),
    }
    model: PromptedCLIP
    batched = 0  # number of runs that are trained as one batch with this one

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
            check_views(self.view_encoder, self.train_loader_x, cfg.INPUT.TRAIN_VIEWS)
        learner = self.model.prompt_learner
        self.prompt_checkpoints = PromptCheckpoints(self)
        if cfg.MODEL.INIT_WEIGHTS:
            load_pretrained_weights(learner, cfg.MODEL.INIT_WEIGHTS)
        self.optim = build_optimizer(learner, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        # It would warn if a gradient scaler skips the first step.
        self.optim._opt_called = True  # type: ignore[attr-defined]
        self.register_model("prompt_learner", learner, self.optim, self.sched)
        self.scaler = self.build_scaler()

    def build_prompted_clip(self, classnames: list[str]) -> PromptedCLIP:
        """Build CLIP and its prompt learner from the configuration."""
        node, model = self.method_cfg, self.loaded_clip.model
        learner = PromptLearner(model, len(classnames), node.N_CTX, node.CTX_INIT, node.CSC)
        return self.prompted_clip(model, classnames, learner, node.CLASS_TOKEN_POSITION)

    def loss(
        self, image_features: Float[Tensor, "batch *tokens embed"], labels: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, ""], dict[str, Any]]:
        """Return the training loss of a batch and the values to log."""
        outputs, term = self.model.training_outputs(image_features, self.model.prompt_learner())
        total, summary = self.penalty(image_features, labels, outputs[0])
        if term is not None:
            total = total + self.model.term_weight * term[0]
            summary = {self.model.term_name: term[0].detach(), **summary}
        return total_loss(outputs[0], labels, (total, summary), self.position_norms())

    def penalty(
        self,
        image_features: Float[Tensor, "batch *tokens embed"],
        labels: Int[Tensor, " batch"],
        logits: Float[Tensor, "batch classes"],
    ) -> tuple[Tensor | float, dict[str, Any]]:
        """Return a term to add to the cross-entropy and values to log; subclasses may override."""
        return 0.0, {}

    def position_norms(self) -> Float[Tensor, " length"]:
        """Return the norm at each position, averaged over prompt sets."""
        return position_norms(self.model.prompt_learner.ctx)

    def epoch_entries(self) -> dict[str, Any]:
        """Return entries for history.jsonl: the norm at each position."""
        return {"position_norms": [round(norm, 6) for norm in self.position_norms().tolist()]}

    def feature_kind(self) -> str | None:
        """Return the kind of features that `classify` takes; None if inference needs images."""
        frozen = self.model.frozen_features and self.model.clip_model is self.loaded_clip.model
        return type(self).features if frozen else None  # a method may have features of its own

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
