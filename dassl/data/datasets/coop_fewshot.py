"""Reader of CoOp's few-shot samples, which are pickles, without executing them.

A pickle is a program for a stack machine. This module only scans its instructions: among the texts
that it pushes, those after "_impath" are the paths of the images.
"""

import io
import pickletools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from safeio.untrusted import read_bounded

LARGEST = 1 << 26  # bytes; the sample of 16 shots of ImageNet has two million
_TEXTS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE")
_GETS = ("GET", "BINGET", "LONG_BINGET")
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")


def read_sample(path: Path) -> dict[str, list[str]]:
    """Read CoOp's {"train": [Datum, ...], "val": [Datum, ...]}.

    Args:
        path: split_fewshot/shot_<n>-seed_<s>.pkl.

    Returns:
        Part -> paths of its images on the machine that sampled them.

    Raises:
        ValueError: it is not such a pickle.
        OSError: the file cannot be read.
    """
    sample: dict[str, list[str]] = {}
    part, before = "", ""
    for text in _texts(read_bounded(path, LARGEST)):
        if before == "_impath":
            sample.setdefault(part, []).append(text)
        elif before != "_classname" and text in ("train", "val"):
            part = text
        # A value does not name the next text, even if it is spelled like an attribute.
        before = "" if before in ("_impath", "_classname") else text
    if "train" not in sample:
        raise ValueError("it contains no list of training images")
    return sample


def _texts(data: bytes) -> Iterable[str]:
    """Yield the texts that a pickle pushes, including those that it gets from its memo."""
    memo: dict[int, str | None] = {}
    last: str | None = None
    for code, argument, _ in pickletools.genops(io.BytesIO(data)):
        if code.name in _PUTS:
            memo[len(memo) if argument is None else int(argument)] = last
            continue
        last = None
        if code.name in _TEXTS:
            last = str(argument)
        elif code.name in _GETS:
            last = memo.get(int(argument or 0))
        if last is not None:
            yield last


def _count_missing(absolute: Sequence[str], relative: Sequence[str]) -> int:
    """Return how many absolute paths do not end in one of the relative paths."""
    left = Counter(relative)
    missing = 0
    for path in absolute:
        known = _longest_end(path.replace("\\", "/"), left)
        left[known] -= 1
        missing += left[known] < 0
    return missing


def _longest_end(path: str, known: Mapping[str, int]) -> str:
    parts = path.split("/")
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((end for end in ends if end in known), "")


def compare_sample(path: Path, shots: int, seed: int, sample: Mapping[str, Sequence[str]]) -> str:
    """Compare a few-shot sample with CoOp's sample of the same shots and seed.

    Args:
        path: CoOp's pickle, which need not exist.
        shots: images a class.
        seed: seed of the sample.
        sample: train and val -> relative paths.

    Returns:
        A message; "" if the samples are the same or CoOp's does not exist.
    """
    if not path.is_file():
        return ""
    try:
        coop_sample = read_sample(path)
    except (OSError, ValueError, IndexError, KeyError, OverflowError):  # a damaged pickle
        return f"{path} cannot be read as a few-shot sample of CoOp, and is not used"
    counts = []
    for part, own in sample.items():
        theirs = coop_sample.get(part, [])
        missing = _count_missing(theirs, own)
        if missing or (theirs and len(theirs) != len(own)):
            counts.append(f"{missing} of its {len(theirs)} {part} images are not in our {len(own)}")
    if not counts:
        return ""
    return (
        f"{path} contains another sample of {shots} shots with seed {seed} and is not used: "
        f"{', '.join(counts)}"
    )
