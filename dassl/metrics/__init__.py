"""Numbers that say how good predictions are."""

from .accuracy import compute_accuracy

__all__ = ["compute_accuracy"]
