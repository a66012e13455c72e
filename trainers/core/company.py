"""Where a training step computes what other runs could compute with it: here, a run of its own."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from .prompted_clip import PromptedCLIP


class Company:
    """Runs that compute together; this one has no other. `vectorised` has one for several."""

    def image_features(
        self, model: PromptedCLIP, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch *tokens embed"]:
        """The frozen tower's features of a training batch, as the model matches them."""
        return model.image_features(images)

    def backward(self, loss: Float[Tensor, ""]) -> None:
        """Compute the loss's gradients."""
        loss.backward()

    def result_entries(self) -> dict[str, Any]:
        """What results.json says of the company."""
        return {}
