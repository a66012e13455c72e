r"""Export the classifier of a trained run to a file that is usable without this repository.

    python -m nemesis export output/food -o food.safetensors

writes normalised text features (C, E), the logit scale and the class names. Three lines read it:

    file = safetensors.safe_open("food.safetensors", "pt")
    text_features, scale = file.get_tensor("text_features"), file.get_tensor("scale")
    classnames = json.loads(file.metadata()["classnames"])

Then logits = scale * image_features @ text_features.T, where image_features (B, E) are normalised
and come from the same backbone, with the file's vision_prompts if it has any. docs/export.md
describes the file and its use with open_clip.

A run of adapters (CLIPLoRA, CoTo) also gives a folder merged_clip next to the classifier: the CLIP
with merged adapters, whose image features the classifier needs if the image encoder is adapted, as
openai.safetensors and, for a vision transformer, as model.safetensors and config.json of Hugging
Face's transformers.

Exit codes: 0 success, 2 an error in the command, or a method without such a matrix (CoCoOp's text
features depend on the image, PLOT matches several prompts by optimal transport).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dassl.utils import Parser, exit_code
from nemesis.inference.export import CLASSIFIER_FILE
from nemesis.inference.merged_clip import MERGED
from trainers.core.lora_trainer import LoRATrainer

from .run_flags import add_class_flags, add_load_flags, add_third_party_flags, load_classifier


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(__doc__, "export")
    add = parser.add_argument
    add("run_dir", type=Path, metavar="RUN_DIR", help="folder of a finished run")
    add("-o", "--output", type=Path, metavar="FILE", help=f"default RUN_DIR/{CLASSIFIER_FILE}")
    add("--overwrite", action="store_true", help="replace an existing file")
    add_class_flags(parser)
    add_load_flags(parser)
    add_third_party_flags(parser)
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Export the run's classifier.

    Raises:
        UserError: see `load_classifier` and `Classifier.export`.
    """
    classifier = load_classifier(arguments)
    path = arguments.output or arguments.run_dir / CLASSIFIER_FILE
    classifier.export(path, arguments.overwrite)
    if isinstance(classifier.trainer, LoRATrainer):
        print(f"The merged CLIP is in {path.parent / MERGED}")
    print(f"The classifier of {len(classifier.classnames)} classes is in {path}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a command line; returns the exit code."""
    return exit_code(run, build_parser(), argv)
