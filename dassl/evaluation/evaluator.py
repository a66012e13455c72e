"""Accuracy, macro-averaged F1, calibration, per-class results and the confusion matrix."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from safeio.errors import UserError
from safeio.files import write_json

from ..config import Config
from .build import EVALUATOR_REGISTRY
from .matrix_picture import draw_matrix
from .measures import ClassCounts, calibration_error, confidences, confusion_matrix
from .tables import save_class_table, save_matrix_table


class EvaluatorBase:
    """Base class of evaluators, which collect a model's outputs batch by batch."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg

    def reset(self) -> None:
        """Remove all batches."""
        raise NotImplementedError

    def process(self, mo: Tensor, gt: Tensor) -> None:
        """Add a batch of model outputs and labels."""
        raise NotImplementedError

    def evaluate(self) -> OrderedDict[str, float]:
        """Return the results of all batches since `reset`."""
        raise NotImplementedError


@EVALUATOR_REGISTRY.register()
class Classification(EvaluatorBase):
    """Evaluator for classification by the largest logit."""

    def __init__(
        self, cfg: Config, lab2cname: Mapping[int, str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(cfg)
        self._lab2cname = dict(lab2cname or {})
        self.reset()

    def reset(self) -> None:
        """Remove all batches."""
        # Batches stay on their device, because reading each would make the CPU wait for it.
        self._predicted: list[Tensor] = []
        self._confidence: list[Tensor] = []
        self._truth: list[Tensor] = []
        self._num_classes = max(self._lab2cname, default=-1) + 1

    def process(self, mo: Float[Tensor, "batch classes"], gt: Int[Tensor, "batch"]) -> None:
        """Add a batch of logits and labels."""
        self._predicted.append(mo.argmax(dim=1))
        self._confidence.append(confidences(mo))
        self._truth.append(gt)
        self._num_classes = max(self._num_classes, mo.shape[1])

    def evaluate(self) -> OrderedDict[str, float]:
        """Print and return the results; write the files that cfg.TEST requests.

        Returns:
            accuracy, error_rate, macro_f1, perclass_accuracy (mean accuracy of the classes with
            samples), ece (expected calibration error), all in percent, and total (samples).

        Raises:
            UserError: no samples were added, or an output is NaN or infinite.
        """
        if not any(len(batch) for batch in self._truth):
            raise UserError("There is nothing to evaluate: the test set is empty")
        confidence = torch.cat(self._confidence).cpu()
        invalid = int((~confidence.isfinite()).sum())
        if invalid:
            raise UserError(
                f"The model's outputs for {invalid:,} of {len(confidence):,} images are NaN or "
                "infinite; check the weights, the checkpoint and the precision, of which fp32 has "
                "the largest range"
            )
        truth = torch.cat(self._truth).cpu().long()
        predicted = torch.cat(self._predicted).cpu().long()
        num_classes = max(self._num_classes, int(truth.max()) + 1)
        counts = ClassCounts.of(truth, predicted, num_classes)
        total, correct = len(truth), int(counts.hits.sum())
        accuracy = 100.0 * correct / total
        results: OrderedDict[str, float] = OrderedDict(
            accuracy=accuracy,
            error_rate=100.0 - accuracy,
            macro_f1=counts.macro_f1(),
            total=total,
            perclass_accuracy=counts.mean_accuracy(),
            ece=calibration_error(confidence, truth == predicted),
        )
        print(f"=> result\n* total: {total:,}\n* correct: {correct:,}")
        # Log parsers read the last "accuracy: NN%", so only one line may match this.
        short_names = {"error_rate": "error", "perclass_accuracy": "perclass_acc"}
        for name in ("accuracy", "error_rate", "macro_f1", "perclass_accuracy", "ece"):
            print(f"* {short_names.get(name, name)}: {results[name]:.1f}%")
        names = [self._lab2cname.get(label, str(label)) for label in range(num_classes)]
        if self.cfg.TEST.PER_CLASS_RESULT:
            self._report_classes(counts, names)
        if self.cfg.TEST.COMPUTE_CMAT:
            self._save_matrix(confusion_matrix(truth, predicted, num_classes), names)
        return results

    def _report_classes(self, counts: ClassCounts, names: Sequence[str]) -> None:
        """Print a line for each class with samples and write per_class.csv."""
        print("=> per-class result")
        accuracies = counts.accuracies().tolist()
        for label, (total, correct) in enumerate(
            zip(counts.true.tolist(), counts.hits.tolist(), strict=True)
        ):
            if total:
                print(
                    f"* class: {label} ({self._lab2cname.get(label, '?')})\ttotal: {total:,}\t"
                    f"correct: {correct:,}\tacc: {accuracies[label]:.1f}%"
                )
        print(f"* average: {counts.mean_accuracy():.1f}%")
        path = Path(self.cfg.OUTPUT_DIR) / "per_class.csv"
        save_class_table(counts, names, path)
        print(f"Per-class results are saved to {path}")

    def _save_matrix(self, matrix: Int[Tensor, "classes classes"], names: Sequence[str]) -> None:
        path = Path(self.cfg.OUTPUT_DIR) / "cmat.json"
        write_json({"classnames": names, "rows": "truth", "counts": matrix.tolist()}, path)
        print(f"Confusion matrix is saved to {path}")
        save_matrix_table(matrix, names, path.with_suffix(".csv"))
        draw_matrix(matrix, names, path.with_suffix(".png"))
        print(f"Confusion matrix as a table and an image: {path.with_suffix('.csv')} and .png")
