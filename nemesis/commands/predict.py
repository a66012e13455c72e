r"""Classify any images with a trained run.

    python -m nemesis predict output/food pizza.jpg pictures/    # a table, five classes per image
    python -m nemesis predict output/food 'pictures/*.png' --json --top-k 1
    python -m nemesis predict output/food pizza.jpg --classes pizza burger salad
    python -m nemesis predict output/food pizza.jpg --device cpu

Folders are searched recursively. The run's dataset is not needed. Images are turned upright by
their EXIF orientation, and transparent pixels become white; --set INPUT.DECODE as_stored disables
both. The environment variable NEMESIS_MAX_PIXELS limits the size of an image. --json prints a line
for each image: {"path": ..., "predictions": [{"class": ..., "probability": ...}, ...]}.
A probability is the softmax over all classes of the run, or of --classes.

Exit codes: 0 success, 1 some images could not be read (stderr names them; the others are
classified), 2 an error in the command, described in one sentence.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from dassl.data.images import max_pixels
from dassl.utils import Parser, exit_code
from nemesis.inference.classifier import Prediction
from nemesis.inference.image_files import find_images, unused_files
from safeio.errors import UserError
from safeio.untrusted import printable

from .run_flags import add_class_flags, add_load_flags, add_third_party_flags, load_classifier


def positive(text: str) -> int:
    """Parse a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(__doc__, "predict")
    add = parser.add_argument
    add("run_dir", type=Path, metavar="RUN_DIR", help="folder of a finished run")
    add("images", nargs="+", metavar="IMAGE", help="image files, folders or quoted patterns")
    add("--json", action="store_true", help="print JSON lines instead of the table")
    add("--top-k", type=positive, default=5, metavar="K", help="classes per image; default 5")
    text = "images at a time; default the run's DATALOADER.TEST.BATCH_SIZE"
    add("--batch-size", type=positive, metavar="B", help=text)
    add_class_flags(parser)
    add_load_flags(parser)
    add_third_party_flags(parser)
    return parser


def as_json(path: str, prediction: Prediction) -> str:
    """Return one line: {"path", "predictions": [{"class", "probability"}, ...]}, best first."""
    found = [{"class": name, "probability": round(p, 6)} for name, p in prediction.classes]
    return json.dumps({"path": path, "predictions": found})


def table_rows(paths: Sequence[str], names: Sequence[str]) -> Callable[[str, Prediction], str]:
    """Print the header of a table, and return the function that formats an image's rows.

    The image is in the first of its rows. Rows are printed while images are classified, so all
    paths and class names determine the widths.
    """
    widths = [max(map(len, column)) for column in (("image", *map(printable, paths)), names)]
    widths[1] = max(widths[1], len("class"))

    def row(path: str, name: str, value: str) -> str:
        return f"{path:{widths[0]}}  {name:{widths[1]}}  {value:>11}"

    header = row("image", "class", "probability")
    print(header, "-" * len(header), sep="\n")

    def rows(path: str, prediction: Prediction) -> str:
        first = (printable(path), *[""] * len(prediction.classes))
        pairs = zip(first, prediction.classes, strict=False)
        return "\n".join(row(shown, name, f"{value:.1%}") for shown, (name, value) in pairs)

    return rows


def run(arguments: argparse.Namespace) -> int:
    """Classify the images and print the predictions batch by batch.

    Returns:
        1 if an argument matches no image or an image cannot be read, else 0.

    Raises:
        UserError: no argument matches an image, or see `load_classifier` and `max_pixels`.
    """
    max_pixels()  # raises for an invalid limit before anything is printed
    paths, problems = find_images(arguments.images)
    if not paths:
        raise UserError("No image to classify: " + "; ".join(problems))
    classifier = load_classifier(arguments)
    notes = [f"note: {note}" for note in unused_files(arguments.images)]
    for line in (*(f"error: {problem}" for problem in problems), *notes):
        print(printable(line), file=sys.stderr)
    text = as_json if arguments.json else table_rows(paths, classifier.classnames)

    def show(prediction: Prediction) -> None:
        if prediction.error:
            problems.append(prediction.error)
            tqdm.write(f"error: {printable(prediction.error)}", file=sys.stderr)
        else:
            tqdm.write(text(paths[prediction.index], prediction))
            sys.stdout.flush()

    classifier.each_prediction(paths, show, arguments.top_k, arguments.batch_size)
    return 1 if problems else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a command line; returns the exit code."""
    return exit_code(run, build_parser(), argv)
