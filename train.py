r"""One run: train a method on a dataset and test it, or test what was trained.

    python train.py --trainer CoOp \
        --dataset-config-file configs/datasets/emoji_food.yaml \
        --config-file configs/trainers/CoOp/mini.yaml \
        --output-dir output/food --seed 1 DATASET.NUM_SHOTS 16

Ctrl-C and SIGTERM save the run and stop it; with --resume, or started again, it goes on.

Exit codes: 0 done, 2 a mistake in the command or its files (one sentence says which), 130 stopped
by Ctrl-C, 143 by SIGTERM, 1 otherwise.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets  # noqa: F401  (registers the datasets)
import trainers  # noqa: F401  (registers the methods)
from clip.errors import ClipError
from dassl.config import load_config
from dassl.engine import CONFIG, Interrupted, carry_out
from dassl.utils import Parser, UserError, exit_code

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
    add("--resume", help="folder of a killed run; without config files, its own settings hold")
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
    add("--overwrite", action="store_true", help="replace the run in --output-dir")
    add("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="override any setting")
    return parser


def make_config(arguments: argparse.Namespace) -> Any:
    """Layer dataset file, method file, flags and KEY VALUE pairs.

    With --resume and no config file, the run's own config.yaml takes their place.
    """
    given = {key: getattr(arguments, flag) for flag, key in FLAG_KEYS.items()}
    flags = {key: value for key, value in given.items() if value not in (None, [])}
    method_file = arguments.config_file
    if arguments.resume:
        flags.setdefault("OUTPUT_DIR", arguments.resume)
        if method_file is None and arguments.dataset_config_file is None:
            method_file = _own_config(Path(arguments.resume), needed=not arguments.trainer)
    return load_config(arguments.dataset_config_file, method_file, flags, arguments.opts)


def _own_config(folder: Path, needed: bool) -> str | None:
    path = folder / CONFIG
    if path.is_file():
        return str(path)
    if needed and folder.is_dir():
        raise UserError(
            f"{path} is missing, so --resume {folder} needs all that the run was started with: "
            "--trainer, --config-file and --dataset-config-file, or KEY VALUE pairs"
        )
    if needed:
        raise UserError(f'The folder to resume from, "{folder}", does not exist')
    return None


def run(arguments: argparse.Namespace) -> None:
    """Train and test as the arguments say.

    Raises:
        UserError: a setting that cannot be, or a finished run in the way.
        ClipError: the backbone's weights cannot be used.
        Interrupted: Ctrl-C or SIGTERM.
    """
    cfg = make_config(arguments)
    try:
        carry_out(
            cfg,
            train=not arguments.no_train,
            model_dir=arguments.model_dir if arguments.eval_only else None,
            load_epoch=arguments.load_epoch,
            overwrite=arguments.overwrite,
        )
    except Interrupted as stop:
        resume = "" if arguments.eval_only or arguments.no_train else cfg.OUTPUT_DIR
        stop.command = command_line(arguments, resume)
        raise


def command_line(arguments: argparse.Namespace, resume: str = "") -> str:
    """The command that does the same again.

    Args:
        arguments: of `build_parser`.
        resume: a folder to go on in.
    """
    flags = {name: value for name, value in vars(arguments).items() if name != "opts"}
    if resume:
        flags.update(resume=resume, overwrite=False)
    words = ["python", Path(__file__).name]
    # Flags of several values first, which must not take the KEY VALUE pairs for more of them.
    for name, value in sorted(flags.items(), key=lambda flag: not isinstance(flag[1], list)):
        if value is None or value is False or value in ("", []):
            continue
        values = value if isinstance(value, list) else [] if value is True else [value]
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return shlex.join([*words, *arguments.opts])


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a command line; returns the exit code."""
    return exit_code(run, build_parser(), argv, mistakes=(UserError, ClipError))


if __name__ == "__main__":
    sys.exit(main())
