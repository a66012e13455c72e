"""Base trainer of low-rank adapters in a frozen CLIP: L = CE(exp(logit_scale) * f @ g^T, y)."""

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from clip.config import CLIPConfig
from clip.weights import LoadedCLIP, known_config
from dassl.config import CfgNode
from dassl.metrics import compute_accuracy
from dassl.optim import build_optimizer, iteration_cosine
from dassl.utils import choose_device, load_pretrained_weights
from safeio.errors import UserError
from safeio.files import PathLike

from .clip_trainer import CLIPTrainer
from .features.evaluation import CachedFeatures
from .features.views import check_views
from .frozen_clip import load_frozen_clip, text_memory
from .frozen_encoder import autocast, check_precision
from .lora import Adapters, merge
from .lora_checkpoints import ADAPTER_FILE, FACTS, adapter_facts, check_adapters
from .lora_clip import LoRACLIP
from .lora_settings import TEXT, VISION, LoRASettings
from .prompt_file import save_tensors


class LoRATrainer(CLIPTrainer):
    """Learns adapters; evaluation and export merge them into the weights.

    Attributes:
        paper, prompts, towers: publication, what is learned, encoders that are adapted.
    """

    paper = ""
    prompts = "low-rank adapters of the attention; the template is fixed"
    towers = "text, image or both"
    lr_per_batch = True
    resumes_within_epoch = standard_test = standard_classify = trains_on_features = True
    features: str | None = "pooled"
    mismatch = ""  # the ignored mismatch of the loaded checkpoint
    model: LoRACLIP

    def check_cfg(self, cfg: CfgNode) -> None:
        """Check the settings before anything is loaded."""
        node, group = cfg.TRAINER[self.node], f"TRAINER.{self.node}"
        check_precision(node.PREC, choose_device(cfg))
        settings = LoRASettings.from_config(node, self.node)
        known = known_config(cfg.MODEL.BACKBONE.NAME)
        if known is not None:  # the sizes of other weights are known after loading
            settings.keys(_depths(known))
        if node.ITERS_PER_SHOT < 0 or node.MIN_LR < 0 or node.LOGIT_SCALE < 0:
            raise UserError(f"{group}.ITERS_PER_SHOT, MIN_LR and LOGIT_SCALE must be at least 0")
        if cfg.OPTIM.LR_SCHEDULER != "cosine" or cfg.OPTIM.WARMUP_EPOCH > 0:
            raise UserError(
                f"{cfg.TRAINER.NAME} trains with one cosine over all iterations; set "
                "OPTIM.LR_SCHEDULER cosine and OPTIM.WARMUP_EPOCH 0, as its config files do"
            )
        if cfg.INPUT.TRAIN_VIEWS and VISION in settings.towers:
            raise UserError(
                f"INPUT.TRAIN_VIEWS is {cfg.INPUT.TRAIN_VIEWS}, but {cfg.TRAINER.NAME} keeps image "
                f"features only with {group}.ENCODER text; leave it at 0"
            )

    def check_train(self) -> None:
        """Also refuse a number of iterations per shot without shots."""
        super().check_train()
        node = self.method_cfg
        if node.ITERS_PER_SHOT and self.cfg.DATASET.NUM_SHOTS < 1:
            raise UserError(
                f"TRAINER.{self.node}.ITERS_PER_SHOT is {node.ITERS_PER_SHOT}, but "
                "DATASET.NUM_SHOTS is not set; set it, or ITERS_PER_SHOT 0 to train "
                "OPTIM.MAX_EPOCH epochs"
            )

    def build_model(self) -> None:
        """Load the frozen CLIP, build the adapters and register them with their optimiser."""
        cfg, node = self.cfg, self.method_cfg
        loaded = load_frozen_clip(cfg, self.device, self.clip_precision)
        self.loaded_clip = _with_scale(loaded, node.LOGIT_SCALE)
        self.cached_features = CachedFeatures(self)
        clip_model = self.loaded_clip.model
        self.adapters = Adapters(clip_model, LoRASettings.from_config(node, self.node))
        self.model = LoRACLIP(clip_model, self.adapters, self.dm.dataset.classnames)
        self.model.text_encoder.memory_limit = text_memory(cfg, self.device)
        if cfg.INPUT.TRAIN_VIEWS and self.train_loader_x is not None:
            check_views(self, self.train_loader_x, cfg.INPUT.TRAIN_VIEWS)
        if cfg.MODEL.INIT_WEIGHTS:
            load_pretrained_weights(self.adapters, cfg.MODEL.INIT_WEIGHTS)
        self.optim = build_optimizer(self.adapters, cfg.OPTIM)
        self.iterations = self.count_iterations()
        self.sched = iteration_cosine(self.optim, self.iterations, node.MIN_LR)
        self.register_model("adapters", self.adapters, self.optim, self.sched)
        self.scaler = self.build_scaler()
        self.facts = adapter_facts(cfg, self.loaded_clip, self.adapters)

    def count_iterations(self) -> int:
        """Set the length of the training in batches; return it."""
        batches = len(self.train_loader_x) if self.train_loader_x is not None else 0
        wanted = self.method_cfg.ITERS_PER_SHOT * max(self.cfg.DATASET.NUM_SHOTS, 0)
        if wanted and batches:
            self.total_batches, self.max_epoch = wanted, math.ceil(wanted / batches)
        return max(1, self.total_batches or self.max_epoch * batches)

    def loss(
        self, image_features: Float[Tensor, "batch embed"], labels: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, ""], dict[str, Any]]:
        """Return the cross-entropy of a batch and the values to log."""
        logits = self.model.match(image_features)
        loss = functional.cross_entropy(logits, labels)
        return loss, {"loss": loss.detach(), "acc": compute_accuracy(logits, labels)[0]}

    def feature_kind(self) -> str | None:
        """Return the kind of features that `classify` takes; None if images are needed."""
        return type(self).features if self.adapters.settings.towers == (TEXT,) else None

    def image_features(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch embed"]:
        """Return normalised image features, adapted if the image encoder is."""
        return self.model.image_features(images)

    def classify(
        self, image_features: Float[Tensor, "batch embed"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits of image features."""
        return self.model.match(image_features)

    def model_inference(
        self, input: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits of images."""
        return self.classify(self.image_features(input))

    @contextmanager
    def cached_text_features(self) -> Iterator[None]:
        """Merge all adapters and compute the text features once for this context."""
        mixed = autocast(self.clip_precision, self.device)
        with torch.no_grad(), mixed, self.model.merged():
            yield

    def class_weights(self) -> Float[Tensor, "classes embed"]:
        """Return the normalised text features under the merged text encoder."""
        return self.model.text_features()

    def export_artifacts(self, directory: PathLike) -> None:
        """Write `adapters.safetensors`: A and B, their facts and the run's class names."""
        metadata = {**self.facts, "classnames": list(self.dm.dataset.classnames)}
        save_tensors(Path(directory) / ADAPTER_FILE, self.adapters.state_dict(), metadata)

    def state_dict(self) -> dict[str, Any]:
        """Also return the facts of the adapters."""
        return {**super().state_dict(), FACTS: self.facts}

    def check_resumed(self, state: dict[str, Any]) -> None:
        """Also check that the adapters fit."""
        super().check_resumed(state)
        check_adapters(state["path"], state, state["models"].get("adapters"), self)

    def adapt_state(self, name: str, state: dict[str, Any], path: Path) -> dict[str, Any]:
        """Check that the adapters fit; see `check_adapters`."""
        if self._models.get(name) is self.adapters:
            self.mismatch = check_adapters(path, state, state, self, self.ignore_mismatch)
        return state

    def result_entries(self) -> dict[str, Any]:
        """Return further entries for results.json."""
        return {
            "weights_sha256": self.loaded_clip.sha256,
            "clip": self.loaded_clip.facts,
            "tf32": self.cfg.MODEL.TF32,
            "train_views": self.cfg.INPUT.TRAIN_VIEWS,
            "parameters": sum(tensor.numel() for tensor in self.adapters.parameters()),
            **({"iterations": self.total_batches} if self.total_batches else {}),
            **({"ignored_mismatch": self.mismatch} if self.mismatch else {}),
        }


def _depths(config: CLIPConfig) -> dict[str, int]:
    """Return the number of blocks of each tower with attention blocks, as `lora.depths_of`."""
    vision = {VISION: config.vision_layers} if isinstance(config.vision_layers, int) else {}
    return {**vision, TEXT: config.transformer_layers}


def _with_scale(loaded: LoadedCLIP, scale: float) -> LoadedCLIP:
    """Return the CLIP, whose tensors are shared, with this factor of the cosine similarities.

    0 keeps that of the weights, which other runs of the process may use.
    """
    model = merge(loaded.model, {})
    if scale:
        value = torch.tensor(scale, device=model.logit_scale.device).log()
        model.logit_scale = nn.Parameter(value, requires_grad=False)
    return dataclasses.replace(loaded, model=model)
