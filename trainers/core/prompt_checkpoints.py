"""Prompts in checkpoints: what they mean, whether they fit here, which class each belongs to."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from clip.weights import LoadedCLIP
from dassl.config import CfgNode
from safeio.errors import UserError

from .prompt_fit import Fit, fit_prompts
from .prompt_learner import PromptLearner
from .prompt_origin import data_of, describe_prompts, known_origin, read_origin

FLAG = "--ignore-mismatch"


class PromptCheckpoints:
    """Checks and adapts the prompts of a checkpoint before they are loaded.

    Args:
        cfg: the whole configuration.
        node: name of the method's configuration node.
        loaded: the frozen CLIP.
        classnames: by label.
        learner: gets the prompts.

    Attributes:
        mismatch: what did not fit in the checkpoint that was adapted last, and was ignored.
    """

    mismatch = ""

    def __init__(
        self,
        cfg: CfgNode,
        node: str,
        loaded: LoadedCLIP,
        classnames: Sequence[str],
        learner: PromptLearner,
    ) -> None:
        self.cfg = cfg
        self.node = node
        self.loaded = loaded
        self.classnames = classnames
        self.learner = learner

    def origin(self) -> dict[str, Any]:
        """What prompts mean that are learned here."""
        return describe_prompts(self.cfg, self.node, self.loaded, self.classnames)

    def check_resumed(self, state: Mapping[str, Any], model: Any) -> None:
        """Refuse prompts of another backbone, or of other classes or another order of them.

        Args:
            state: a resume checkpoint, and its "path".
            model: the prompts' part of it.

        Raises:
            UserError: says which.
        """
        if (weights := _prompt_weights(model)) is None:
            return
        fit = self._fit(known_origin(state), weights)
        fault = fit.mismatch or (fit.rows and "the order of the classes has changed")
        if fault:
            raise UserError(
                f'"{state["path"]}" cannot be resumed: {fault}; give what it was trained with, '
                "or train anew in another --output-dir or with --overwrite"
            )

    def adapt(
        self, state: dict[str, Any], path: Path, ignore_mismatch: bool = False
    ) -> dict[str, Any]:
        """Give every class the prompt that was learned for it.

        Args:
            state: a checkpoint's content.
            path: the checkpoint.
            ignore_mismatch: warn of prompts that do not fit, as long as their shape does.

        Returns:
            The state to load.

        Raises:
            UserError: the prompts were learned for other classes, with another backbone or at
                another place in the text; or they have another shape.
        """
        if (weights := _prompt_weights(state)) is None:
            return state
        ctx, own = weights["ctx"], self.learner.ctx
        if ctx.shape[-2] != self.learner.length:
            self._check_shape(path, ctx)
        fit = self._fit(read_origin(path, state, self.node), weights)
        self.mismatch = fit.mismatch
        if fit.mismatch:
            _warn_or_refuse(path, fit.mismatch, ctx.shape == own.shape, ignore_mismatch)
        if fit.rows is not None:
            ctx = ctx[fit.rows]
        self._check_shape(path, ctx)
        return {**state, "state_dict": {**weights, "ctx": ctx}}

    def _fit(self, origin: Mapping[str, Any], weights: Mapping[str, Any]) -> Fit:
        here = {**self.origin(), "data": data_of(self.cfg)}
        return fit_prompts(origin, here, weights, self.loaded.model, self.node)

    def _check_shape(self, path: Path, ctx: Tensor) -> None:
        """Refuse prompts (*sets, L, D) of another shape than the learner's."""
        own, node = self.learner.ctx, f"TRAINER.{self.node}"
        if ctx.shape == own.shape:
            return
        theirs, ours = (" x ".join(map(str, tensor.shape)) for tensor in (ctx, own))
        fault = f"prompts of shape {theirs}, but {node} makes them {ours}"
        rest = ctx.shape[:-2] + ctx.shape[-1:] == own.shape[:-2] + own.shape[-1:]
        if ctx.dim() == own.dim() and rest:
            by_words = self.cfg.TRAINER[self.node].get("CTX_INIT", "")
            setting = "CTX_INIT gives" if by_words else "N_CTX is"
            fault = f"{ctx.shape[-2]} context vectors, but {node}.{setting} {own.shape[-2]}"
        raise UserError(f'"{path}" holds {fault}; take the settings of the training')


def _prompt_weights(state: Any) -> dict[str, Any] | None:
    """The tensors in a prompt learner's state; None if there are no prompts among them."""
    weights = state.get("state_dict") if isinstance(state, dict) else None
    ctx = weights.get("ctx") if isinstance(weights, dict) else None
    return weights if isinstance(ctx, Tensor) and ctx.dim() > 1 else None


def _warn_or_refuse(path: Path, mismatch: str, can_be_ignored: bool, ignore: bool) -> None:
    if can_be_ignored and ignore:
        print(f'Warning: the prompts in "{path}" do not fit: {mismatch}')
        return
    hint = f", or give {FLAG} to test them all the same" if can_be_ignored else ""
    raise UserError(
        f'The prompts in "{path}" do not fit: {mismatch}; take the classes and settings '
        f"that they were learned with{hint}"
    )
