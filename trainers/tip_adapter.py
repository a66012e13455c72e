"""Tip-Adapter: Training-free Adaption of CLIP (Zhang et al., ECCV 2022).

A cache of the training images' features K with their labels Y corrects zero-shot CLIP:

    logits = 100 f G^T + alpha exp(-beta (1 - f K^T)) Y.

Nothing is trained; alpha and beta are chosen on the validation images (in the published code on the
test images). G are the text features of the dataset's templates. tip_adapter_f.py trains K.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dassl.config import CfgNode, declare_config
from dassl.engine import TRAINER_REGISTRY, TrainerX
from safeio.errors import UserError
from safeio.files import PathLike

from .core import prompt_metadata as metadata
from .core.features.cache import RAW
from .core.features.evaluation import labels_of
from .core.features.view_pool import view_features
from .core.frozen_encoder import encode_frozen
from .core.key_cache import KeyCache, check_settings, mean_key, search
from .core.prompt_file import save_tensors
from .zsclip import ZeroshotCLIP

NODE = "TIPADAPTER"
declare_config(
    f"TRAINER.{NODE}",
    {
        "PREC": "fp32",
        "VIEWS": 10,  # augmentations of a training image whose features a key averages
        "ALPHA": 1.0,  # initial values, at which Tip-Adapter-F trains
        "BETA": 1.0,
        "SEARCH": True,  # choose alpha and beta on the validation images
        "SEARCH_SCALE": (13.0, 13.0),  # upper ends of beta and alpha
        "SEARCH_STEP": (200, 20),  # number of values of beta and alpha
    },
)


@TRAINER_REGISTRY.register()
class TipAdapter(ZeroshotCLIP):
    """A cache of training features that corrects zero-shot CLIP, without training."""

    paper = "Zhang et al., ECCV 2022"
    prompts = "the dataset's templates; a cache of image features"
    trains_on_features = checkpoints_complete = True
    bound_to_classes = True  # a key votes for the class of its image
    train = TrainerX.train
    no_matrix = "adds a cache of keys to the text features"
    model: KeyCache
    found: dict[str, Any]  # by the grid search; empty before

    @property
    def clip_precision(self) -> str:
        """The precision of the frozen CLIP."""
        return self.cfg.TRAINER[NODE].PREC

    def check_cfg(self, cfg: CfgNode) -> None:
        """Check the settings before anything is loaded."""
        check_settings(cfg, NODE)

    def check_train(self) -> None:
        """Also refuse a search without validation images."""
        TrainerX.check_train(self)
        if self.cfg.TRAINER[NODE].SEARCH and self.val_loader is None:
            raise UserError(
                f"{self.cfg.DATASET.NAME} has no validation images to choose alpha and beta on; "
                f"set TRAINER.{NODE}.SEARCH False to use TRAINER.{NODE}.ALPHA and BETA"
            )

    def select_templates(self, templates: Sequence[str]) -> Sequence[str]:
        """Return all templates of the dataset."""
        return templates

    def build_model(self) -> None:
        """Load CLIP, encode the templates and register the cache, whose keys are still zero."""
        super().build_model()
        own = self.cfg.TRAINER[NODE]
        labels, width = labels_of(self.train_loader_x), self.text_features.shape[1]
        model = KeyCache(labels, self.num_classes, width, own.ALPHA, own.BETA)
        self.model, self.found = model.to(self.device), {}
        self.metadata = metadata.describe_prompts(
            self.cfg, NODE, self.loaded_clip, self.dm.dataset.classnames
        )
        self.register_model("key_cache", self.model, *self.build_optimizer())

    def build_optimizer(self) -> tuple[Any, Any]:
        """Return the optimiser and the schedule; here neither, and one epoch without a step."""
        self.model.requires_grad_(False)
        self.max_epoch = 1
        return None, None

    def before_train(self) -> None:
        """Compute the keys; a resumed run then replaces them by those of its checkpoint."""
        super().before_train()
        loader, views = self.train_loader_x, range(self.cfg.TRAINER[NODE].VIEWS)
        rows = [view_features(self, loader, RAW, view) for view in views]
        self.model.keys.data.copy_(mean_key([one.read(0, len(one)).float() for one in rows]))

    def run_epoch(self) -> None:
        """Train nothing."""

    def after_epoch(self) -> None:
        """Choose alpha and beta after the last epoch; save checkpoints."""
        own = self.cfg.TRAINER[NODE]
        if self.epoch + 1 == self.max_epoch and own.SEARCH:
            rows = self.cached_features.rows(self.val_loader)
            features = rows.read(0, len(rows)).to(self.device)
            truth = labels_of(self.val_loader).to(self.device)
            known = features, truth, self.text_features
            self.found = search(self.model, *known, own.SEARCH_SCALE, own.SEARCH_STEP)
            print(f"Best on {len(truth):,} validation images: {self.found}")
        super().after_epoch()

    def raw_features(self, images: Float[Tensor, "batch 3 height width"]) -> Tensor:
        """Return image features (B, E) before their normalisation."""
        return encode_frozen(self.loaded_clip.model.encode_image, images, normalised=False)

    def classify(
        self, image_features: Float[Tensor, "batch embed"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits, in fp32."""
        with torch.autocast(self.device.type, enabled=False):
            return self.model(image_features, self.text_features)

    def state_dict(self) -> dict[str, Any]:
        """Also return the metadata of the cache."""
        return {**super().state_dict(), metadata.METADATA: self.metadata}

    def adapt_state(self, name: str, state: dict[str, Any], path: Path) -> dict[str, Any]:
        """Refuse a cache of another backbone or of other classes."""
        metadata.check_same_training(path, metadata.checkpoint_metadata(state), self.metadata)
        return super().adapt_state(name, state, path)

    def export_artifacts(self, directory: PathLike) -> None:
        """Write `key_cache.safetensors`: all that the logits need besides image features."""
        tensors = {**self.model.state_dict(), "text_features": self.text_features}
        save_tensors(Path(directory) / "key_cache.safetensors", tensors, self.metadata)

    def result_entries(self) -> dict[str, Any]:
        """Return further entries for results.json."""
        own = {"alpha": float(self.model.alpha), "beta": float(self.model.beta), **self.found}
        trained = sum(one.numel() for one in self.model.parameters() if one.requires_grad)
        return {
            **super().result_entries(),
            "parameters": trained,
            "tip_adapter": {**own, "keys": len(self.model.keys)},
        }
