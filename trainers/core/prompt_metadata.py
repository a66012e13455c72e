"""Metadata of learned prompts: with which CLIP, settings and classes they were trained.

Prompts are only valid for the text encoder and the class token position of their training and, if
class-specific (CSC), for its classes. A checkpoint records them under `prompt`; for older
checkpoints prompt.safetensors records them, or config.yaml.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch

from clip.model import CLIP
from clip.weights import LoadedCLIP
from dassl.config import CfgNode
from dassl.config.node import read_yaml_layers
from dassl.engine import CONFIG
from safeio.errors import UserError
from safeio.untrusted import short_repr

from .prompt_file import PROMPT_FILE, read_tensors

METADATA = "prompt"  # its key in a checkpoint
FINGERPRINTS = {"weights_fp16": torch.float16, "weights_bf16": torch.bfloat16}
_fingerprints: WeakKeyDictionary[CLIP, dict[str, str]] = WeakKeyDictionary()


def describe_prompts(
    cfg: CfgNode, node: str, loaded: LoadedCLIP, classnames: Sequence[str]
) -> dict[str, Any]:
    """Return the metadata of the prompts that a trainer learns for classes in their order."""
    method = cfg.TRAINER[node]
    return {
        **describe_clip(cfg, loaded),
        "class_token_position": method.get("CLASS_TOKEN_POSITION", "end"),
        "class_specific": bool(method.get("CSC", False)),
        **({"insert_layer": method.INSERT_LAYER} if "INSERT_LAYER" in method else {}),
        "classnames": list(classnames),
    }


def describe_clip(cfg: CfgNode, loaded: LoadedCLIP) -> dict[str, Any]:
    """Return the metadata of a trainer and its CLIP."""
    config = loaded.model.config
    return {
        "trainer": cfg.TRAINER.NAME,
        "backbone": cfg.MODEL.BACKBONE.NAME,
        "weights_sha256": loaded.sha256 or "",
        **fingerprints(loaded.model),
        "activation": config.activation,
        "text_heads": config.text_heads,
        "image_heads": config.image_heads,
    }


def fingerprints(model: CLIP) -> dict[str, str]:
    """Return the SHA-256 of the weights as fp16 and as bf16, which does not depend on the file.

    It covers every 16th row of each matrix. It leaves out convolutions, since those of a frozen
    ResNet contain its batch norms. A model in half precision has only the hash of its own dtype.
    The model is frozen, so they are computed once.
    """
    if model not in _fingerprints:
        _fingerprints[model] = _compute_fingerprints(model)
    return _fingerprints[model]


def _compute_fingerprints(model: CLIP) -> dict[str, str]:
    parts = [value[::16] for value in model.parameters() if value.dim() == 2]
    parts += [model.ln_final.weight, model.ln_final.bias, model.logit_scale]
    hashes = {}
    for key, dtype in FINGERPRINTS.items():
        if model.dtype in (dtype, torch.float32):
            digest = hashlib.sha256()
            for part in parts:
                digest.update(
                    part.detach().to(dtype).cpu().flatten().view(torch.uint8).numpy().tobytes()
                )
            hashes[key] = digest.hexdigest()
    return hashes


def checkpoint_metadata(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of `describe_prompts` that a checkpoint contains; {} if none."""
    recorded = state.get(METADATA)
    entries = recorded.items() if isinstance(recorded, dict) else ()
    return {key: value for key, value in entries if isinstance(value, str | int | list)}


def find_metadata(path: Path, state: Mapping[str, Any], node: str) -> dict[str, Any]:
    """Return the metadata of a checkpoint's prompts from the checkpoint or files of its run.

    Returns:
        Entries of `describe_prompts`; {} if no file records them.

    Raises:
        UserError: prompt.safetensors or config.yaml is damaged.
    """
    run_dir = path.parent.parent
    if recorded := checkpoint_metadata(state):
        return recorded
    if (run_dir / PROMPT_FILE).is_file():
        return read_tensors(run_dir / PROMPT_FILE)[1]
    if (run_dir / CONFIG).is_file():
        return _from_config(read_yaml_layers(run_dir / CONFIG)[-1][1], node)
    return {}


def _from_config(config: Mapping[str, Any], node: str) -> dict[str, Any]:
    """Return the metadata that a configuration contains; "data" identifies the classes."""
    try:
        method = config["TRAINER"][node]
        return {
            "backbone": config["MODEL"]["BACKBONE"]["NAME"],
            "class_token_position": method.get("CLASS_TOKEN_POSITION", "end"),
            "data": describe_data(config),
        }
    except (KeyError, TypeError, AttributeError):
        return {}


def check_same_training(path: Any, trained: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of other classes or another backbone, by their `describe_prompts`.

    Raises:
        UserError: names the difference.
    """
    known = [key for key in FINGERPRINTS if key in trained and key in here]
    if known and all(trained[key] != here[key] for key in known):
        what = f"of the backbone {short_repr(trained.get('backbone'))}, not {here['backbone']}"
    elif trained.get("classnames") != here["classnames"]:
        what = f"of {len(trained.get('classnames', ()))} classes that are not this run's"
    else:
        return
    raise UserError(f'"{path}" is {what}; use the backbone and the classes of its training')


def describe_data(config: Mapping[str, Any]) -> str:
    """Return the dataset's name, with the subset of its classes unless it is all."""
    name, subset = config["DATASET"]["NAME"], config["DATASET"]["SUBSAMPLE_CLASSES"]
    return f"{name}" if subset == "all" else f"{name} ({subset})"
