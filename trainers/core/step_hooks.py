"""Hooks through which a training step shares forward and backward passes with other runs."""

from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from .prompt_trainer import PromptTrainer


class StepHooks:
    """Default hooks, which share nothing; `vectorised.RunGroup` shares the passes of a group."""

    def image_features(
        self, trainer: "PromptTrainer", images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch *tokens embed"]:
        """Return the frozen image features of a training batch."""
        return trainer.image_features(images)

    def backward(self, loss: Float[Tensor, ""]) -> None:
        """Compute the gradients of the loss."""
        loss.backward()

    def result_entries(self) -> dict[str, Any]:
        """Return further entries for results.json."""
        return {}
