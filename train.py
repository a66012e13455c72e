r"""One run: train a method on a dataset and test it, or test what was trained.

    python train.py --trainer CoOp \
        --dataset-config-file configs/datasets/emoji_food.yaml \
        --config-file configs/trainers/CoOp/mini.yaml \
        --output-dir output/food --seed 1 DATASET.NUM_SHOTS 16

Exit codes: 0 done, 2 a mistake in the command or its files (one sentence says which), 1 otherwise.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import datasets  # noqa: F401  (registers the datasets)
import trainers  # noqa: F401  (registers the methods)
from clip.errors import ClipError
from dassl.config import load_config
from dassl.engine import clear_run, finished_run, start_trainer
from dassl.utils import (
    Parser,
    UserError,
    exit_code,
    prepare_output_dir,
    setup_logger,
)

# Flags that stand for a configuration key; they win over the files and lose to KEY VALUE pairs.
FLAG_KEYS = {
    "root": "DATASET.ROOT",
    "output_dir": "OUTPUT_DIR",
    "resume": "RESUME",
    "seed": "SEED",
    "source_domains": "DATASET.SOURCE_DOMAINS",
    "target_domains": "DATASET.TARGET_DOMAINS",
    "transforms": "INPUT.TRANSFORMS",
    "trainer": "TRAINER.NAME",
    "backbone": "MODEL.BACKBONE.NAME",
    "head": "MODEL.HEAD.NAME",
    "no_feature_cache": "TEST.NO_FEATURE_CACHE",
}


def build_parser() -> argparse.ArgumentParser:
    """CoOp's flags, and --overwrite."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--root", help="folder of the datasets (default: data)")
    add("--output-dir", help="folder of this run (default: output)")
    add("--resume", help="folder of a killed run to go on with")
    add("--seed", type=int, help="a negative one draws a different run each time")
    add("--source-domains", nargs="+", help="domains to train on")
    add("--target-domains", nargs="+", help="domains to test on")
    add("--transforms", nargs="+", help="augmentations of the training images")
    add("--config-file", help="YAML of the method, such as configs/trainers/CoOp/mini.yaml")
    add("--dataset-config-file", help="YAML of the dataset, such as configs/datasets/*.yaml")
    add("--trainer", help="method, such as CoOp")
    add("--backbone", help="name or path of CLIP's weights")
    add("--head", help="name of the head, for trainers that have one")
    add("--eval-only", action="store_true", help="only test the model of --model-dir")
    add("--model-dir", default="", help="folder of the run whose model --eval-only tests")
    add("--load-epoch", type=int, help="which checkpoint of --model-dir; default the last")
    add("--no-train", action="store_true", help="build everything, train nothing")
    add(
        "--no-feature-cache",
        action="store_true",
        default=None,  # not given: what the files say
        help="neither read nor keep image features (default: <root>/features)",
    )
    add("--overwrite", action="store_true", help="replace a finished run in --output-dir")
    add("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="override any setting")
    return parser


def make_config(arguments: argparse.Namespace) -> Any:
    """Layer dataset file, method file, flags and KEY VALUE pairs."""
    given = {key: getattr(arguments, flag) for flag, key in FLAG_KEYS.items()}
    flags = {key: value for key, value in given.items() if value not in (None, [])}
    return load_config(arguments.dataset_config_file, arguments.config_file, flags, arguments.opts)


def run(arguments: argparse.Namespace) -> None:
    """Train and test as the arguments say.

    Raises:
        UserError: a setting that cannot be, or a finished run in the way.
        ClipError: the backbone's weights cannot be used.
    """
    cfg = make_config(arguments)
    output = prepare_output_dir(cfg.OUTPUT_DIR)
    if finished_run(output) and not arguments.overwrite:
        raise UserError(
            f"{output} already holds a finished run; choose another --output-dir or --overwrite it."
        )
    with setup_logger(output) or nullcontext():
        trainer = start_trainer(cfg)
        trains = not (arguments.eval_only or arguments.no_train)
        if trains:
            trainer.check_train()
        if arguments.overwrite:  # only now: a mistake in the command costs nothing
            clear_run(output)
        if arguments.eval_only:
            trainer.load_model(arguments.model_dir, epoch=arguments.load_epoch)
            trainer.evaluate(arguments.model_dir)
        elif trains:
            trainer.train()
        print(f"Results are in {output}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a command line; returns the exit code."""
    return exit_code(run, build_parser(), argv, mistakes=(UserError, ClipError))


if __name__ == "__main__":
    sys.exit(main())
