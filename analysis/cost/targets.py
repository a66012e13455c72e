"""The numbers that the framework promises: fp32, CPU, RN50, 16 context tokens."""

from collections.abc import Callable
from dataclasses import dataclass

from .cases import OURS, PLAIN
from .measure import GIB
from .run import Entries, Entry

BACKBONE = "RN50"
Lookup = tuple[int, str, str]  # classes, case, side


@dataclass(frozen=True)
class Target:
    """A quotient (or, without a denominator, one number) and its bound.

    Attributes:
        title: what it says.
        top: the numerator's entry.
        bottom: the denominator's; None for none.
        bound: at least (`>=`) or at most (`<=`, `<`) this.
        relation: which.
        quantity: of an entry: seconds, bytes above the model, GiB in all.
    """

    title: str
    top: Lookup
    bottom: Lookup | None
    relation: str
    bound: float
    quantity: Callable[[Entry], float | None] = lambda entry: entry.seconds

    def value(self, entries: Entries) -> float | None:
        """The measured value; None when an entry is missing."""
        numbers = []
        for lookup in filter(None, (self.top, self.bottom)):
            entry = entries.find(BACKBONE, *lookup)
            number = self.quantity(entry) if entry else None
            if not number:
                return None
            numbers.append(number)
        return numbers[0] / numbers[1] if len(numbers) == 2 else numbers[0]

    def met(self, value: float) -> bool:
        """Whether a value keeps the promise."""
        if self.relation == ">=":
            return value >= self.bound
        return value < self.bound if self.relation == "<" else value <= self.bound


def _above(entry: Entry) -> float | None:
    return entry.above


def _total_gib(entry: Entry) -> float | None:
    return entry.total / GIB if entry.total else None


TARGETS = (
    Target(
        "text forward + backward, 100 classes, plain / ours",
        (100, "text_backward", PLAIN),
        (100, "text_backward", OURS),
        ">=",
        18,
    ),
    Target(
        "text forward, 1000 classes, plain / ours",
        (1000, "text_forward", PLAIN),
        (1000, "text_forward", OURS),
        ">=",
        16,
    ),
    Target(
        "text forward for N = 16 corrupted prompts, 100 classes, ours / one plain text forward",
        (100, "text_corrupted", OURS),
        (100, "text_forward", PLAIN),
        "<=",
        0.9,
    ),
    Target(
        "PAN N = 1 step / CoOp step, ours, 100 classes, batch 32",
        (100, "pan1", OURS),
        (100, "coop", OURS),
        "<=",
        1.08,
    ),
    Target(
        "PAN N = 16 step, ours / CoOp step, plain, 100 classes, batch 32",
        (100, "pan16", OURS),
        (100, "coop", PLAIN),
        "<=",
        0.6,
    ),
    Target(
        "peak memory above the loaded model of a CoOp step, 100 classes, plain / ours",
        (100, "coop", PLAIN),
        (100, "coop", OURS),
        ">=",
        10,
        _above,
    ),
    Target(
        "CoOp step with cached views, 100 classes, plain / ours",
        (100, "coop_cached", PLAIN),
        (100, "coop_cached", OURS),
        ">=",
        20,
    ),
    Target(
        "evaluation of a second prompt on a cached test set / the first evaluation, 100 classes",
        (100, "evaluation_again", OURS),
        (100, "evaluation", OURS),
        "<=",
        0.02,
    ),
    Target(
        "CoOp training step on 1000 classes, batch 32: peak in all, GiB",
        (1000, "coop", OURS),
        None,
        "<",
        6,
        _total_gib,
    ),
)
