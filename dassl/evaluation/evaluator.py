"""Accuracy, macro-averaged F1, per-class results and the confusion matrix."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..utils import UserError, write_json
from .build import EVALUATOR_REGISTRY


class EvaluatorBase:
    """Collects a model's outputs batch by batch; subclasses say what comes out."""

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg

    def reset(self) -> None:
        """Forget all batches."""
        raise NotImplementedError

    def process(self, mo: Tensor, gt: Tensor) -> None:
        """Take one batch of model outputs and labels."""
        raise NotImplementedError

    def evaluate(self) -> OrderedDict[str, float]:
        """Return the results of all batches since `reset`."""
        raise NotImplementedError


def confusion_matrix(
    truth: Int[Tensor, "n"], predicted: Int[Tensor, "n"], num_classes: int
) -> Int[Tensor, "classes classes"]:
    """Count pairs of true (row) and predicted (column) class."""
    cells = truth * num_classes + predicted
    return torch.bincount(cells, minlength=num_classes**2).view(num_classes, num_classes)


def macro_f1(matrix: Int[Tensor, "classes classes"]) -> float:
    """Mean over the classes that occur of F1 = 2 TP / (true + predicted), in percent."""
    counts = matrix.double()
    hits, true, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    f1 = 2 * hits / (true + predicted).clamp(min=1)
    return 100.0 * f1[true > 0].mean().item()


@EVALUATOR_REGISTRY.register()
class Classification(EvaluatorBase):
    """Classification by the largest output.

    Args:
        cfg: TEST.PER_CLASS_RESULT, TEST.COMPUTE_CMAT and OUTPUT_DIR are read.
        lab2cname: label -> class name, for the per-class table.
    """

    def __init__(self, cfg: Any, lab2cname: Mapping[int, str] | None = None, **kwargs: Any) -> None:
        super().__init__(cfg)
        self._lab2cname = dict(lab2cname or {})
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        # They stay on their device: reading every batch would make the CPU wait for it.
        self._predicted: list[Tensor] = []
        self._truth: list[Tensor] = []
        self._num_classes = max(self._lab2cname, default=-1) + 1

    def process(self, mo: Float[Tensor, "batch classes"], gt: Int[Tensor, "batch"]) -> None:
        """Take one batch of scores and labels."""
        self._predicted.append(mo.argmax(dim=1))
        self._truth.append(gt)
        self._num_classes = max(self._num_classes, mo.shape[1])

    def evaluate(self) -> OrderedDict[str, float]:
        """Print and return accuracy, error_rate, macro_f1 (percent) and total (samples).

        Raises:
            UserError: there were no samples.
        """
        if not self._truth:
            raise UserError("There is nothing to evaluate: the test set is empty")
        truth = torch.cat(self._truth).cpu().long()
        predicted = torch.cat(self._predicted).cpu().long()
        num_classes = max(self._num_classes, int(truth.max()) + 1)
        matrix = confusion_matrix(truth, predicted, num_classes)
        total, correct = len(truth), int(matrix.diagonal().sum())
        accuracy = 100.0 * correct / total
        results: OrderedDict[str, float] = OrderedDict(
            accuracy=accuracy,
            error_rate=100.0 - accuracy,
            macro_f1=macro_f1(matrix),
            total=total,
        )
        print(
            "=> result\n"
            f"* total: {total:,}\n"
            f"* correct: {correct:,}\n"
            f"* accuracy: {accuracy:.1f}%\n"
            f"* error: {results['error_rate']:.1f}%\n"
            f"* macro_f1: {results['macro_f1']:.1f}%"
        )
        if self.cfg.TEST.PER_CLASS_RESULT:
            results["perclass_accuracy"] = self._print_per_class(matrix)
        if self.cfg.TEST.COMPUTE_CMAT:
            self._save_matrix(matrix)
        return results

    def _print_per_class(self, matrix: Int[Tensor, "classes classes"]) -> float:
        """Print a line for each class that occurs; return the mean of their accuracies."""
        print("=> per-class result")
        accuracies = []
        for label, row in enumerate(matrix):
            total, correct = int(row.sum()), int(row[label])
            if total == 0:
                continue
            accuracies.append(100.0 * correct / total)
            print(
                f"* class: {label} ({self._lab2cname.get(label, '?')})\ttotal: {total:,}\t"
                f"correct: {correct:,}\tacc: {accuracies[-1]:.1f}%"
            )
        mean = sum(accuracies) / len(accuracies)
        print(f"* average: {mean:.1f}%")
        return mean

    def _save_matrix(self, matrix: Int[Tensor, "classes classes"]) -> None:
        path = Path(self.cfg.OUTPUT_DIR) / "cmat.json"
        names = [self._lab2cname.get(label, str(label)) for label in range(len(matrix))]
        write_json({"classnames": names, "rows": "truth", "counts": matrix.tolist()}, path)
        print(f"Confusion matrix is saved to {path}")
