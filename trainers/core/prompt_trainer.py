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

from dassl.engine.capabilities import STEP_HOOKS, Capability
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import choose_device, load_pretrained_weights
from safeio.errors import UserError
from safeio.files import PathLike

from ..nemesis import vector_norms
from .company import Company
from .feature_trainer import FeatureTrainer
from .features.cache import kind_of, overrides
from .features.views import ViewFeatures, check_views, view_loader
from .frozen_clip import autocast, check_precision, load_frozen_clip
from .prompt_file import PROMPT_FILE, save_prompt
from .prompt_learner import PromptLearner, prompt_length
from .prompt_origin import (
    FLAG,
    ORIGIN,
    check_shape,
    data_of,
    describe_prompts,
    fit_prompts,
    known_origin,
    read_origin,
)
from .prompted_clip import PromptedCLIP


class PromptTrainer(FeatureTrainer):
    """Tunes the soft prompts of a frozen CLIP with cross-entropy."""

    node = "COOP"  # the configuration node: cfg.TRAINER.<node>
    resumes_within_epoch = True
    capabilities: ClassVar[dict[str, Capability]] = {
        **FeatureTrainer.capabilities,
        "resumes_within_epoch": Capability(STEP_HOOKS | {"loss", "penalty", "features_and_labels"}),
    }

    model: PromptedCLIP
    company: Company = Company()  # several runs that compute together have one in common
    mismatch = ""  # what does not fit, and is tested all the same

    @property
    def method_cfg(self) -> Any:
        """The method's own configuration node."""
        return self.cfg.TRAINER[self.node]

    @property
    def tower_precision(self) -> str:
        """The towers' precision."""
        return self.method_cfg.PREC

    @classmethod
    def uses_train_views(cls) -> bool:
        """Unless a subclass takes training batches apart in a way of its own."""
        return not overrides(
            cls, PromptTrainer, "run_epoch", "forward_backward", "parse_batch_train"
        )

    def check_cfg(self, cfg: Any) -> None:
        """Refuse impossible settings before anything is loaded."""
        node = cfg.TRAINER[self.node]
        check_precision(node.PREC, choose_device(cfg))
        if prompt_length(node.N_CTX, node.CTX_INIT) < 1:
            raise UserError(f"TRAINER.{self.node}.N_CTX is {node.N_CTX}, but must be at least 1.")

    def build_model(self) -> None:
        """Load the frozen CLIP, make the prompts and register them with their optimiser."""
        cfg = self.cfg
        self.loaded_clip = load_frozen_clip(cfg, self.device, self.tower_precision)
        self.model = self.build_prompted_clip(self.dm.dataset.classnames)
        self.model.text_encoder.memory_limit = int(cfg.MODEL.CLIP.TEXT_MEMORY * 2**30)
        if cfg.INPUT.TRAIN_VIEWS and self.train_loader_x is not None:
            check_views(self, self.train_loader_x, cfg.INPUT.TRAIN_VIEWS)
        learner = self.model.prompt_learner
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
        self.company.backward(self.scaler.scale(loss))
        self.detect_bad_gradients()
        self.scaler.step(self.optim)
        self.scaler.update()
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return summary

    def features_and_labels(
        self, batch: dict[str, Any]
    ) -> tuple[Float[Tensor, "batch *tokens embed"], Int[Tensor, " batch"]]:
        """The batch's image features, kept (INPUT.TRAIN_VIEWS) or computed now, and labels."""
        if "features" in batch:
            return batch["features"].to(self.device), batch["label"].to(self.device)
        images, labels = self.parse_batch_train(batch)
        return self.company.image_features(self.model, images), labels

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Images and labels of a batch, on the trainer's device."""
        return batch["img"].to(self.device), batch["label"].to(self.device)

    def before_train(self) -> None:
        """Let kept views take the place of the training images."""
        super().before_train()
        views, loader = self.cfg.INPUT.TRAIN_VIEWS, self.train_loader_x
        if views and loader is not None and not isinstance(loader.dataset, ViewFeatures):
            self.train_loader_x = view_loader(self, loader, views)

    def feature_kind(self) -> str | None:
        """What the model matches, unless a subclass infers in a way of its own."""
        own = overrides(type(self), PromptTrainer, "model_inference", "parse_batch_test")
        own = own or overrides(type(self.model), PromptedCLIP, "forward")
        if own or self.model.clip_model is not self.loaded_clip.model:
            return None
        return kind_of(type(self.model).image_features)

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
        with self.fixed_classifier():
            return super().test(split)

    @contextmanager
    def fixed_classifier(self) -> Iterator[None]:
        """Within this context nothing learns, and text features are computed once."""
        with super().fixed_classifier(), self.model.fixed_prompts():
            yield

    def class_weights(self) -> Float[Tensor, "classes embed"]:
        """The normalised text features of the learned prompts.

        Raises:
            UserError: the method matches prompts and image features in a way of its own.
        """
        own = overrides(type(self.model), PromptedCLIP, "classify", "logits", "match")
        if (
            own
            or self.feature_kind() != "pooled"
            or overrides(type(self), PromptTrainer, "classify")
        ):
            return super().class_weights()
        return self.model.text_features(self.model.prompt_learner())[0]

    def export_artifacts(self, directory: PathLike) -> None:
        """Write `prompt.safetensors`: the learned vectors and what they mean."""
        path = Path(directory) / PROMPT_FILE
        save_prompt(path, self.model.prompt_learner, self.prompt_origin())

    def prompt_origin(self) -> dict[str, Any]:
        """What the prompts mean that are learned here."""
        names = self.dm.dataset.classnames
        return describe_prompts(self.cfg, self.method_cfg, self.loaded_clip, names)

    def state_dict(self) -> dict[str, Any]:
        """Also what the prompts mean."""
        return {**super().state_dict(), ORIGIN: self.prompt_origin()}

    def check_resumed(self, state: dict[str, Any]) -> None:
        """Also refuse prompts of another backbone, or of other classes or another order of them.

        Raises:
            UserError: says which.
        """
        super().check_resumed(state)
        here = {**self.prompt_origin(), "data": data_of(self.cfg)}
        for name, model in state["models"].items():
            if (weights := self._prompt_weights(name, model)) is None:
                continue
            origin = known_origin(state)
            fit = fit_prompts(origin, here, weights, self.loaded_clip.model, self.node)
            fault = fit.mismatch or (fit.rows and "the order of the classes has changed")
            if fault:
                raise UserError(
                    f'"{state["path"]}" cannot be resumed: {fault}; give what it was trained with, '
                    "or train anew in another --output-dir or with --overwrite"
                )

    def _prompt_weights(self, name: str, state: Any) -> dict[str, Any] | None:
        """The tensors in a model's state, where that is the prompts'; else None."""
        weights = state.get("state_dict") if isinstance(state, dict) else None
        if self._models.get(name) is not self.model.prompt_learner or not isinstance(weights, dict):
            return None
        ctx = weights.get("ctx")
        return weights if isinstance(ctx, Tensor) and ctx.dim() > 1 else None

    def adapt_state(self, name: str, state: dict[str, Any], path: Path) -> dict[str, Any]:
        """Give every class the prompt that was learned for it.

        Raises:
            UserError: the prompts were learned for other classes, with another backbone or at
                another place in the text, and `ignore_mismatch` is not set; or they have another
                shape.
        """
        learner, weights = self.model.prompt_learner, self._prompt_weights(name, state)
        if weights is None:
            return state
        ctx = weights["ctx"]
        by_words = bool(self.method_cfg.get("CTX_INIT", ""))
        if ctx.shape[-2] != learner.length:
            check_shape(path, ctx, learner.ctx, self.node, by_words)
        here = {**self.prompt_origin(), "data": data_of(self.cfg)}
        origin = read_origin(path, state, self.node)
        fit = fit_prompts(origin, here, weights, self.loaded_clip.model, self.node)
        self.mismatch = fit.mismatch
        if fit.mismatch:
            self._ignore_or_refuse(path, can_be_ignored=ctx.shape == learner.ctx.shape)
        if fit.rows is not None:
            ctx = ctx[fit.rows]
        check_shape(path, ctx, learner.ctx, self.node, by_words)
        return {**state, "state_dict": {**weights, "ctx": ctx}}

    def _ignore_or_refuse(self, path: Path, can_be_ignored: bool) -> None:
        if can_be_ignored and self.ignore_mismatch:
            print(f'Warning: the prompts in "{path}" do not fit: {self.mismatch}')
            return
        hint = f", or give {FLAG} to test them all the same" if can_be_ignored else ""
        raise UserError(
            f'The prompts in "{path}" do not fit: {self.mismatch}; take the classes and settings '
            f"that they were learned with{hint}"
        )

    def result_entries(self) -> dict[str, Any]:
        """What a prompt run adds to results.json."""
        return {
            "weights_sha256": self.loaded_clip.sha256,
            "clip": self.loaded_clip.facts,
            "n_ctx": self.model.prompt_learner.length,
            **({"ignored_mismatch": self.mismatch} if self.mismatch else {}),
            **self.company.result_entries(),
        }
