r"""One run: train a method on a dataset and test it, or test what was trained.

    python train.py --trainer CoOp \
        --dataset-config-file configs/datasets/emoji_food.yaml \
        --config-file configs/trainers/CoOp/mini.yaml \
        --output-dir output/food --seed 1 DATASET.NUM_SHOTS 16

Ctrl-C and SIGTERM save the run and stop it; with --resume, or started again, it resumes.

Exit codes: 0 done, 2 a mistake in the command or its files (one sentence says which), 130 stopped
by Ctrl-C, 143 by SIGTERM, 1 otherwise.
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


def build_parser() -> PairsParser:
    """CoOp's flags, and --overwrite."""
    settings = get_cfg_default()
    groups = [name for name, value in settings.items() if isinstance(value, dict)]
    parser = PairsParser(__doc__, groups, [name for name in settings if name not in groups])
    _add_settings(parser.add_argument)
    _add_modes(parser.add_argument)
    return parser


def _add_settings(add: Callable[..., Any]) -> None:
    """The flags that stand for settings."""
    add("--root", help="folder of the datasets (default: data)")
    add("--output-dir", type=expanded, help="folder of this run (default: output)")
    text = "folder of a killed run; without config files, its own settings hold"
    add("--resume", type=expanded, help=text)
    add("--seed", type=int, help="a negative one draws a different run each time")
    add("--source-domains", nargs="+", help="domains to train on")
    add("--target-domains", nargs="+", help="domains to test on")
    add("--transforms", nargs="+", help="augmentations of the training images")
    add("--config-file", help="YAML of the method, such as configs/trainers/CoOp/mini.yaml")
    add("--dataset-config-file", help="YAML of the dataset, such as configs/datasets/*.yaml")
    add("--trainer", help="method, such as CoOp")
    add("--backbone", help="name or path of CLIP's weights")
    add("--head", help="name of the head, for trainers that have one")


def _add_modes(add: Callable[..., Any]) -> None:
    """The flags that say what is done: training, testing, replacing."""
    add("--eval-only", action="store_true", help="only test the model of --model-dir")
    text = "folder of the run whose model --eval-only tests"
    add("--model-dir", type=expanded, default="", help=text)
    add("--load-epoch", type=int, help="which checkpoint of --model-dir; default the last")
    add(
        "--ignore-mismatch",
        action="store_true",
        help="test a prompt on other classes, with another backbone or at another place in the "
        "text than it was learned with",
    )
    add("--no-train", action="store_true", help="build everything, train nothing")
    add(
        "--no-feature-cache",
        action="store_true",
        default=None,  # not given: what the files say
        help="neither read nor keep image features (default: <root>/features)",
    )
    add("--overwrite", action="store_true", help="replace the run in --output-dir")


def check_flags(arguments: argparse.Namespace) -> None:
    """Refuse flags that contradict each other, before anything is imported that takes time.

    Raises:
        UserError: names them.
    """
    tests, epoch, source = arguments.eval_only, arguments.load_epoch, arguments.model_dir
    idle = "--eval-only" if tests else "--no-train" if arguments.no_train else ""
    named = (arguments.trainer, arguments.config_file, arguments.dataset_config_file)
    mistakes = {
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
        "--no-train gives no run that could take a finished one's place: leave --overwrite out": (
            arguments.overwrite and arguments.no_train
        ),
    }
    for sentence, wrong in mistakes.items():
        if wrong:
            raise UserError(sentence)
    if source:
        what = "checkpoint" if epoch is None else f"model.pth.tar-{epoch}"
        check_run_folder("--model-dir", Path(source), f", so there is no {what} in it")
    if arguments.resume and arguments.resume != arguments.output_dir:
        check_run_folder("--resume", Path(arguments.resume))


def check_run_folder(flag: str, folder: Path, consequence: str = "") -> None:
    """Refuse what is no folder of a run.

    Raises:
        UserError: says what to give instead, where that can be seen.
    """
    if not folder.exists():
        raise UserError(
            f'The folder "{folder}" of {flag} does not exist{consequence}; give the --output-dir '
            "of the run that was trained"
        )
    if folder.is_dir() and not any(folder.glob("model*.pth.tar*")):
        return
    kind = "one model's checkpoints alone" if folder.is_dir() else "no folder"
    near = [around for around in list(folder.parents)[:2] if any(around.glob("*/model*.pth.tar*"))]
    instead = f', "{near[0]}"' if near else ""
    raise UserError(f'"{folder}" is {kind}, and {flag} takes the folder of the whole run{instead}')


def _missing(flag: str) -> str:
    return f"{flag} is missing, and no file or setting says it either; such as: {EXAMPLE}"


def make_config(arguments: argparse.Namespace) -> Any:
    """Layer dataset file, method file, flags and KEY VALUE pairs.

    With --resume and no config file, the run's own config.yaml takes their place.

    Raises:
        UserError: a file, a key or a value is wrong, or the trainer or the dataset is missing.
    """
    with importing(__name__):
        import datasets  # noqa: F401  (registers the datasets)
        import trainers  # noqa: F401  (registers the methods)
    overrides = {key: getattr(arguments, flag) for flag, key in FLAG_KEYS.items()}
    flags = {key: value for key, value in overrides.items() if value not in (None, [])}
    method_file = arguments.config_file
    if arguments.resume:
        flags.setdefault("OUTPUT_DIR", arguments.resume)
        if method_file is None and arguments.dataset_config_file is None:
            method_file = _own_config(Path(arguments.resume), needed=not arguments.trainer)
    cfg = load_config(arguments.dataset_config_file, method_file, flags, arguments.opts)
    for group, flag in (("TRAINER", "--trainer"), ("DATASET", "--dataset-config-file")):
        if not cfg[group].NAME:
            raise UserError(_missing(flag))
    return cfg


def _own_config(folder: Path, needed: bool) -> str | None:
    path = folder / "config.yaml"
    if path.is_file():
        return str(path)
    if needed and folder.is_dir():
        raise UserError(
            f"{path} is missing, so --resume {folder} needs all that the run was started with: "
            "--trainer, --config-file and --dataset-config-file, or KEY VALUE pairs"
        )
    return None


def run(arguments: argparse.Namespace) -> None:
    """Train and test as the arguments say.

    Raises:
        UserError: a setting that cannot be, weights that cannot be used, or a finished run in the
            way.
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
    """The command that does the same again.

    Args:
        arguments: of `build_parser`.
        resume: the folder of a run to resume.
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
    return exit_code(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
