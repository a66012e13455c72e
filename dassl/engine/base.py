"""Base class of all trainers, as in Dassl: registered models, optimiser steps and epoch loop."""

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from safeio.files import PathLike, mkdir_if_missing
from safeio.untrusted import short_repr

from ..utils import CheckpointFolder, load_checkpoint, random_states, restore_random_states
from ..utils.checkpoint import load_state
from . import interruption
from .capabilities import STEP_HOOKS, Capability, lower_capabilities
from .finite_check import FiniteCheck, Step
from .model_registry import ModelRegistry, Names
from .resume_checkpoint import newest_numbered


class TrainerBase:
    """Loop over epochs; declares all of its attributes, so that `own_state` does not save them."""

    capabilities: ClassVar[dict[str, Capability]] = {
        "resumes_within_epoch": Capability(STEP_HOOKS),
        "checkpoints_complete": Capability(frozenset({"after_epoch"})),
        "standard_test": Capability(frozenset({"test"})),
        "learns": Capability(frozenset({"run_epoch", "forward_backward"}), True),
    }
    # Whether a run can resume between any two batches, or only between epochs. A class declares
    # True if only plain attributes and the content of `state_dict` change from batch to batch.
    resumes_within_epoch = True
    checkpoints_complete = True  # whether a numbered checkpoint contains what after_epoch changes
    shared_epochs = False  # whether epochs are run outside, together with other trainers
    standard_test = True  # whether `test` evaluates the images of `evaluation_set`
    learns = False  # True for a class that defines a training step
    start_epoch = 0  # greater than 0 in a resumed run
    epoch = max_epoch = batch_idx = num_batches = 0
    total_batches = 0  # after which the training ends within an epoch; 0 for whole epochs
    batch_files: Sequence[str] = ()  # images of the current batch, if known
    best_result = float("-inf")  # best validation accuracy so far
    ignore_mismatch = False  # whether `adapt_state` accepts a model that may not fit
    output_dir = ""
    scaler: Any = None  # the gradient scaler of mixed precision
    finite_check: FiniteCheck
    registry: ModelRegistry
    _models: "OrderedDict[str, Any]"  # those of the registry, by Dassl's names
    _optims: "OrderedDict[str, Any]"
    _scheds: "OrderedDict[str, Any]"
    _writer: Any = None
    epoch_start_time = 0.0  # time.perf_counter() minus the time of earlier attempts at the epoch

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        lower_capabilities(cls, cls.capabilities)

    def __init__(self) -> None:
        self.registry = registry = ModelRegistry()
        self._models, self._optims, self._scheds = registry.models, registry.optims, registry.scheds
        self.finite_check = FiniteCheck(self._models)

    def register_model(
        self,
        name: str = "model",
        model: nn.Module | None = None,
        optim: torch.optim.Optimizer | None = None,
        sched: Any = None,
    ) -> None:
        """Register a model to train, save and resume; see `ModelRegistry.register`.

        Raises:
            AttributeError: `super().__init__()` was not called before.
            ValueError: the name is already registered.
        """
        if "registry" not in self.__dict__:
            raise AttributeError("Call super().__init__() before register_model()")
        self.registry.register(name, model, optim, sched)

    def get_model_names(self, names: Names = None) -> list[str]:
        """Return the names as a list, by default all; an unknown name raises ValueError."""
        return self.registry.names(names)

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to resume as plain values and tensors, which are not copied.

        A subclass adds the state of its own objects; its plain attributes are saved automatically.
        """
        return {
            "models": self.registry.state_dict(),
            "best_result": float(self.best_result),
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "random_states": random_states(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of `state_dict`; earlier versions may not have saved all entries.

        Called after `before_train`, and again after `before_epoch` of an epoch that resumes within.
        The state also contains "epoch" and "path", the checkpoint file.
        """
        self.registry.load_state_dict(state["models"], state.get("epoch"), state.get("path"))
        if isinstance(best := state.get("best_result"), int | float):
            self.best_result = best
        if self.scaler is not None and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        if state.get("random_states"):
            restore_random_states(state["random_states"])

    def save_model(
        self,
        epoch: int,
        directory: PathLike,
        is_best: bool = False,
        val_result: float | None = None,
        model_name: str = "",
    ) -> None:
        """Save a checkpoint of each model with everything needed to resume.

        The epoch that has just ended counts from 0. `is_best` also saves model-best.pth.tar, and
        `model_name` replaces the file name model.pth.tar-<epoch + 1>.

        Raises:
            FloatingPointError: the training has diverged; no file is written.
        """
        self.finite_check.check_all(self.epoch, self.scaler)
        self._begin_saving()
        result = float(val_result) if val_result is not None else None
        state = {**self.state_dict(), "epoch": epoch + 1, "val_result": result}
        for name, own in state.pop("models").items():
            CheckpointFolder(Path(directory) / name).save({**own, **state}, is_best, model_name)

    def resume_model_if_exist(self, directory: PathLike) -> int:
        """Resume from the newest epoch saved for all models; return it, or 0 if none is found."""
        state = newest_numbered(Path(directory), self._models)
        if state is None:
            print("No checkpoint found, train from scratch")
            return 0
        print(f"Found checkpoint at {directory} (will resume training)")
        self.load_state_dict(state)
        for name, own in state["models"].items():
            print(f'Loaded {name} from "{own["path"]}" (epoch {state["epoch"]})')
        return int(state["epoch"])

    def load_model(self, directory: PathLike | None, epoch: int | None = None) -> None:
        """Load the weights of all models from a run's folder to evaluate them.

        The folder "" or None loads nothing; the epoch None loads the best or else the newest.

        Raises:
            UserError: a checkpoint is missing, damaged or of another model.
        """
        if not directory:
            print("load_model() is skipped because no pretrained model is given")
            return
        for name, model in self._models.items():
            path = CheckpointFolder(Path(directory) / name).choose(epoch)
            state = self.adapt_state(name, load_checkpoint(path), path)
            load_state(path, state, model)
            print(f'Loaded {name} from "{path}" (epoch {short_repr(state.get("epoch"))})')

    def adapt_state(self, name: str, state: dict[str, Any], path: Path) -> dict[str, Any]:
        """Hook: change or refuse a model's checkpoint before the model is evaluated."""
        del name, path
        return state

    def set_model_mode(self, mode: str = "train", names: Names = None) -> None:
        """Set models to training ("train") or evaluation mode ("test", "eval"); else KeyError."""
        if mode not in ("train", "test", "eval"):
            raise KeyError(f'The mode "{mode}" is unknown; accepted: train, test, eval')
        for name in self.get_model_names(names):
            self._models[name].train(mode == "train")

    def update_lr(self, names: Names = None) -> None:
        """Step the learning-rate schedules; call this once at the end of each epoch."""
        for name in self.get_model_names(names):
            if self._scheds[name] is not None:
                self._scheds[name].step()

    def get_current_lr(self, names: Names = None) -> float:
        """Return the first optimiser's learning rate; without an optimiser, raise ValueError."""
        for optim in self.registry.optimizers(names):
            return float(optim.param_groups[0]["lr"])
        raise ValueError("No model has an optimiser")

    def _lr_or_none(self) -> float | None:
        return self.get_current_lr() if any(self.registry.optimizers()) else None

    def model_zero_grad(self, names: Names = None) -> None:
        """Clear the gradients."""
        for optim in self.registry.optimizers(names):
            optim.zero_grad()

    def model_backward(self, loss: Tensor) -> None:
        """Check that the loss is finite and run the backward pass."""
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names: Names = None) -> None:
        """Check that the gradients are finite and step the optimisers."""
        self.detect_bad_gradients(names)
        for optim in self.registry.optimizers(names):
            optim.step()

    def model_backward_and_update(self, loss: Tensor, names: Names = None) -> None:
        """Clear the gradients, run the backward pass and step the optimisers."""
        self.model_zero_grad(names)
        self.model_backward(loss)
        self.model_update(names)

    def detect_anomaly(self, loss: Tensor) -> None:
        """Raise FloatingPointError if a loss is NaN or infinite; see `FiniteCheck.add`."""
        self.finite_check.add("loss", loss.detach(), self._step())

    def detect_bad_gradients(self, names: Names = None) -> None:
        """Raise FloatingPointError if the gradients' norm is not finite and no scaler skips it."""
        if self.scaler is None or not self.scaler.is_enabled():
            self.finite_check.add_gradients(self.registry.optimizers(names), self._step())

    def _step(self) -> Step:
        return Step(self.epoch, self.batch_idx, self.batch_files)

    def init_writer(self, log_dir: PathLike, purge_step: int | None = None) -> None:
        """Open the TensorBoard writer; hide earlier events from `purge_step` on."""
        if self.__dict__.get("_writer") is None:
            # Imported here because it takes a second, which an evaluation does not need.
            from torch.utils.tensorboard import SummaryWriter

            print(f"Initialize tensorboard (log_dir={log_dir})")
            mkdir_if_missing(log_dir)
            self._writer = SummaryWriter(str(log_dir), purge_step=purge_step)

    def close_writer(self) -> None:
        """Close the TensorBoard writer, if it is open."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def write_scalar(
        self, tag: str, scalar_value: float | int, global_step: int | None = None
    ) -> None:
        """Write a number to TensorBoard if the writer is open."""
        if self._writer is not None:
            self._writer.add_scalar(tag, scalar_value, global_step)

    def train(self, start_epoch: int, max_epoch: int) -> None:
        """Train from `start_epoch`, which `before_train` may raise to resume, to `max_epoch`."""
        for _ in self.training(start_epoch, max_epoch):
            pass

    def training(self, start_epoch: int, max_epoch: int) -> Iterator[None]:
        """Train; if `shared_epochs`, yield instead of each `run_epoch`, which the caller replaces.

        The caller throws an exception that ends this run into the generator.
        """
        self.start_epoch, self.max_epoch = start_epoch, max_epoch
        self.before_train()
        self._begin_training()
        # If all epochs are done already, the test still belongs to the last epoch.
        self.epoch = max(0, min(self.start_epoch, self.max_epoch - 1))
        for self.epoch in range(self.start_epoch, self.max_epoch):  # noqa: B020
            self._begin_epoch()
            self.epoch_start_time = time.perf_counter()
            self.before_epoch()
            with interruption.deferred():
                if self.shared_epochs:
                    yield
                else:
                    self.run_epoch()
                self.finite_check.check_all(self.epoch, self.scaler)
                self._record_epoch(time.perf_counter() - self.epoch_start_time)
                self.after_epoch()
                self._end_epoch()
        self.after_train()

    # `SimpleTrainer` defines these; subclasses define the hooks below.
    def _begin_training(self) -> None: ...
    def _begin_epoch(self) -> None: ...
    def _record_epoch(self, seconds: float) -> None: ...
    def _end_epoch(self) -> None: ...
    def _begin_saving(self) -> None: ...

    def before_train(self) -> None:
        """Hook: called once before the first epoch."""

    def after_train(self) -> None:
        """Hook: called once after the last epoch."""

    def before_epoch(self) -> None:
        """Hook: called before each epoch."""

    def after_epoch(self) -> None:
        """Hook: called after each epoch."""

    def _not_implemented(self, *args: Any, **kwargs: Any) -> Any:
        """Raise NotImplementedError: a subclass defines this method, as in Dassl."""
        raise NotImplementedError

    run_epoch = forward_backward = parse_batch_train = _not_implemented
    test = parse_batch_test = model_inference = _not_implemented
