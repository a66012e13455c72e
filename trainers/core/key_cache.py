"""Tip-Adapter's cache of keys and values, and its grid search (Zhang et al., ECCV 2022).

    logits = 100 f G^T + alpha exp(-beta (1 - f K^T)) Y

f (B, E) are image features, G (C, E) the classifier, K (N, E) the keys, all normalised, and
Y (N, C) the one-hot labels of the keys.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from dassl.config import CfgNode
from dassl.utils import choose_device
from safeio.errors import UserError

from .frozen_encoder import check_precision

SCALE = 100.0  # the published constant, exp(logit_scale) of OpenAI's models
START = 0.1  # first value of alpha and beta in the grid
BLOCK = 1 << 18  # affinities of a block of validation images: they fit the caches of a CPU


def mean_key(views: Sequence[Float[Tensor, "images embed"]]) -> Float[Tensor, "images embed"]:
    """Return the normalised mean over augmentations of the images' raw (unnormalised) features."""
    return functional.normalize(torch.stack(list(views)).mean(0), dim=-1)


class KeyCache(nn.Module):
    """Keys with their labels, alpha and beta; a checkpoint may have another number of keys.

    Args:
        labels: of the training images, in their order.
        classes: number of classes, also of those without a training image.
        width: E.
    """

    keys: nn.Parameter
    labels: Int[Tensor, " keys"]
    values: Float[Tensor, "keys classes"]
    alpha: Float[Tensor, ""]
    beta: Float[Tensor, ""]

    def __init__(
        self, labels: Int[Tensor, " keys"], classes: int, width: int, alpha: float, beta: float
    ) -> None:
        super().__init__()
        self.classes = classes
        self.keys = nn.Parameter(torch.zeros(len(labels), width))
        self.register_buffer("labels", labels)
        self.register_buffer("values", self._one_hot(), persistent=False)
        self.register_buffer("alpha", torch.tensor(alpha))
        self.register_buffer("beta", torch.tensor(beta))

    def _one_hot(self) -> Float[Tensor, "keys classes"]:
        return functional.one_hot(self.labels, self.classes).to(self.keys.dtype)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint; only its number of keys may differ."""
        count = len(state_dict["keys"])
        if count != len(self.keys):
            self.keys.data = self.keys.data.new_zeros(count, self.keys.shape[1])
            self.labels = self.labels.new_zeros(count)
        loaded = super().load_state_dict(state_dict, *args, **kwargs)
        self.values = self._one_hot()
        return loaded

    def forward(
        self,
        features: Float[Tensor, "batch embed"],
        classifier: Float[Tensor, "classes embed"],
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits of this module's formula."""
        features = features.to(self.keys.dtype)
        near = torch.exp(-self.beta * (1 - features @ self.keys.T)) @ self.values
        return SCALE * features @ classifier.to(self.keys.dtype).T + self.alpha * near


def grid_values(scale: float, steps: int) -> list[float]:
    """Return the values of alpha or beta to try: START + i (scale - START) / steps."""
    return [START + number * (scale - START) / steps for number in range(steps)]


@torch.no_grad()
def correct_counts(
    cache: KeyCache,
    features: Float[Tensor, "images embed"],
    truth: Int[Tensor, " images"],
    classifier: Float[Tensor, "classes embed"],
    betas: Sequence[float],
    alphas: Sequence[float],
) -> Int[Tensor, "betas alphas"]:
    """Return the number of images that each beta and alpha classifies correctly.

    The sum over a class's keys replaces the product with Y: keys are sorted into (S, C) slots, of
    which empty ones have distance infinity and so add 0.
    """
    slots = _slots(cache.labels, cache.classes)
    empty, keys = slots < 0, cache.keys[slots.clamp(min=0)]
    factors = torch.tensor(alphas, device=keys.device)[:, None, None]
    counts = truth.new_zeros(len(betas), len(alphas))
    for rows in torch.arange(len(truth)).split(max(1, BLOCK // slots.numel())):
        block, labels = features[rows].to(keys), truth[rows]
        logits = SCALE * block @ classifier.to(keys).T
        distance = (1 - block @ keys.flatten(0, 1).T).unflatten(1, slots.shape)
        distance.masked_fill_(empty, torch.inf)
        similar = torch.empty_like(distance)
        for number, beta in enumerate(betas):
            sums = torch.mul(distance, -beta, out=similar).exp_().sum(1)
            best = torch.addcmul(logits, factors, sums).max(-1).indices
            counts[number] += (best == labels).sum(1)
    return counts


def _slots(labels: Int[Tensor, " keys"], classes: int) -> Int[Tensor, "most classes"]:
    """Return the keys of each class as a column, filled up with -1."""
    order = labels.argsort(stable=True)
    number = torch.bincount(labels, minlength=classes)
    first = number.cumsum(0) - number
    place = torch.arange(len(labels), device=labels.device) - first[labels[order]]
    slots = labels.new_full((max(1, int(number.max())), classes), -1)
    slots[place, labels[order]] = order
    return slots


def search(
    cache: KeyCache,
    features: Float[Tensor, "images embed"],
    truth: Int[Tensor, " images"],
    classifier: Float[Tensor, "classes embed"],
    scale: Sequence[float | int],
    steps: Sequence[int],
) -> dict[str, Any]:
    """Set alpha and beta to the first maximum of the accuracy, with beta in the outer loop.

    Args:
        cache: the keys.
        features: normalised, of the validation images.
        truth: their labels.
        classifier: G.
        scale: upper ends (exclusive) of beta and alpha, in the published order.
        steps: number of values of beta and alpha.

    Returns:
        The optimum, its accuracy in percent, and the grid.
    """
    betas, alphas = map(grid_values, map(float, scale), steps)
    counts = correct_counts(cache, features, truth, classifier, betas, alphas).flatten().cpu()
    place = int(counts.numpy().argmax())
    beta, alpha = betas[place // len(alphas)], alphas[place % len(alphas)]
    cache.beta.fill_(beta)
    cache.alpha.fill_(alpha)
    accuracy = 100 * int(counts[place]) / len(truth)
    grid = {"scale": list(scale), "steps": list(steps), "start": START}
    return {"beta": beta, "alpha": alpha, "val_accuracy": accuracy, "grid": grid}


def check_settings(cfg: CfgNode, node: str) -> None:
    """Check the settings of cfg.TRAINER[node].

    Raises:
        UserError: a value is out of range, or validation images shall choose the epoch.
    """
    own = cfg.TRAINER[node]
    check_precision(own.PREC, choose_device(cfg))
    for key in ("ALPHA", "BETA", "VIEWS"):
        if not own[key] > 0:
            raise UserError(f"TRAINER.{node}.{key} is {own[key]}, but must be above 0")
    for key, least in (("SEARCH_SCALE", START), ("SEARCH_STEP", 0)):
        if len(own[key]) != 2 or not all(value > least for value in own[key]):
            raise UserError(
                f"TRAINER.{node}.{key} is {own[key]}, but takes two numbers above {least}, for "
                "beta and alpha"
            )
    if cfg.TEST.FINAL_MODEL == "best_val":
        raise UserError(
            f"TEST.FINAL_MODEL is best_val, but {cfg.TRAINER.NAME} chooses alpha and beta on the "
            "validation images and tests the last epoch; leave it at last_step"
        )
