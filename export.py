r"""The zero-shot classifier that a trained run amounts to, in a file that needs nothing of ours.

    python export.py output/food -o food.safetensors

writes normalised text features (C, E) with the scale of the logits and the class names. Three lines
read it anywhere:

    file = safetensors.safe_open("food.safetensors", "pt")
    text_features, scale = file.get_tensor("text_features"), file.get_tensor("scale")
    classnames = json.loads(file.metadata()["classnames"])

and logits = scale * image_features @ text_features.T, where image_features (B, E) are normalised
and come from the same backbone. docs/export.md has the rest, open_clip included.

Exit codes: 0 done, 2 a mistake in the command, or a method that has no such matrix (CoCoOp's text
features depend on the image, PLOT matches several prompts by optimal transport).
"""

from dassl.startup import importing

with importing(__name__):
    import sys
    from collections.abc import Sequence
    from pathlib import Path

    import datasets  # noqa: F401  (registers the datasets)
    import trainers  # noqa: F401  (registers the methods)
    from analysis.export import CLASSIFIER_FILE, export_command
    from analysis.run_flags import add_run_flags
    from dassl.utils import Parser, exit_code


def build_parser() -> Parser:
    """The flags."""
    parser = Parser(__doc__)
    add_run_flags(parser)
    add = parser.add_argument
    add("-o", "--output", type=Path, metavar="FILE", help=f"default RUN_DIR/{CLASSIFIER_FILE}")
    add("--overwrite", action="store_true", help="replace an existing file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a command line; returns the exit code."""
    return exit_code(export_command, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
