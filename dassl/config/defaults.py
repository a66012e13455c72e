"""Keys of the engine with their defaults; trainers and datasets declare theirs in their files."""

import copy
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from .node import WORDS, CfgNode, Config, short_path, to_dict

_GENERAL: dict[str, Any] = {
    "VERSION": 1,
    "OUTPUT_DIR": "./output",
    "RESUME": "",  # folder of an earlier run to resume
    "SEED": -1,  # negative: a different run each time
    "DEVICE": "auto",  # auto, cpu, cuda, cuda:N, mps
    "USE_CUDA": True,  # False forces the CPU
    "VERBOSE": True,
}

_INPUT: dict[str, Any] = {
    "SIZE": (224, 224),
    "INTERPOLATION": "bilinear",
    "TRANSFORMS": (),
    "NO_TRANSFORM": False,
    # as_viewed: rotated by the EXIF orientation, white behind transparent pixels. as_stored:
    # neither, as in CoOp. auto: the dataset's class decides; the user's own images: as_viewed.
    "DECODE": "auto",
    "PIXEL_MEAN": [0.485, 0.456, 0.406],
    "PIXEL_STD": [0.229, 0.224, 0.225],
    "CROP_PADDING": 4,
    "RRCROP_SCALE": (0.08, 1.0),
    "CUTOUT_N": 1,
    "CUTOUT_LEN": 16,
    "GN_MEAN": 0.0,
    "GN_STD": 0.15,
    "RANDAUGMENT_N": 2,
    "RANDAUGMENT_M": 10,
    "COLORJITTER_B": 0.4,
    "COLORJITTER_C": 0.4,
    "COLORJITTER_S": 0.4,
    "COLORJITTER_H": 0.1,
    "RGS_P": 0.2,
    "GB_P": 0.5,
    "GB_K": 21,
}

_DATASET: dict[str, Any] = {
    "ROOT": "data",
    "NAME": "",
    "CLASSNAMES": (),  # for the dataset ClassNames, which has no images
    "TEMPLATES": (),  # hand-written prompts, such as "a photo of a {}."; empty: the dataset's own
    "SOURCE_DOMAINS": (),
    "TARGET_DOMAINS": (),
    "NUM_LABELED": -1,
    "NUM_SHOTS": -1,  # below 1: all images
    # VTAB-1k: training and validation images in all, 80% and 20% of them; below 1: all images.
    "NUM_TRAIN": -1,
    # For classes with fewer images than shots: use some more than once, rather than each once as
    # CoOp's code does.
    "REPEAT_SHOTS": False,
    "VAL_PERCENT": 0.1,
    "SUBSAMPLE_CLASSES": "all",  # all, base or new
    # Continual learning: the classes in TASKS groups drawn by SEED; 0: all at once.
    "TASKS": 0,
    "TASK": 1,  # number of the current task, from 1
    "TASK_CLASSES": "own",  # the task's; seen: also those of earlier tasks; unseen: of later ones
    "ALL_AS_UNLABELED": False,
}

_DATALOADER: dict[str, Any] = {
    "NUM_WORKERS": 4,
    "K_TRANSFORMS": 1,  # number of augmentations of each training image
    "RETURN_IMG0": False,
    "ON_BAD_IMAGE": "error",  # or skip: skip images that cannot be decoded, and print their names
    "CACHE_MB": 256,  # decoded training images cached in memory, per process
    "TRAIN_X": {
        **{"SAMPLER": "RandomSampler", "BATCH_SIZE": 32, "N_DOMAIN": 0, "N_INS": 16},
        "DROP_LAST": True,  # an incomplete last batch of an epoch
    },
    "TRAIN_U": {
        "SAME_AS_X": True,
        "SAMPLER": "RandomSampler",
        "BATCH_SIZE": 32,
        "N_DOMAIN": 0,
        "N_INS": 16,
    },
    "TEST": {"SAMPLER": "SequentialSampler", "BATCH_SIZE": 32},
}

_MODEL: dict[str, Any] = {
    "INIT_WEIGHTS": "",
    "BACKBONE": {"NAME": "", "PRETRAINED": True},
    "HEAD": {"NAME": "", "HIDDEN_LAYERS": (), "ACTIVATION": "relu", "BN": True, "DROPOUT": 0.0},
}

