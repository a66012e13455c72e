r"""Train a method on a dataset and test it, or test a trained run.

    python train.py --trainer CoOp \
        --dataset-config-file configs/datasets/emoji_food.yaml \
        --config-file configs/trainers/CoOp/mini.yaml \
        --output-dir output/food --seed 1 DATASET.NUM_SHOTS 16

Ctrl-C and SIGTERM save the run and stop it; the same command, or --resume, resumes it.

Exit codes: 0 success, 2 an error in the command or its files, described in one sentence, 130
stopped by Ctrl-C, 143 by SIGTERM, 1 otherwise.
"""

from dassl.startup import importing, ready

with importing(__name__):
    import argparse
    import shlex
    import sys
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Any

    from dassl.config import get_cfg_default, load_config
    from dassl.utils import PairsParser, exit_code
    from safeio.errors import UserError
    from safeio.files import expanded

EXAMPLE = (
    "python train.py --trainer CoOp --dataset-config-file configs/datasets/emoji_food.yaml "
    "--config-file configs/trainers/CoOp/mini.yaml --output-dir output/food"
)
# Flags that set a configuration key. They override the files; KEY VALUE pairs override them.
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


def build_parser() -> PairsParser:
    """Return the parser with CoOp's flags and this repository's own."""
    settings = get_cfg_default()
    groups = [name for name, value in settings.items() if isinstance(value, dict)]
    parser = PairsParser(__doc__, groups, [name for name in settings if name not in groups])
    _add_settings(parser.add_argument)
    _add_modes(parser.add_argument)
    return parser


def _add_settings(add: Callable[..., Any]) -> None:
    """Add the flags that set configuration keys."""
    add("--root", help="folder of the datasets (default: data)")
    add("--output-dir", type=expanded, help="folder of this run (default: output)")
    text = "folder of an interrupted run; without config files, it keeps its settings"
    add("--resume", type=expanded, help=text)
    add("--seed", type=int, help="seed of the run; a negative one is random")
    add("--source-domains", nargs="+", help="domains to train on")
    add("--target-domains", nargs="+", help="domains to test on")
    add("--transforms", nargs="+", help="augmentations of the training images")
    add("--config-file", help="YAML of the method, or its name, such as mini or rn50_ep50")
    add("--dataset-config-file", help="YAML of the dataset, or its name, such as emoji_food")
    add("--trainer", help="method, such as CoOp")
    add("--backbone", help="name or path of CLIP's weights")
    add("--head", help="name of the head, for trainers that have one")


def _add_modes(add: Callable[..., Any]) -> None:
    """Add the flags that choose between training and testing."""
    add("--eval-only", action="store_true", help="only test the model of --model-dir")
    text = "folder of the run whose model --eval-only tests"
    add("--model-dir", type=expanded, default="", help=text)
    add("--load-epoch", type=int, help="which checkpoint of --model-dir; default the last")
    text = (
        "test a prompt with other classes, another backbone or another class token position than "
        "in its training"
    )
    add("--ignore-mismatch", action="store_true", help=text)
    add("--no-train", action="store_true", help="build everything without training")
    text = "do not use the image features cached in <root>/features"
    # None: the configuration files decide.
    add("--no-feature-cache", action="store_true", default=None, help=text)
    add("--overwrite", action="store_true", help="replace the run in --output-dir")


def check_flags(arguments: argparse.Namespace) -> None:
    """Raise an error for flags that contradict each other, before slow imports.

    Raises:
        UserError: names the flags.
    """
    tests, epoch, source = arguments.eval_only, arguments.load_epoch, arguments.model_dir
    idle = "--eval-only" if tests else "--no-train" if arguments.no_train else ""
    named = (arguments.trainer, arguments.config_file, arguments.dataset_config_file)
    errors = {
        _missing("--trainer"): not any((*named, arguments.resume, arguments.opts)),
        "--model-dir names the run that --eval-only tests: add --eval-only, or start from a "
        "checkpoint's file with MODEL.INIT_WEIGHTS": source and not tests,
        "--load-epoch chooses what --eval-only tests: add --eval-only and --model-dir, or leave it "
        "out": epoch is not None and not tests,
        "--load-epoch chooses a checkpoint of --model-dir, which is missing": (
            epoch is not None and not source
        ),
        f"--load-epoch is {epoch}, but epochs are counted from 1, as in model.pth.tar-1": (
            epoch is not None and epoch < 1
        ),
        "--eval-only trains nothing anyway: leave --no-train out": tests and arguments.no_train,
        "--ignore-mismatch is about what --eval-only tests: add --eval-only and --model-dir, or "
        "leave it out": arguments.ignore_mismatch and not tests,
        f"--resume continues a training, and {idle} trains nothing: leave one of them out": (
            arguments.resume and idle
        ),
        "--no-train writes no run that could replace a finished one: leave --overwrite out": (
            arguments.overwrite and arguments.no_train
        ),
    }
    for message, wrong in errors.items():
        if wrong:
            raise UserError(message)
    if source:
        what = "checkpoint" if epoch is None else f"model.pth.tar-{epoch}"
        check_run_folder("--model-dir", Path(source), f", so it contains no {what}")
    if arguments.resume and arguments.resume != arguments.output_dir:
        check_run_folder("--resume", Path(arguments.resume))


