"""Reader of CoOp's few-shot samples, which are pickles, without executing them."""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from safeio.pickles import InertUnpickler, check_pickle
from safeio.untrusted import read_bounded

LARGEST = 1 << 26  # bytes; the sample of 16 shots of ImageNet has two million


def read_sample(path: Path) -> dict[str, list[str]]:
    """Read CoOp's split_fewshot/shot_<n>-seed_<s>.pkl: {"train": [Datum, ...], "val": [...]}.

    Returns:
        Part -> paths of its images on the machine that sampled them.

    Raises:
        Exception: it is not such a pickle, or cannot be read.
    """
    data = read_bounded(path, LARGEST)
    check_pickle(io.BytesIO(data))
    content = InertUnpickler(io.BytesIO(data), lambda module, name: True).load()
    paths = {part: [item.state["_impath"] for item in items] for part, items in content.items()}
    return {"train": paths.pop("train"), **paths}


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
    """Compare a sample, part -> relative paths, with CoOp's of the same shots and seed, if any.

    Returns:
        A message; "" if the samples are the same or CoOp's does not exist.
    """
    if not path.is_file():
        return ""
    try:
        coop_sample = read_sample(path)
    except Exception:  # damaged bytes can fail in any way
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
