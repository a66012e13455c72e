"""What is measured on predictions; all in percent."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BINS = 15


@dataclass(frozen=True)
class ClassCounts:
    """How often each class is true, predicted, and both.

    Attributes:
        hits: images of the class that are classified as such.
        true: images of the class.
        predicted: images that are classified as such.
    """

    hits: Int[Tensor, "classes"]
    true: Int[Tensor, "classes"]
    predicted: Int[Tensor, "classes"]

    @classmethod
    def of(
        cls, truth: Int[Tensor, "n"], predicted: Int[Tensor, "n"], num_classes: int
    ) -> "ClassCounts":
        """Count labels from 0 to num_classes - 1."""
        hits = truth[truth == predicted]
        return cls(*(torch.bincount(x, minlength=num_classes) for x in (hits, truth, predicted)))

    def accuracies(self) -> Float[Tensor, "classes"]:
        """Accuracy of each class; NaN where a class does not occur."""
        return 100.0 * self.hits.double() / self.true

    def mean_accuracy(self) -> float:
        """Mean accuracy of the classes that occur."""
        return self.accuracies()[self.true > 0].mean().item()

    def macro_f1(self) -> float:
        """Mean over the classes that occur of F1 = 2 TP / (true + predicted)."""
        f1 = 2.0 * self.hits.double() / (self.true + self.predicted).clamp(min=1)
        return 100.0 * f1[self.true > 0].mean().item()


def confusion_matrix(
    truth: Int[Tensor, "n"], predicted: Int[Tensor, "n"], num_classes: int
) -> Int[Tensor, "classes classes"]:
    """Count pairs of true (row) and predicted (column) class."""
    cells = truth * num_classes + predicted
    return torch.bincount(cells, minlength=num_classes**2).view(num_classes, num_classes)


def confidences(logits: Float[Tensor, "batch classes"]) -> Float[Tensor, "batch"]:
    """Largest softmax probability of each image, computed in fp32."""
    return logits.float().softmax(dim=1).amax(dim=1)


def calibration_error(confidence: Float[Tensor, "n"], correct: Bool[Tensor, "n"]) -> float:
    """Expected calibration error: sum over the bins of n_b / n |accuracy_b - confidence_b|.

    Bin b of B = `BINS` holds the confidences in ((b - 1) / B, b / B]. Guo et al., On Calibration of
    Modern Neural Networks, ICML 2017, eq. 3.
    """
    inner = torch.arange(1, BINS, dtype=confidence.dtype) / BINS
    index = torch.bucketize(confidence, inner)
    # n_b |accuracy_b - confidence_b| is the sum of the bin's gaps, whatever n_b is.
    gaps = torch.zeros(BINS, dtype=torch.float64)
    gaps.index_add_(0, index, correct.double() - confidence.double())
    return 100.0 * gaps.abs().sum().item() / len(confidence)
