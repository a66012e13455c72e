"""The loss of a training step, and the methods whose overriding changes what a step is."""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from dassl.engine.capabilities import STEP_HOOKS
from dassl.metrics import compute_accuracy

_LOSSES = {"batch_loss", "loss", "penalty", "features_and_labels", "tower_step", "step_penalty"}
# `resumes_within_epoch`: they may accumulate state from batch to batch.
RESUMABLE = STEP_HOOKS | _LOSSES
# `standard_step`: only PromptTrainer, CoOp's and PLOT's CLIP and NemesisMixin compute a step.
STANDARD = frozenset(
    {
        *_LOSSES,
        *("train", "run_epoch", "forward_backward", "build_model", "build_prompted_clip"),
        *("model_zero_grad", "model_backward", "model_update", "model_backward_and_update"),
        "aware_alpha",
    }
)


def total_loss(
    logits: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"],
    penalty: tuple[Tensor | float, dict[str, Any]],
    norms: Float[Tensor, " length"],
) -> tuple[Float[Tensor, ""], dict[str, Any]]:
    """Return the cross-entropy plus a penalty, and the values to log.

    Args:
        logits: of the batch.
        labels: of the batch.
        penalty: the term to add, and its parts to log.
        norms: of the prompts at each position; their mean is logged.
    """
    cross_entropy = functional.cross_entropy(logits, labels)
    added, summary = penalty
    loss = cross_entropy + added
    if summary:  # otherwise the loss is the cross-entropy
        summary = {"ce": cross_entropy.detach(), **summary}
    return loss, {
        "loss": loss.detach(),
        **summary,
        "norm": norms.mean(),
        "acc": compute_accuracy(logits, labels)[0],
    }
