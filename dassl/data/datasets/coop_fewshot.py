"""Few-shot draws that CoOp has kept as pickles, read without running anything in them.

A pickle is a program for a small machine. Here it is only read over: of the texts that it puts on
that machine's stack, in order, those that follow "_impath" are the paths of the images.
"""

import io
import pickletools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from safeio.untrusted import read_bounded

LARGEST = 1 << 26  # bytes; ImageNet's 16 shots have two million
_TEXTS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE")
_GETS = ("GET", "BINGET", "LONG_BINGET")
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")


def read_draw(path: Path) -> dict[str, list[str]]:
    """Read CoOp's {"train": [Datum, ...], "val": [Datum, ...]}.

    Args:
        path: split_fewshot/shot_<n>-seed_<s>.pkl.

    Returns:
        List -> paths of its images, on the machine where they were drawn.

    Raises:
        ValueError: it is no such pickle.
        OSError: it cannot be read.
    """
    draw: dict[str, list[str]] = {}
    part, before = "", ""
    for text in _texts(read_bounded(path, LARGEST)):
        if before == "_impath":
            draw.setdefault(part, []).append(text)
        elif before != "_classname" and text in ("train", "val"):
            part = text
        # A value is no name of what follows, even if it is spelled like one.
        before = "" if before in ("_impath", "_classname") else text
    if "train" not in draw:
        raise ValueError("it holds no list of training images")
    return draw


def _texts(data: bytes) -> Iterable[str]:
    """The texts of a pickle in their order, also where it names an earlier one again."""
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


def count_others(draw: Sequence[str], ours: Sequence[str]) -> int:
    """How many paths of a draw are not among ours.

    Args:
        draw: whole paths, below a folder that may have another name here.
        ours: relative paths.
    """
    left = Counter(ours)
    others = 0
    for path in draw:
        known = _tail(path.replace("\\", "/"), left)
        left[known] -= 1
        others += left[known] < 0
    return others


def _tail(path: str, known: Mapping[str, int]) -> str:
    """The longest end of a path that is known."""
    parts = path.split("/")
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((end for end in ends if end in known), "")


def compare_draw(path: Path, shots: int, seed: int, ours: Mapping[str, Sequence[str]]) -> str:
    """Say where CoOp's draw of the same shots and seed is another.

    Args:
        path: CoOp's pickle, which need not exist.
        shots: images a class.
        seed: of the draw.
        ours: train and val -> relative paths.

    Returns:
        A sentence; nothing where the draws are the same or there is no pickle.
    """
    if not path.is_file():
        return ""
    try:
        draw = read_draw(path)
    except (
        OSError,
        ValueError,
        IndexError,
        KeyError,
        OverflowError,
    ):  # all that a damaged pickle leads to
        return f"{path} cannot be read as a few-shot draw of CoOp, and is not used"
    counts = []
    for part, own in ours.items():
        theirs = draw.get(part, [])
        others = count_others(theirs, own)
        if others or (theirs and len(theirs) != len(own)):
            counts.append(f"{others} of its {len(theirs)} {part} images are not in our {len(own)}")
    if not counts:
        return ""
    return (
        f"{path} holds another draw of {shots} shots with seed {seed} and is not used: "
        f"{', '.join(counts)}"
    )