_OPTIM: dict[str, Any] = {
    "NAME": "adam",
    "LR": 0.0003,
    "WEIGHT_DECAY": 5e-4,
    "MOMENTUM": 0.9,
    "SGD_DAMPNING": 0.0,  # Dassl's spelling, which configs use
    "SGD_NESTEROV": False,
    "RMSPROP_ALPHA": 0.99,
    "ADAM_BETA1": 0.9,
    "ADAM_BETA2": 0.999,
    "ADAM_EPS": 1e-8,  # of adam, amsgrad, radam and adamw
    "STAGED_LR": False,
    "NEW_LAYERS": (),
    "BASE_LR_MULT": 0.1,
    "LR_SCHEDULER": "single_step",
    "STEPSIZE": (-1,),
    "GAMMA": 0.1,
    "MAX_EPOCH": 10,
    "WARMUP_EPOCH": -1,
    "WARMUP_TYPE": "linear",
    "WARMUP_CONS_LR": 1e-5,
    "WARMUP_MIN_LR": 1e-5,
    "WARMUP_RECOUNT": True,
}

_TEST: dict[str, Any] = {
    "EVALUATOR": "Classification",
    "PER_CLASS_RESULT": False,
    "COMPUTE_CMAT": False,
    "NO_TEST": False,
    "SPLIT": "test",
    "FINAL_MODEL": "last_step",  # last_step or best_val
}

_DEFAULTS: dict[str, Any] = {
    **_GENERAL,
    "INPUT": _INPUT,
    "DATASET": _DATASET,
    "DATALOADER": _DATALOADER,
    "MODEL": _MODEL,
    "OPTIM": _OPTIM,
    "TRAIN": {"CHECKPOINT_FREQ": 0, "PRINT_FREQ": 10, "COUNT_ITER": "train_x"},
    "TEST": _TEST,
    "TRAINER": {"NAME": ""},
}

_declared: dict[str, dict[str, Any]] = {}
_declaring: dict[str, Path] = {}  # the file that declared a group


def declare_config(path: str, defaults: dict[str, Any]) -> None:
    """Add a group of keys to every configuration; call it in the file of a trainer or dataset.

    Args:
        path: dotted path of the group, such as "TRAINER.COOP".
        defaults: keys and default values, which also set the keys' types.

    Raises:
        ValueError: the group is declared already, with other defaults or by the engine.
    """
    file = Path(sys._getframe(1).f_code.co_filename)
    if path in _declared:
        if _declared[path] != defaults:
            raise ValueError(
                f"{path} is declared twice, with different defaults: in "
                f"{short_path(_declaring[path])} and {short_path(file)}"
            )
        return
    node: Any = _DEFAULTS
    for name in path.split("."):
        node = node.get(name, {}) if isinstance(node, dict) else None
    if node is None or not isinstance(node, dict) or set(node) & set(defaults):
        raise ValueError(f"{path} is declared by the engine already")
    _declared[path], _declaring[path] = defaults, file
    plain_defaults.cache_clear()


def declare_word(path: str, word: str) -> None:
    """Let a key with a number as default also take a word."""
    WORDS[path] = (*WORDS.get(path, ()), word)


def get_cfg_default() -> CfgNode:
    """Return a new configuration with the defaults of the engine and of all declared groups."""
    cfg = CfgNode(_DEFAULTS).clone()
    for path, defaults in _declared.items():
        node = cfg
        for name in path.split("."):
            if name not in node:
                node[name] = CfgNode()
            node = node[name]
        node.update(CfgNode(defaults).clone())
    return cfg


def complete_config(cfg: Config) -> Config:
    """Add the defaults of missing keys to a configuration.

    Args:
        cfg: a configuration, perhaps made from third-party code's copy of Dassl's defaults, which
            has fewer keys. It is not changed.

    Returns:
        `cfg` itself if no key is missing; else a completed copy, frozen if `cfg` is.
    """
    if _has_all(cfg, plain_defaults()):
        return cfg
    complete = CfgNode(copy.deepcopy(dict(cfg)))
    _fill_in(complete, get_cfg_default())
    if cfg.is_frozen():
        complete.freeze()
    return complete


def _has_all(node: Any, defaults: Any) -> bool:
    if not (isinstance(node, dict) and isinstance(defaults, dict)):
        return True
    return all(name in node and _has_all(node[name], value) for name, value in defaults.items())


def _fill_in(node: Any, defaults: Any) -> None:
    for name, default in defaults.items():
        if name not in node:
            node[name] = default
        elif isinstance(default, dict) and isinstance(node[name], dict):
            _fill_in(node[name], default)


@lru_cache(maxsize=1)
def plain_defaults() -> dict[str, Any]:
    """Return all defaults as nested dictionaries; callers must not change them."""
    return to_dict(get_cfg_default())


def clean_cfg(cfg: Config, trainer: str) -> None:
    """Remove the groups of all other trainers in place.

    Args:
        cfg: a configuration.
        trainer: the trainer's name; its group is the name in upper case.
    """
    for key in list(cfg.TRAINER):
        if key not in ("NAME", trainer.upper()):
            cfg.TRAINER.pop(key)
