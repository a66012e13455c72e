"""Several runs trained together: one text encoder for all their prompts at once.

Runs on the same classes and backbone differ in their soft prompts, few-shot items, settings and
random draws. Every run is a trainer of its own that goes through its own code, with its own
batches, optimiser, random generators, log and folder. Where it asks a frozen tower for features, or
for gradients, it waits for the others, and all are answered at once: prompts are groups of one
batch, and the sum of the losses has each prompt's own gradient. See `dassl.engine.lockstep`.
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
from .precision import autocast
from .prompt_learner import prompt_length
from .prompt_trainer import PromptTrainer
from .prompted_clip import PromptedCLIP
from .step_hooks import StepHooks

# In which order joint work is done where runs ask for different kinds: gradients last, when no run
# can still ask for what belongs to the same step.
IMAGES, TEXT, TEXT_AS_IT_IS, GRADIENTS = range(4)
# More runs than this go one group after the other. What many prompts keep for their gradients
# leaves a CPU's caches: with 35 of the bundled tower's at once a step takes half as long again per
# prompt as with 5. A GPU has no such bound.
RUNS_AT_ONCE = {"cpu": 5}
IMAGES_AT_ONCE = 256  # enough to keep a GPU busy, without the activations of all runs' batches


def can_train_together(trainer_class: Any) -> bool:
    """Whether a trainer's steps are standard ones on a frozen tower.

    A class that computes losses or gradients in a way of its own might need them by itself.
    """
    known = isinstance(trainer_class, type) and issubclass(trainer_class, PromptTrainer)
    return known and trainer_class.standard_step and trainer_class.features is not None


def vector_key(cfg: Any) -> str | None:
    """What runs must agree in to be trained together; None for a method that cannot be.

    These are the classes, the frozen CLIP, and the layout of the prompts. Seeds, shots, batches,
    optimisers, epochs, CoOp's initial words and Nemesis settings may differ; runs that are
    shorter than others end before them.

    Raises:
        UserError: there is no such trainer.
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
    """Train and test several runs side by side; each leaves the folder of a run of its own.

    A run that fails (its training diverges, say) ends alone. Checkpoints are ordinary ones: after
    an interruption, the same call resumes each run, and so does `train.py` with one of them.

    Args:
        cfgs: the runs' configurations, of one `vector_key`, each with a folder of its own.
        overwrite: replace finished runs in these folders.

    Returns:
        What ended each run: None, or the exception.

    Raises:
        UserError: the runs cannot be trained together, or a folder is taken.
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
                f"{cfg.TRAINER.NAME} takes its training steps in a way of its own and cannot be "
                "trained together with other runs; train it one run at a time"
            )
        if key != keys[0]:
            first, other = json.loads(str(keys[0])), json.loads(key)
            parts = ", ".join(_differing(first, other))
            raise UserError(
                f"The runs in {cfgs[0].OUTPUT_DIR} and {cfg.OUTPUT_DIR} cannot be trained "
                f"together, since they differ in {parts}; put them into different groups"
            )


def _differing(first: dict[str, Any], other: dict[str, Any]) -> list[str]:
    names = []
    for group in sorted(first.keys() | other.keys()):
        one, two = first.get(group), other.get(group)
        if isinstance(one, dict) and isinstance(two, dict):
            names += [f"{group}.{name}" for name in _differing(one, two)]
        elif one != two:
            names.append(group)
    return names


def _check_folders(cfgs: Sequence[Any], overwrite: bool) -> None:
    known = set()
    for cfg in cfgs:
        output = Path(prepare_output_dir(cfg.OUTPUT_DIR)).resolve()
        if output in known:
            raise UserError(f"Two of the runs would write into {output}; give each its own folder")
        known.add(output)
        claim_folder(cfg, overwrite)


def _train(cfg: Any, overwrite: bool, group: "RunGroup", console: Any) -> Exception | None:
    """Do one of the runs; the console gets one line about it, its log the rest."""
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
        size: how many there are.

    Attributes:
        lockstep: in which they run.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.lockstep = Lockstep()
        self._first: PromptTrainer | None = None
        self._encoders: list[SoftPromptEncoder] = []
        self._caches: dict[tuple[str, ...], FeatureCache] = {}

    def add(self, trainer: PromptTrainer) -> None:
        """Let a new trainer use what the first one has loaded, and compute with all others."""
        if self._first is None:
            self._first = trainer
        trainer.step_hooks = self
        trainer.loaded_clip = self._first.loaded_clip
        model = trainer.model
        model.clip_model = trainer.loaded_clip.model
        encoder = GroupTextEncoder(self, self._shared_encoder(model.text_encoder))
        model.add_module("text_encoder", encoder)
        test = trainer.cfg.TEST
        settings = (trainer.cfg.DATASET.ROOT, test.FEATURE_CACHE, str(test.NO_FEATURE_CACHE))
        if settings in self._caches:
            trainer.cached_features.cache = self._caches[settings]
        self._caches[settings] = trainer.cached_features.cache
        loader = trainer.train_loader_x
        if loader.num_workers:
            # As many processes in all as one run has, where there are enough of them.
            loader.num_workers = max(1, loader.num_workers // self.size)

    def _shared_encoder(self, own: SoftPromptEncoder) -> SoftPromptEncoder:
        """The encoder of an earlier run with the same prompts, or else this run's own."""
        for encoder in self._encoders:
            if encoder.prompts == own.prompts:
                return encoder
        self._encoders.append(own)
        return own

    def image_features(
        self, model: PromptedCLIP, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch *tokens embed"]:
        """The features of a run's batch, computed with the batches of all runs."""
        key = (type(model), images.shape[1:], images.dtype)
        work = partial(self._encode, model.image_features, IMAGES_AT_ONCE)
        return self.lockstep.join(IMAGES, key, images, work)

    def text_features(
        self, encoder: SoftPromptEncoder, ctx: Float[Tensor, "groups *classes length width"]
    ) -> Float[Tensor, "groups classes embed"]:
        """The features of a run's prompts, computed with the prompts of all runs."""
        tracked = torch.is_grad_enabled() and ctx.requires_grad
        stage = TEXT if tracked else TEXT_AS_IT_IS
        work = partial(self._encode, encoder, None, tracked=tracked)
        return self.lockstep.join(stage, id(encoder), ctx, work)

    def _encode(
        self,
        encode: Callable[[Tensor], Tensor],
        at_once: int | None,
        rows: list[Tensor],
        tracked: bool = False,
    ) -> Sequence[Tensor]:
        """Run the rows of all runs through a tower, and give each run its own."""
        assert self._first is not None
        parts = torch.cat(rows).split(at_once or sum(map(len, rows)))
        mixed = autocast(self._first.tower_precision, self._first.device)
        with mixed, torch.set_grad_enabled(tracked):  # as in the threads of the runs
            features = torch.cat([encode(part) for part in parts])
        return features.split([len(own) for own in rows])

    def backward(self, loss: Float[Tensor, ""]) -> None:
        """The gradients of all runs' losses at once; each prompt gets that of its own."""
        self.lockstep.join(GRADIENTS, None, loss, _backward)

    def result_entries(self) -> dict[str, Any]:
        """How many runs shared the time."""
        return {"vectorised": self.size}


class GroupTextEncoder(nn.Module):
    """Takes the place of one run's text encoder; encodes the prompts of all runs in one call."""

    def __init__(self, group: RunGroup, encoder: SoftPromptEncoder) -> None:
        super().__init__()
        self.group = group
        self.encoder = encoder

    def forward(
        self, ctx: Float[Tensor, "groups *classes length width"]
    ) -> Float[Tensor, "groups classes embed"]:
        """Text features at EOS, not normalised."""
        return self.group.text_features(self.encoder, ctx)


def _backward(losses: list[Tensor]) -> list[None]:
    torch.autograd.backward(losses)
    return [None] * len(losses)
