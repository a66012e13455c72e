"""Run groups: several runs trained side by side that share forward and backward passes.

Runs on the same classes and backbone differ only in prompts, few-shot samples, settings and seeds.
Each run has its own trainer, batches, optimiser, random generators, log and folder. When it needs
features of a frozen encoder or gradients, it waits for the other runs, and one pass serves all:
prompts are groups of one batch, and the gradient of the summed losses is each prompt's own
gradient. See `dassl.engine.lockstep`.
"""

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clip.text_encoding import SoftPromptEncoder
from dassl.config import to_dict
from dassl.engine import TRAINER_REGISTRY, run_experiment
from dassl.engine.folder_check import claim_folder
from dassl.engine.interruption import stopping_on_signals
from dassl.engine.lockstep import Lockstep
from dassl.utils import choose_device
from safeio.errors import UserError
from safeio.files import prepare_output_dir
from safeio.untrusted import printable

from .features.cache import FeatureCache
from .frozen_encoder import autocast
from .prompt_learner import prompt_length
from .prompt_trainer import PromptTrainer
from .step_hooks import StepHooks

# Order of the shared passes if runs wait for different ones. The backward pass is last, when no
# run still needs features of the same step.
IMAGES, TEXT, TEXT_WITHOUT_GRADIENT, GRADIENTS = range(4)
# Largest run group by device; further runs form further groups. On a CPU, the activations of many
# prompts exceed the caches: with 35 prompts of the bundled encoder a step takes 1.5 times as long
# per prompt as with 5.
RUNS_AT_ONCE = {"cpu": 5}
IMAGES_AT_ONCE = 256  # fills a GPU without holding the activations of all runs' batches


def can_train_together(trainer_class: Any) -> bool:
    """Return whether a trainer class can be in a run group.

    Its features must be frozen and its training step standard, since an overridden loss or backward
    pass might depend on being the only one.
    """
    known = isinstance(trainer_class, type) and issubclass(trainer_class, PromptTrainer)
    return known and trainer_class.standard_step and trainer_class.features is not None


def vector_key(cfg: Any) -> str | None:
    """Return a key that all runs of a run group share; None if the method cannot be in a group.

    It contains the classes, the frozen CLIP and the layout of the prompts. Seeds, shots, batches,
    optimisers, epochs, initial words and settings of Nemesis may differ; a run with fewer epochs
    ends earlier.

    Raises:
        UserError: the trainer does not exist.
    """
    trainer_class = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    if not can_train_together(trainer_class):
        return None
    method = to_dict(cfg.TRAINER[trainer_class.node])
    length = prompt_length(method.pop("N_CTX"), method.pop("CTX_INIT"))
    dataset, model = to_dict(cfg.DATASET), to_dict(cfg.MODEL)
    dataset.pop("NUM_SHOTS")
    model.pop("INIT_WEIGHTS")
    parts = {
        f"TRAINER.{trainer_class.node}": {**method, "length": length},
        "DATASET": dataset,
        "MODEL": model,
        "DEVICE": str(choose_device(cfg)),
    }
    return json.dumps(parts, sort_keys=True)


def train_together(cfgs: Sequence[Any], overwrite: bool = False) -> list[Exception | None]:
    """Train and test several runs side by side; each writes the same files as a single run.

    If a run fails (for example, if its training diverges), the others continue. After an
    interruption, the same call resumes each run, and `train.py` can resume any single one.

    Args:
        cfgs: the runs' configurations, with the same `vector_key` and different folders.
        overwrite: replace finished runs in these folders.

    Returns:
        For each run, the exception that ended it, or None.

    Raises:
        UserError: the runs cannot be trained together, or a folder contains another run.
        Interrupted: Ctrl-C or SIGTERM; every run is saved.
    """
    _check_agreement(cfgs)
    _check_folders(cfgs, overwrite)
    at_once = RUNS_AT_ONCE.get(choose_device(cfgs[0]).type, len(cfgs)) if cfgs else 1
    ends: list[Exception | None] = []
    for start in range(0, len(cfgs), at_once):
        part = cfgs[start : start + at_once]
        group = RunGroup(len(part))
        jobs = [partial(_train, cfg, overwrite, group, sys.stdout) for cfg in part]
        with stopping_on_signals():
            ends += group.lockstep.run(jobs)
        for end in ends:
            if isinstance(end, KeyboardInterrupt):
                raise end
    return ends


def _check_agreement(cfgs: Sequence[Any]) -> None:
    keys = [vector_key(cfg) for cfg in cfgs]
    for cfg, key in zip(cfgs, keys, strict=True):
        if key is None:
            raise UserError(
                f"{cfg.TRAINER.NAME} overrides parts of the training step, so it cannot be trained "
                "together with other runs; train it one run at a time"
            )
        if key != keys[0]:
            first, other = json.loads(str(keys[0])), json.loads(key)
            parts = ", ".join(_differing(first, other))
            raise UserError(
                f"The runs in {cfgs[0].OUTPUT_DIR} and {cfg.OUTPUT_DIR} cannot be trained "
                f"together, since they differ in {parts}; train them in different groups"
            )


