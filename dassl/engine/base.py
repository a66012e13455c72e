"""The base of all trainers, as in Dassl: models, their steps, and the loop over the epochs."""

import time
from collections import OrderedDict
from collections.abc import Sequence
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
    """A loop over epochs and the models that it trains.

    Attributes of the engine are declared in class bodies, from which `own_state` knows them.
    """

    capabilities: ClassVar[dict[str, Capability]] = {
        "resumes_within_epoch": Capability(STEP_HOOKS),
        "checkpoints_complete": Capability(frozenset({"after_epoch"})),
    }
    # Whether a run is saved between any two batches, or only between epochs. Declared True, it says
    # that nothing is gathered from batch to batch but plain attributes and what `state_dict` holds.
    resumes_within_epoch = True
    # Whether a numbered checkpoint holds all that its epoch did, `after_epoch` included.
    checkpoints_complete = True
    learns = True  # False for zero-shot methods, which are tested untrained
    start_epoch = 0  # later after a resume
    max_epoch = 0  # number of epochs in all
    epoch = batch_idx = 0
    num_batches = 0
    batch_files: Sequence[str] = ()  # the present batch's images, as far as they are known
    best_result = float("-inf")  # on the validation set so far
    ignore_mismatch = False  # whether `adapt_state` lets pass what only looks wrong
    output_dir = ""
    scaler: Any = None  # the gradient scaler of mixed precision
    finite_check: FiniteCheck
    registry: ModelRegistry
    _models: "OrderedDict[str, Any]"
    _optims: "OrderedDict[str, Any]"
    _scheds: "OrderedDict[str, Any]"
    _writer: Any
    epoch_began = 0.0  # by time.perf_counter(); earlier for an epoch that is resumed

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        lower_capabilities(cls, cls.capabilities)

    def __init__(self) -> None:
        self.registry = registry = ModelRegistry()
        self._models, self._optims, self._scheds = registry.models, registry.optims, registry.scheds
        self._writer = None
        self.finite_check = FiniteCheck(self._models)

    def register_model(
        self,
        name: str = "model",
        model: nn.Module | None = None,
        optim: torch.optim.Optimizer | None = None,
        sched: Any = None,
    ) -> None:
        """Register a model, to be saved, resumed and stepped; see `ModelRegistry.register`.

        Raises:
            AttributeError: `super().__init__()` was not called before.
        """
        if "registry" not in self.__dict__:
            raise AttributeError("Call super().__init__() before register_model()")
        self.registry.register(name, model, optim, sched)

    def get_model_names(self, names: Names = None) -> list[str]:
        """Return the given names as a list, or all; ValueError for an unknown one."""
        return self.registry.names(names)

    def state_dict(self) -> dict[str, Any]:
        """Return all that resuming needs, as tensors (not copied) and plain values.

        A subclass adds what it has in objects of its own; its plain attributes are saved anyway.
        """
        return {
            "models": self.registry.state_dict(),
            "best_result": float(self.best_result),
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "random_states": random_states(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned; what an earlier version saved may lack entries.

        A resumed run calls it after `before_train`, and within an epoch again after `before_epoch`.
        Beside what was returned, the state has its "epoch" and the "path" of its file.
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
        """Save all models with everything that resuming needs.

        Args:
            epoch: the epoch that has just ended, from 0.
            directory: the run's folder; each model has its own inside.
            is_best: also save it as model-best.pth.tar.
            val_result: result on the validation set.
            model_name: file name instead of model.pth.tar-<epoch + 1>.

        Raises:
            FloatingPointError: the training has diverged; nothing is written.
        """
        self.finite_check.check_all(self.epoch, self.scaler)
        result = float(val_result) if val_result is not None else None
        state = {**self.state_dict(), "epoch": epoch + 1, "val_result": result}
        for name, own in state.pop("models").items():
            CheckpointFolder(Path(directory) / name).save({**own, **state}, is_best, model_name)

    def resume_model_if_exist(self, directory: PathLike) -> int:
        """Resume from the newest checkpoint that all models have; returns the epoch, 0 for none."""
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
        """Load the weights of all models from a run's folder, to evaluate them.

        Args:
            directory: the folder; without one nothing is loaded.
            epoch: number of the checkpoint; None takes the best, or else the newest.
        """
        if not directory:
            print("No pretrained model is given: load_model() has nothing to do")
            return
        for name, model in self._models.items():
            path = CheckpointFolder(Path(directory) / name).choose(epoch)
            state = self.adapt_state(name, load_checkpoint(path), path)
            load_state(path, state, model)
            print(f'Loaded {name} from "{path}" (epoch {short_repr(state.get("epoch"))})')

    def adapt_state(self, name: str, state: dict[str, Any], path: Path) -> dict[str, Any]:
        """Hook: change or refuse the checkpoint of a model before it is evaluated."""
        del name, path
        return state

    def set_model_mode(self, mode: str = "train", names: Names = None) -> None:
        """Put models in training ("train") or evaluation mode ("test", "eval"), or KeyError."""
        if mode not in ("train", "test", "eval"):
            raise KeyError(f'The mode "{mode}" is none of train, test, eval')
        for name in self.get_model_names(names):
            self._models[name].train(mode == "train")

    def update_lr(self, names: Names = None) -> None:
        """Step the learning-rate schedules; once at the end of each epoch."""
        for name in self.get_model_names(names):
            if self._scheds[name] is not None:
                self._scheds[name].step()

    def get_current_lr(self, names: Names = None) -> float:
        """Return the learning rate of the first model that has an optimiser; ValueError if none."""
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
        """Check the loss and compute its gradients."""
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names: Names = None) -> None:
        """Check the gradients and step the optimisers."""
        self.detect_bad_gradients(names)
        for optim in self.registry.optimizers(names):
            optim.step()

    def model_backward_and_update(self, loss: Tensor, names: Names = None) -> None:
        """Clear gradients, compute them anew and step the optimisers."""
        self.model_zero_grad(names)
        self.model_backward(loss)
        self.model_update(names)

    def detect_anomaly(self, loss: Tensor) -> None:
        """Stop with a FloatingPointError when a loss is not finite; see `FiniteCheck.add`."""
        self.finite_check.add("loss", loss.detach(), self._step())

    def detect_bad_gradients(self, names: Names = None) -> None:
        """Stop, as `detect_anomaly`, when the norm of the gradients is not finite.

        Not under a gradient scaler, which leaves such a step out and scales less from then on.
        """
        if self.scaler is None or not self.scaler.is_enabled():
            self.finite_check.add_gradients(self.registry.optimizers(names), self._step())

    def _step(self) -> Step:
        return Step(self.epoch, self.batch_idx, self.batch_files)

    def init_writer(self, log_dir: PathLike, purge_step: int | None = None) -> None:
        """Open the TensorBoard writer; hide what an earlier attempt wrote from `purge_step` on."""
        if self.__dict__.get("_writer") is None:
            # Importing TensorBoard takes a second, which an evaluation need not wait for.
            from torch.utils.tensorboard import SummaryWriter

            print(f"Initialize tensorboard (log_dir={log_dir})")
            mkdir_if_missing(log_dir)
            self._writer = SummaryWriter(str(log_dir), purge_step=purge_step)

    def close_writer(self) -> None:
        """Close the writer."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def write_scalar(
        self, tag: str, scalar_value: float | int, global_step: int | None = None
    ) -> None:
        """Write a number for TensorBoard; does nothing without a writer."""
        if self._writer is not None:
            self._writer.add_scalar(tag, scalar_value, global_step)

    def train(self, start_epoch: int, max_epoch: int) -> None:
        """Run all epochs; `before_train` may move `start_epoch` to resume."""
        self.start_epoch, self.max_epoch = start_epoch, max_epoch
        self.before_train()
        self._begin_training()
        # After the last epoch of an earlier attempt, the test is that of the last epoch.
        self.epoch = max(0, min(self.start_epoch, self.max_epoch - 1))
        for self.epoch in range(self.start_epoch, self.max_epoch):  # noqa: B020
            self._begin_epoch()
            self.epoch_began = time.perf_counter()
            self.before_epoch()
            with interruption.deferred():
                self.run_epoch()
                self.finite_check.check_all(self.epoch, self.scaler)
                self._record_epoch(time.perf_counter() - self.epoch_began)
                self.after_epoch()
                self._end_epoch()
        self.after_train()

    # Steps of `SimpleTrainer` around the hooks.

    def _begin_training(self) -> None: ...

    def _begin_epoch(self) -> None: ...

    def _record_epoch(self, seconds: float) -> None: ...

    def _end_epoch(self) -> None: ...

    def before_train(self) -> None:
        """Hook."""

    def after_train(self) -> None:
        """Hook."""

    def before_epoch(self) -> None:
        """Hook."""

    def after_epoch(self) -> None:
        """Hook."""

    def _not_implemented(self, *args: Any, **kwargs: Any) -> Any:
        """For a subclass to define, as in Dassl."""
        raise NotImplementedError

    run_epoch = forward_backward = parse_batch_train = _not_implemented
    test = parse_batch_test = model_inference = _not_implemented
