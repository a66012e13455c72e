"""Check that a checkpoint's prompts fit this run, and sort class-specific ones by its classes."""

import weakref
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from safeio.errors import UserError

from .prompt_fit import Fit, fit_prompts
from .prompt_metadata import checkpoint_metadata, describe_data, describe_prompts, find_metadata

IGNORE_MISMATCH = "--ignore-mismatch"


class PromptCheckpoints:
    """Checks and adapts the prompts of a checkpoint before a `PromptTrainer` loads them.

    Attributes:
        mismatch: the ignored mismatch of the checkpoint that was adapted last; "" if none.
    """

    mismatch = ""

    def __init__(self, trainer: Any) -> None:
        # Without a cycle of references, a trainer's memory is freed with it.
        self.trainer = weakref.proxy(trainer)

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the prompts that this run learns."""
        return self.describe()

    def describe(self) -> dict[str, Any]:
        """Return the metadata; it hashes the frozen weights."""
        one = self.trainer
        return describe_prompts(one.cfg, one.node, one.loaded_clip, one.dm.dataset.classnames)

    def check_resumed(self, state: Mapping[str, Any], model: Any) -> None:
        """Raise an error if the backbone, the classes or their order have changed.

        Raises:
            UserError: names the change.
        """
        if (weights := self.prompt_weights(model)) is None:
            return
        fit = self._fit(checkpoint_metadata(state), weights)
        fault = fit.mismatch or (fit.rows and "the order of the classes has changed")
        if fault:
            raise UserError(
                f'"{state["path"]}" cannot be resumed: {fault}; use the settings of its training, '
                "or start a new training in another --output-dir or with --overwrite"
            )

    def adapt(
        self, state: dict[str, Any], path: Path, ignore_mismatch: bool = False
    ) -> dict[str, Any]:
        """Sort class-specific prompts by this run's classes, and check that all prompts fit.

        Args:
            state: a checkpoint's content.
            path: the checkpoint.
            ignore_mismatch: warn instead of raising if only the shape of the prompts fits.

        Returns:
            The state to load.

        Raises:
            UserError: the classes, the backbone, the class token position or the shape differ
                from those of the training.
        """
        if (weights := self.prompt_weights(state)) is None:
            return state
        ctx = weights["ctx"]
        if ctx.shape[-2] != self.trainer.model.prompt_learner.length:
            self._check_shape(path, ctx)
        fit = self._fit(find_metadata(path, state, self.trainer.node), weights)
        same_shape = ctx.shape == self.trainer.model.prompt_learner.ctx.shape
        self._report(path, fit, same_shape, ignore_mismatch)
        if fit.rows is not None:
            ctx = ctx[fit.rows]
        self._check_shape(path, ctx)
        return {**state, "state_dict": {**weights, "ctx": ctx}}

    def prompt_weights(self, state: Any) -> dict[str, Any] | None:
        """Return the tensors of a prompt learner's state; None if it contains no prompts."""
        weights = state.get("state_dict") if isinstance(state, dict) else None
        ctx = weights.get("ctx") if isinstance(weights, dict) else None
        return weights if isinstance(ctx, Tensor) and ctx.dim() > 1 else None

    def _report(self, path: Path, fit: Fit, same_shape: bool, ignore_mismatch: bool) -> None:
        """Raise an error for prompts that do not fit, or warn if this is to be ignored."""
        self.mismatch = fit.mismatch
        if not fit.mismatch:
            return
        fault = f'prompts in "{path}" do not fit: {fit.mismatch}'
        if not (same_shape and ignore_mismatch):
            hint = f", or add {IGNORE_MISMATCH} to test them anyway" if same_shape else ""
            raise UserError(
                f"The {fault}; use the classes and settings that they were learned with{hint}"
            )
        print(f"Warning: the {fault}")

    def _fit(self, trained: Mapping[str, Any], weights: Mapping[str, Any]) -> Fit:
        here = {**self.metadata, "data": describe_data(self.trainer.cfg)}
        return fit_prompts(
            trained, here, weights, self.trainer.loaded_clip.model, self.trainer.node
        )

    def _check_shape(self, path: Path, ctx: Tensor) -> None:
        """Raise an error for prompts (*sets, L, D) of another shape than the learner's."""
        here, node = self.trainer.model.prompt_learner.ctx, f"TRAINER.{self.trainer.node}"
        if ctx.shape == here.shape:
            return
        shapes = [" x ".join(map(str, tensor.shape)) for tensor in (ctx, here)]
        fault = f"prompts of shape {shapes[0]}, but the shape by {node} is {shapes[1]}"
        rest = ctx.shape[:-2] + ctx.shape[-1:] == here.shape[:-2] + here.shape[-1:]
        if ctx.dim() == here.dim() and rest:
            by_words = self.trainer.method_cfg.get("CTX_INIT", "")
            setting = "CTX_INIT has" if by_words else "N_CTX is"
            fault = f"{ctx.shape[-2]} context vectors, but {node}.{setting} {here.shape[-2]}"
        raise UserError(f'"{path}" holds {fault}; use the settings of the training')
