r"""Classify any images with a trained run.

    python -m nemesis predict output/food pizza.jpg pictures/    # a table, five classes per image
    python -m nemesis predict output/food 'pictures/*.png' --json --top-k 1
    python -m nemesis predict output/food pizza.jpg --classes pizza burger salad
    python -m nemesis predict output/food pizza.jpg --opts DEVICE cpu

Folders are searched recursively. The run's dataset is not needed. Images are turned upright by
their EXIF orientation, and transparent pixels become white; --opts INPUT.DECODE as_stored disables
both. The environment variable NEMESIS_MAX_PIXELS limits the size of an image. --json prints a line
for each image: {"path": ..., "predictions": [{"class": ..., "probability": ...}, ...]}.
A probability is the softmax over all classes of the run, or of --classes.

Exit codes: 0 success, 1 some images could not be read (stderr names them; the others are
classified), 2 an error in the command, described in one sentence.
"""

import argparse
from collections.abc import Sequence

import datasets  # noqa: F401  (registers the datasets)
import trainers  # noqa: F401  (registers the methods)
from dassl.utils import Parser, exit_code
from nemesis.inference.predict import predict_command
from nemesis.inference.run_flags import add_run_flags


def positive(text: str) -> int:
    """Parse a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(__doc__, "predict")
    add_run_flags(parser)
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGE", help="image files, folders or quoted patterns")
    add("--json", action="store_true", help="print JSON lines instead of the table")
    add("--top-k", type=positive, default=5, metavar="K", help="classes per image, default 5")
    text = "default DATALOADER.TEST.BATCH_SIZE of the run"
    add("--batch-size", type=positive, metavar="B", help=text)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a command line; returns the exit code."""
    return exit_code(predict_command, build_parser(), argv)
