"""The models under a trainer's care: stepping, saving, loading and resuming them."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from safeio.errors import UserError
from safeio.files import PathLike
from safeio.untrusted import shown

from ..utils import (
    find_checkpoint,
    load_checkpoint,
    load_last_common,
    random_states,
    restore_random_states,
    save_checkpoint,
)
from ..utils.checkpoint import finished_epochs, load_state
from .divergence import DivergenceWatch

Names = str | Sequence[str] | None


def choose_checkpoint(folder: Path, epoch: int | None = None) -> Path:
    """Which of a model's checkpoints stands for it.

    Args:
        folder: of the model, in the run's folder.
        epoch: number of the checkpoint; None takes the best, or else the newest.

    Raises:
        UserError: there is none.
    """
    if epoch is not None:
        return folder / f"model.pth.tar-{epoch}"
    best = folder / "model-best.pth.tar"
    path = best if best.is_file() else find_checkpoint(folder) or _newest(folder)
    if path is None:
        raise UserError(f'No checkpoint in "{folder}"')
    return path


def _newest(folder: Path) -> Path | None:
    """The checkpoint of the highest epoch, for a folder that was copied without `checkpoint`."""
    numbers = [file.name.rpartition("-")[2] for file in folder.glob("model.pth.tar-*")]
    found = [int(number) for number in numbers if number.isdecimal()]
    return folder / f"model.pth.tar-{max(found)}" if found else None


class ModelKeeper(DivergenceWatch):
    """Keeps named models with their optimisers and schedules.

    Attributes:
        best_result: best result on the validation set so far.
        ignore_mismatch: `adapt_state` is to let pass what only looks wrong.
    """

    best_result = float("-inf")
    ignore_mismatch = False

    def __init__(self) -> None:
        super().__init__()
        self._scheds: OrderedDict[str, Any] = OrderedDict()

    def register_model(
        self,
        name: str = "model",
        model: nn.Module | None = None,
        optim: torch.optim.Optimizer | None = None,
        sched: Any = None,
    ) -> None:
        """Put a model under the trainer's care, to be saved, resumed and stepped.

        Args:
            name: also the name of its folder of checkpoints.
            model: the module that learns.
            optim: its optimiser; None when it does not learn.
            sched: its learning-rate schedule.

        Raises:
            AttributeError: `super().__init__()` was not called before.
            ValueError: the name is taken.
        """
        if "_models" not in self.__dict__:
            raise AttributeError("Call super().__init__() before register_model()")
        if name in self._models:
            raise ValueError(f'A model named "{name}" is already registered')
        self._models[name] = model
        self._optims[name] = optim
        self._scheds[name] = sched

    def get_model_names(self, names: Names = None) -> list[str]:
        """Return the given names as a list, or all.

        Raises:
            ValueError: an unknown name.
        """
        if names is None:
            return list(self._models)
        wanted = [names] if isinstance(names, str) else list(names)
        for name in wanted:
            if name not in self._models:
                raise ValueError(f'No model is registered as "{name}"')
        return wanted

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
            is_best: also keep it as model-best.pth.tar.
            val_result: result on the validation set.
            model_name: file name instead of model.pth.tar-<epoch + 1>.

        Raises:
            FloatingPointError: the training has diverged; nothing is written.
        """
        self.check_losses()
        self.check_learned()
        for name in self._models:
            state = {
                **self.model_state(name),
                **self.run_state(),
                "epoch": epoch + 1,
                "val_result": float(val_result) if val_result is not None else None,
            }
            folder = Path(directory) / name
            save_checkpoint(state, folder, is_best=is_best, model_name=model_name)

    def model_state(self, name: str) -> dict[str, Any]:
        """What a model and its optimiser and schedule have learned; tensors are not copied."""
        optim, sched = self._optims[name], self._scheds[name]
        return {
            "state_dict": self._models[name].state_dict(),
            "optimizer": optim.state_dict() if optim is not None else None,
            "scheduler": sched.state_dict() if sched is not None else None,
        }

    def run_state(self) -> dict[str, Any]:
        """What is there once for all models."""
        scaler = getattr(self, "scaler", None)
        return {
            "best_result": float(self.best_result),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "random_states": random_states(),
        }

    def resume_model_if_exist(self, directory: PathLike) -> int:
        """Continue from the newest checkpoint that all models have.

        Returns:
            The epoch to go on with; 0 when there is none.
        """
        folders = {name: Path(directory) / name for name in self.get_model_names()}
        newest = load_last_common(folders)
        if not newest:
            print("No checkpoint found, train from scratch")
            return 0
        print(f"Found checkpoint at {directory} (will resume training)")
        for name, (path, state) in newest.items():
            epoch = finished_epochs(path, state)
            self.restore_model_state(name, state, path)
            print(f'Loaded {name} from "{path}" (epoch {epoch})')
        self.restore_run_state(state)
        return epoch

    def restore_model_state(self, name: str, state: dict[str, Any], path: Path | None) -> None:
        """Put back what `model_state` returned.

        Args:
            name: of the model.
            state: its state.
            path: the file that it comes from.

        Raises:
            UserError: it belongs to another model.
        """
        load_state(path, state, self._models[name], self._optims[name], self._scheds[name])

    def restore_run_state(self, state: dict[str, Any]) -> None:
        """Put back what `run_state` returned, as far as it is there."""
        best = state.get("best_result")
        if isinstance(best, int | float):
            self.best_result = best
        scaler = getattr(self, "scaler", None)
        if scaler is not None and state.get("scaler"):
            scaler.load_state_dict(state["scaler"])
        if state.get("random_states"):
            restore_random_states(state["random_states"])

    def load_model(self, directory: PathLike | None, epoch: int | None = None) -> None:
        """Load the weights of all models, to evaluate them.

        Args:
            directory: a run's folder; without one nothing is loaded.
            epoch: number of the checkpoint; None takes the best, or else the newest.

        Raises:
            UserError: there is no such checkpoint, or it belongs to another model.
        """
        if not directory:
            print("No pretrained model is given: load_model() has nothing to do")
            return
        for name in self.get_model_names():
            path = choose_checkpoint(Path(directory) / name, epoch)
            state = self.adapt_state(name, load_checkpoint(path), path)
            load_state(path, state, self._models[name], None, None)
            print(f'Loaded {name} from "{path}" (epoch {shown(state.get("epoch"))})')

    def adapt_state(self, name: str, state: dict[str, Any], path: Path) -> dict[str, Any]:
        """Hook: change or refuse a checkpoint before it is evaluated.

        Args:
            name: of the model.
            state: the checkpoint's content.
            path: of the checkpoint.
        """
        del name, path
        return state

    def set_model_mode(self, mode: str = "train", names: Names = None) -> None:
        """Put models in training ("train") or evaluation mode ("test", "eval").

        Raises:
            KeyError: another mode.
        """
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
        """Return the learning rate of the first named model that has an optimiser.

        Raises:
            ValueError: none has.
        """
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                return float(self._optims[name].param_groups[0]["lr"])
        raise ValueError("No model has an optimiser")

    def model_zero_grad(self, names: Names = None) -> None:
        """Clear the gradients."""
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].zero_grad()

    def model_backward(self, loss: Tensor) -> None:
        """Check the loss and compute its gradients."""
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names: Names = None) -> None:
        """Check the gradients and step the optimisers."""
        self.detect_bad_gradients(names)
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].step()

    def model_backward_and_update(self, loss: Tensor, names: Names = None) -> None:
        """Clear gradients, compute them anew and step the optimisers."""
        self.model_zero_grad(names)
        self.model_backward(loss)
        self.model_update(names)
