"""Check that the prompts of a checkpoint fit the encoders and settings of this run."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from safeio.errors import UserError
from safeio.untrusted import short_repr

from .prompt_checkpoints import PromptCheckpoints
from .prompt_fit import Fit
from .prompt_metadata import find_metadata

FIXED_WORDS = "words_behind"


class TowerCheckpoints(PromptCheckpoints):
    """Checks the tensors text.l, vision.l and coupling.l of a checkpoint."""

    def describe(self) -> dict[str, Any]:
        """Return the metadata with the fixed words behind the prompts."""
        return {**super().describe(), FIXED_WORDS: self.trainer.words(self.trainer.cfg)[1]}

    def prompt_weights(self, state: Any) -> dict[str, Any] | None:
        """Return the tensors of a prompt learner's state; None if it contains none."""
        weights = state.get("state_dict") if isinstance(state, dict) else None
        return weights if isinstance(weights, dict) else None

    def adapt(
        self, state: dict[str, Any], path: Path, ignore_mismatch: bool = False
    ) -> dict[str, Any]:
        """Return the state to load after checking that its prompts fit; see the base class.

        Raises:
            UserError: the depth, the length, the method, the words or the backbone differ.
        """
        if (weights := self.prompt_weights(state)) is None:
            return state
        here, found = (_shapes(one) for one in (self._learner_state(), weights))
        if found != here:
            raise UserError(
                f'"{path}" holds {_described(found)}, but TRAINER.{self.trainer.node} describes '
                f"{_described(here)}; use the method and settings of the training"
            )
        fit = self._fit(find_metadata(path, state, self.trainer.node), weights)
        self._report(path, fit, True, ignore_mismatch)
        return state

    def _learner_state(self) -> Mapping[str, Any]:
        return self.trainer.model.prompt_learner.state_dict()

    def _fit(self, trained: Mapping[str, Any], weights: Mapping[str, Any]) -> Fit:
        fit, words = super()._fit(trained, weights), self.metadata[FIXED_WORDS]
        if (before := trained.get(FIXED_WORDS, words)) == words:
            return fit
        fault = (
            f"the fixed words were {short_repr(before)} in training and are {words!r} now "
            f"(TRAINER.{self.trainer.node}.CTX_INIT)"
        )
        return replace(fit, mismatch=", and ".join(filter(None, (fit.mismatch, fault))))


def _shapes(weights: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {str(key): tuple(one.shape) for key, one in weights.items() if isinstance(one, Tensor)}


def _described(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Name the depth, length and width of each encoder's prompts, and other tensors."""
    parts = []
    for group in ("text", "vision", "coupling"):
        found = [shape for key, shape in shapes.items() if key.startswith(f"{group}.")]
        layers = len(found) // (2 if group == "coupling" else 1)
        if found:
            size = " x ".join(map(str, found[0]))
            parts.append(f"{group} tensors of depth {layers} and size {size}")
    known = ("text.", "vision.", "coupling.")
    others = [key for key in shapes if not key.startswith(known)]
    parts += [f"a tensor {short_repr(others[0])}"] if others else []
    return ", ".join(parts) or "no prompts"
