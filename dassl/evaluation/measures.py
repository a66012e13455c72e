"""Classification metrics, all in percent."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BINS = 15


@dataclass(frozen=True)
class ClassCounts:
    """Number of images per class.

    Attributes:
        hits: correctly classified images of the class.
        true: images of the class.
        predicted: images classified as this class.
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
        """Return the accuracy of each class; NaN for a class without images."""
        return 100.0 * self.hits.double() / self.true

    def mean_accuracy(self) -> float:
        """Return the mean accuracy of the classes with images."""
        return self.accuracies()[self.true > 0].mean().item()

    def macro_f1(self) -> float:
        """Return the mean of F1 = 2 TP / (true + predicted) over the classes with images."""
        f1 = 2.0 * self.hits.double() / (self.true + self.predicted).clamp(min=1)
        return 100.0 * f1[self.true > 0].mean().item()


def confusion_matrix(
    truth: Int[Tensor, "n"], predicted: Int[Tensor, "n"], num_classes: int
) -> Int[Tensor, "classes classes"]:
    """Count the images for each true class (row) and predicted class (column)."""
    cells = truth * num_classes + predicted
    return torch.bincount(cells, minlength=num_classes**2).view(num_classes, num_classes)


def confidences(logits: Float[Tensor, "batch classes"]) -> Float[Tensor, "batch"]:
    """Return the largest softmax probability of each image, computed in fp32."""
    return logits.float().softmax(dim=1).amax(dim=1)


def calibration_error(confidence: Float[Tensor, "n"], correct: Bool[Tensor, "n"]) -> float:
    """Return the expected calibration error: sum_b n_b / n |accuracy_b - confidence_b|.

    Bin b of B = `BINS` contains the confidences in ((b - 1) / B, b / B]. See Guo et al., On
    Calibration of Modern Neural Networks, ICML 2017, eq. 3.
    """
    inner = torch.arange(1, BINS, dtype=confidence.dtype) / BINS
    index = torch.bucketize(confidence, inner)
    # n_b |accuracy_b - confidence_b| is the absolute sum of correct - confidence over the bin.
    gaps = torch.zeros(BINS, dtype=torch.float64)
    gaps.index_add_(0, index, correct.double() - confidence.double())
    return 100.0 * gaps.abs().sum().item() / len(confidence)