def _differing(first: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the dotted names of settings that differ."""
    names = []
    for group in sorted(first.keys() | other.keys()):
        one, two = first.get(group), other.get(group)
        if isinstance(one, dict) and isinstance(two, dict):
            names += [f"{group}.{name}" for name in _differing(one, two)]
        elif one != two:
            names.append(group)
    return names


def _check_folders(cfgs: Sequence[Any], overwrite: bool) -> None:
    folders = set()
    for cfg in cfgs:
        output = Path(prepare_output_dir(cfg.OUTPUT_DIR)).resolve()
        if output in folders:
            raise UserError(f"Two of the runs would write into {output}; give each its own folder")
        folders.add(output)
        claim_folder(cfg, overwrite)


def _train(cfg: Any, overwrite: bool, group: "RunGroup", console: Any) -> Exception | None:
    """Execute one run; print one line about it to the console, everything else to its log."""
    try:
        run_experiment(cfg, overwrite=overwrite, on_trainer=group.add)
    except Exception as error:
        print(printable(f"{cfg.OUTPUT_DIR}: {error}"), file=console)
        return error
    print(f"Results are in {cfg.OUTPUT_DIR}", file=console)
    return None


class RunGroup(StepHooks):
    """Runs whose training steps share their forward and backward passes.

    Args:
        size: number of runs.

    Attributes:
        lockstep: runs the trainers' threads and joins their passes.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.lockstep = Lockstep()
        self._first: PromptTrainer | None = None
        self._encoders: list[SoftPromptEncoder] = []
        self._caches: dict[tuple[str, ...], FeatureCache] = {}

    def add(self, trainer: PromptTrainer) -> None:
        """Make a new trainer share the first one's CLIP and the passes of the group."""
        if self._first is None:
            self._first = trainer
        trainer.step_hooks = self
        trainer.loaded_clip = self._first.loaded_clip
        model = trainer.model
        model.clip_model = trainer.loaded_clip.model
        encoder = GroupTextEncoder(self, self._shared_encoder(model.text_encoder))
        model.add_module("text_encoder", encoder)
        test, batch = trainer.cfg.TEST, trainer.cfg.DATALOADER.TEST.BATCH_SIZE
        folders = (trainer.cfg.DATASET.ROOT, test.FEATURE_CACHE)
        settings = (*folders, str(test.NO_FEATURE_CACHE), str(batch))
        if settings in self._caches:
            trainer.cached_features.cache = self._caches[settings]
        self._caches[settings] = trainer.cached_features.cache
        loader = trainer.train_loader_x
        if loader.num_workers:
            # Divide a single run's data-loading processes among the runs.
            loader.num_workers = max(1, loader.num_workers // self.size)

    def _shared_encoder(self, new: SoftPromptEncoder) -> SoftPromptEncoder:
        """Return the text encoder of an earlier run with the same prompt layout, else `new`."""
        for encoder in self._encoders:
            if encoder.prompts == new.prompts:
                return encoder
        self._encoders.append(new)
        return new

    def image_features(
        self, trainer: PromptTrainer, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch *tokens embed"]:
        """Return the image features of a run's batch, computed together with those of all runs."""
        key = (type(trainer.model), images.shape[1:], images.dtype)
        work = partial(self._encode, trainer.image_features, IMAGES_AT_ONCE)
        return self.lockstep.join(IMAGES, key, images, work)

    def text_features(
        self, encoder: SoftPromptEncoder, ctx: Float[Tensor, "groups *classes length width"]
    ) -> Float[Tensor, "groups classes embed"]:
        """Return the text features of a run's prompts, computed together with those of all runs."""
        with_gradient = torch.is_grad_enabled() and ctx.requires_grad
        stage = TEXT if with_gradient else TEXT_WITHOUT_GRADIENT
        work = partial(self._encode, encoder, None, with_gradient=with_gradient)
        return self.lockstep.join(stage, id(encoder), ctx, work)

    def _encode(
        self,
        encode: Callable[[Tensor], Tensor],
        at_once: int | None,
        rows: list[Tensor],
        with_gradient: bool = False,
    ) -> Sequence[Tensor]:
        """Encode the rows of all runs, at most `at_once` per call; return each run's features."""
        assert self._first is not None
        parts = torch.cat(rows).split(at_once or sum(map(len, rows)))
        mixed = autocast(self._first.clip_precision, self._first.device)
        with mixed, torch.set_grad_enabled(with_gradient):  # both are settings of a run's thread
            features = torch.cat([encode(part) for part in parts])
        return features.split([len(run_rows) for run_rows in rows])

    def backward(self, loss: Float[Tensor, ""]) -> None:
        """Compute the gradients of all runs' losses in one backward pass."""
        self.lockstep.join(GRADIENTS, None, loss, _backward)

    def result_entries(self) -> dict[str, Any]:
        """Return the number of runs that share the recorded training time."""
        return {"vectorised": self.size}


class GroupTextEncoder(nn.Module):
    """Replaces a run's text encoder; encodes the prompts of all runs in one call."""

    def __init__(self, group: RunGroup, encoder: SoftPromptEncoder) -> None:
        super().__init__()
        self.group = group
        self.encoder = encoder

    def forward(
        self, ctx: Float[Tensor, "groups *classes length width"]
    ) -> Float[Tensor, "groups classes embed"]:
        """Return the text features at EOS, not normalised."""
        return self.group.text_features(self.encoder, ctx)


def _backward(losses: list[Tensor]) -> list[None]:
    torch.autograd.backward(losses)
    return [None] * len(losses)
