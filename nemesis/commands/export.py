r"""Export the classifier of a trained run to a file that is usable without this repository.

    python -m nemesis export output/food -o food.safetensors

writes normalised text features (C, E), the logit scale and the class names. Three lines read it:

    file = safetensors.safe_open("food.safetensors", "pt")
    text_features, scale = file.get_tensor("text_features"), file.get_tensor("scale")
    classnames = json.loads(file.metadata()["classnames"])

Then logits = scale * image_features @ text_features.T, where image_features (B, E) are normalised
and come from the same backbone. docs/export.md describes the file and its use with open_clip.

Exit codes: 0 success, 2 an error in the command, or a method without such a matrix (CoCoOp's text
features depend on the image, PLOT matches several prompts by optimal transport).
"""

from collections.abc import Sequence
from pathlib import Path

import datasets  # noqa: F401  (registers the datasets)
import trainers  # noqa: F401  (registers the methods)
from dassl.utils import Parser, exit_code
from nemesis.inference.export import CLASSIFIER_FILE, export_command
from nemesis.inference.run_flags import add_run_flags


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(__doc__, "export")
    add_run_flags(parser)
    add = parser.add_argument
    add("-o", "--output", type=Path, metavar="FILE", help=f"default RUN_DIR/{CLASSIFIER_FILE}")
    add("--overwrite", action="store_true", help="replace an existing file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a command line; returns the exit code."""
    return exit_code(export_command, build_parser(), argv)
