"""Performance targets of the framework: fp32, CPU, RN50, 16 context tokens."""

from collections.abc import Callable
from dataclasses import dataclass

from .cases import REFERENCE, REPOSITORY
from .measure import GIB
from .run import Entries, Entry

BACKBONE = "RN50"
Lookup = tuple[int, str, str]  # classes, case, side


@dataclass(frozen=True)
class Target:
    """A ratio of two measurements, or a single measurement, with a bound.

    Attributes:
        title: label of the row.
        top: the numerator's entry.
        bottom: the denominator's entry; None for a single measurement.
        relation: `>=`, `<=` or `<`.
        bound: right-hand side of the relation.
        quantity: seconds, bytes above the model, or total GiB of an entry.
    """

    title: str
    top: Lookup
    bottom: Lookup | None
    relation: str
    bound: float
    quantity: Callable[[Entry], float | None] = lambda entry: entry.seconds

    def value(self, entries: Entries) -> float | None:
        """Return the measured value; None if an entry is missing."""
        numbers = []
        for lookup in filter(None, (self.top, self.bottom)):
            entry = entries.find(BACKBONE, *lookup)
            number = self.quantity(entry) if entry else None
            if not number:
                return None
            numbers.append(number)
        return numbers[0] / numbers[1] if len(numbers) == 2 else numbers[0]

    def met(self, value: float) -> bool:
        """Return whether a value meets the target."""
        if self.relation == ">=":
            return value >= self.bound
        return value < self.bound if self.relation == "<" else value <= self.bound


def _above(entry: Entry) -> float | None:
    return entry.above


def _total_gib(entry: Entry) -> float | None:
    return entry.total / GIB if entry.total else None


TARGETS = (
    Target(
        "text forward + backward, 100 classes, reference / this repository",
        (100, "text_backward", REFERENCE),
        (100, "text_backward", REPOSITORY),
        ">=",
        18,
    ),
    Target(
        "text forward, 1000 classes, reference / this repository",
        (1000, "text_forward", REFERENCE),
        (1000, "text_forward", REPOSITORY),
        ">=",
        16,
    ),
    Target(
        "text forward of N = 16 corrupted prompts / one reference text forward, 100 classes",
        (100, "text_corrupted", REPOSITORY),
        (100, "text_forward", REFERENCE),
        "<=",
        0.9,
    ),
    Target(
        "PAN N = 1 step / CoOp step, this repository, 100 classes, batch 32",
        (100, "pan1", REPOSITORY),
        (100, "coop", REPOSITORY),
        "<=",
        1.08,
    ),
    Target(
        "PAN N = 16 step, this repository / CoOp step, reference, 100 classes, batch 32",
        (100, "pan16", REPOSITORY),
        (100, "coop", REFERENCE),
        "<=",
        0.6,
    ),
    Target(
        "peak memory of a CoOp step above the model, 100 classes, reference / this repository",
        (100, "coop", REFERENCE),
        (100, "coop", REPOSITORY),
        ">=",
        10,
        _above,
    ),
    Target(
        "CoOp step with cached views, 100 classes, reference / this repository",
        (100, "coop_cached", REFERENCE),
        (100, "coop_cached", REPOSITORY),
        ">=",
        20,
    ),
    Target(
        "evaluation of a second prompt on a cached test set / the first evaluation, 100 classes",
        (100, "evaluation_again", REPOSITORY),
        (100, "evaluation", REPOSITORY),
        "<=",
        0.02,
    ),
    Target(
        "CoOp training step on 1000 classes, batch 32: total peak memory, GiB",
        (1000, "coop", REPOSITORY),
        None,
        "<",
        6,
        _total_gib,
    ),
)