def check_run_folder(flag: str, folder: Path, consequence: str = "") -> None:
    """Raise an error for a path that is not the folder of a run.

    Raises:
        UserError: names the run's folder if it is found nearby.
    """
    if not folder.exists():
        raise UserError(
            f'The folder "{folder}" of {flag} does not exist{consequence}; give the --output-dir '
            "of the run that was trained"
        )
    if folder.is_dir() and not any(folder.glob("model*.pth.tar*")):
        return
    kind = "the folder of one model's checkpoints" if folder.is_dir() else "not a folder"
    parents = list(folder.parents)[:2]
    near = [parent for parent in parents if any(parent.glob("*/model*.pth.tar*"))]
    instead = f', "{near[0]}"' if near else ""
    raise UserError(f'"{folder}" is {kind}, but {flag} takes the folder of the whole run{instead}')


def _missing(flag: str) -> str:
    return f"{flag} is missing, and no file or setting replaces it; for example: {EXAMPLE}"


def make_config(arguments: argparse.Namespace) -> Any:
    """Merge dataset file, method file, flags and KEY VALUE pairs, in this order.

    With --resume and without config files, the run's config.yaml replaces them.

    Raises:
        UserError: a file, a key or a value is invalid, or the trainer or the dataset is missing.
    """
    with importing(__name__):
        import datasets  # noqa: F401  (registers the datasets)
        from trainers.config_names import config_file
    overrides = {key: getattr(arguments, flag) for flag, key in FLAG_KEYS.items()}
    flags = {key: value for key, value in overrides.items() if value not in (None, [])}
    method_file, dataset_file = arguments.config_file, arguments.dataset_config_file
    if arguments.resume:
        flags.setdefault("OUTPUT_DIR", arguments.resume)
        if method_file is None and dataset_file is None:
            method_file = _run_config(Path(arguments.resume), required=not arguments.trainer)
    if dataset_file:
        dataset_file = config_file("datasets", dataset_file)
    if method_file:
        method_file = config_file(f"trainers/{arguments.trainer or ''}", method_file)
    cfg = load_config(dataset_file, method_file, flags, arguments.opts)
    for group, flag in (("TRAINER", "--trainer"), ("DATASET", "--dataset-config-file")):
        if not cfg[group].NAME:
            raise UserError(_missing(flag))
    return cfg


def _run_config(folder: Path, required: bool) -> str | None:
    path = folder / "config.yaml"
    if path.is_file():
        return str(path)
    if required and folder.is_dir():
        raise UserError(
            f"{path} is missing, so --resume {folder} needs the flags that started the run: "
            "--trainer, --config-file and --dataset-config-file, or KEY VALUE pairs"
        )
    return None


def run(arguments: argparse.Namespace) -> None:
    """Train and test, or only test.

    Raises:
        UserError: a setting or the weights are invalid, or the folder contains a finished run.
        Interrupted: Ctrl-C or SIGTERM.
    """
    check_flags(arguments)
    cfg = make_config(arguments)
    with importing(__name__):
        from dassl.engine import Interrupted, run_experiment
    ready()
    try:
        run_experiment(
            cfg,
            train=not arguments.no_train,
            model_dir=arguments.model_dir if arguments.eval_only else None,
            load_epoch=arguments.load_epoch,
            overwrite=arguments.overwrite,
            ignore_mismatch=arguments.ignore_mismatch,
        )
    except Interrupted as stop:
        resume = "" if arguments.eval_only or arguments.no_train else cfg.OUTPUT_DIR
        stop.command = command_line(arguments, resume)
        raise


def command_line(arguments: argparse.Namespace, resume: str = "") -> str:
    """Return the command line of parsed arguments.

    Args:
        arguments: of `build_parser`.
        resume: folder of a run; the command resumes it.
    """
    flags = {name: value for name, value in vars(arguments).items() if name != "opts"}
    if resume:
        flags.update(resume=resume, overwrite=False)
    words = ["python", Path(__file__).name]
    # Flags with several values come first, or argparse would add the KEY VALUE pairs to them.
    for name, value in sorted(flags.items(), key=lambda flag: not isinstance(flag[1], list)):
        if value is None or value is False or value in ("", []):
            continue
        values = value if isinstance(value, list) else [] if value is True else [value]
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return shlex.join([*words, *arguments.opts])


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a command line; returns the exit code."""
    return exit_code(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
