"""Distances between all pairs of two sets of vectors."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def euclidean_squared_distance(
    input1: Float[Tensor, "rows width"], input2: Float[Tensor, "columns width"]
) -> Float[Tensor, "rows columns"]:
    """Return the squared Euclidean distances between the rows of `input1` and `input2`."""
    squares = input1.square().sum(1, keepdim=True) + input2.square().sum(1)
    return squares - 2 * input1 @ input2.T


def cosine_distance(
    input1: Float[Tensor, "rows width"], input2: Float[Tensor, "columns width"]
) -> Float[Tensor, "rows columns"]:
    """Return 1 - cosine similarity between the rows of `input1` and `input2`."""
    return 1 - functional.normalize(input1) @ functional.normalize(input2).T


METRICS = {"euclidean": euclidean_squared_distance, "cosine": cosine_distance}


def compute_distance_matrix(
    input1: Float[Tensor, "rows width"],
    input2: Float[Tensor, "columns width"],
    metric: str = "euclidean",
) -> Float[Tensor, "rows columns"]:
    """Return the euclidean (squared, as in Dassl) or cosine distances between all pairs of rows.

    Raises:
        ValueError: the inputs are not matrices of the same width, or the metric is unknown.
    """
    if input1.ndim != 2 or input2.ndim != 2 or input1.shape[1] != input2.shape[1]:
        shapes = f"{tuple(input1.shape)} and {tuple(input2.shape)}"
        raise ValueError(f"Distances need two matrices of the same width, not {shapes}")
    if metric not in METRICS:
        raise ValueError(f'The metric "{metric}" is not one of {", ".join(METRICS)}')
    return METRICS[metric](input1, input2)
