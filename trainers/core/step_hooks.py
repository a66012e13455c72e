"""Forward and backward passes of a training step that several runs may share."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from .prompted_clip import PromptedCLIP


class StepHooks:
    """The passes of a run that shares nothing; `vectorised.RunGroup` has those of several runs."""

    def image_features(
        self, model: PromptedCLIP, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch *tokens embed"]:
        """The frozen tower's features of a training batch, as the model matches them."""
        return model.image_features(images)

    def backward(self, loss: Float[Tensor, ""]) -> None:
        """Compute the loss's gradients."""
        loss.backward()

    def result_entries(self) -> dict[str, Any]:
        """Further entries for results.json."""
        return {}
