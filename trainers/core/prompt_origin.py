"""Where learned prompts come from: the metadata of checkpoints and of prompt.safetensors.

Prompts mean something only to the text tower that they were learned with, at the place that they
had in the text and, where every class has its own (CSC), for that class. A checkpoint says so under
`prompt`; for older ones prompt.safetensors does, or config.yaml.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from clip.model import CLIP
from clip.weights import LoadedCLIP
from dassl.config import CfgNode
from dassl.config.node import read_yaml_layers
from dassl.engine import CONFIG

from .prompt_file import PROMPT_FILE, read_prompt_metadata

ORIGIN = "prompt"  # its key in a checkpoint

FINGERPRINTS = {"weights_fp16": torch.float16, "weights_bf16": torch.bfloat16}


def describe_prompts(
    cfg: CfgNode, node: str, loaded: LoadedCLIP, classnames: Sequence[str]
) -> dict[str, Any]:
    """What prompts that are learned here mean: the metadata of checkpoints and prompt files.

    Args:
        cfg: the whole configuration.
        node: name of the method's part.
        loaded: the frozen CLIP.
        classnames: by label.
    """
    config, method = loaded.model.config, cfg.TRAINER[node]
    return {
        "trainer": cfg.TRAINER.NAME,
        "backbone": cfg.MODEL.BACKBONE.NAME,
        "weights_sha256": loaded.sha256 or "",
        **fingerprints(loaded.model),
        "activation": config.activation,
        "text_heads": config.text_heads,
        "image_heads": config.image_heads,
        "class_token_position": method.get("CLASS_TOKEN_POSITION", "end"),
        "class_specific": bool(method.get("CSC", False)),
        "classnames": list(classnames),
    }


def fingerprints(model: CLIP) -> dict[str, str]:
    """SHA-256 of the weights as fp16 and as bf16: the same for the same weights in any file.

    Of every matrix it takes one row in 16. Convolutions are left out, since those of a frozen
    ResNet hold its batch norms. A model in lower precision has the one of its own precision alone.
    """
    parts = [value[::16] for value in model.parameters() if value.dim() == 2]
    parts += [model.ln_final.weight, model.ln_final.bias, model.logit_scale]
    found = {}
    for key, dtype in FINGERPRINTS.items():
        if model.dtype in (dtype, torch.float32):
            digest = hashlib.sha256()
            for part in parts:
                digest.update(
                    part.detach().to(dtype).cpu().flatten().view(torch.uint8).numpy().tobytes()
                )
            found[key] = digest.hexdigest()
    return found


def known_origin(state: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint itself says of its prompts: entries of `describe_prompts`, or none."""
    recorded = state.get(ORIGIN)
    entries = recorded.items() if isinstance(recorded, dict) else ()
    return {key: value for key, value in entries if isinstance(value, str | int | list)}


def read_origin(path: Path, state: Mapping[str, Any], node: str) -> dict[str, Any]:
    """What is known of a checkpoint's prompts: entries of `describe_prompts`, perhaps none.

    Args:
        path: of the checkpoint, in a model's folder in a run's folder.
        state: its content.
        node: name of the method's configuration node.

    Raises:
        UserError: prompt.safetensors or config.yaml is damaged.
    """
    run_dir = path.parent.parent
    if recorded := known_origin(state):
        return recorded
    if (run_dir / PROMPT_FILE).is_file():
        return read_prompt_metadata(run_dir / PROMPT_FILE)
    if (run_dir / CONFIG).is_file():
        return _from_config(read_yaml_layers(run_dir / CONFIG)[-1][1], node)
    return {}


def _from_config(config: Mapping[str, Any], node: str) -> dict[str, Any]:
    """What a configuration says of the prompts; the data that it names stands for its classes."""
    try:
        method = config["TRAINER"][node]
        origin = {
            "backbone": config["MODEL"]["BACKBONE"]["NAME"],
            "class_token_position": method.get("CLASS_TOKEN_POSITION", "end"),
            "data": data_of(config),
        }
    except (KeyError, TypeError, AttributeError):
        return {}
    return origin


def data_of(config: Mapping[str, Any]) -> str:
    """Which dataset's classes a configuration is about, in words."""
    dataset = config["DATASET"]
    half = dataset["SUBSAMPLE_CLASSES"]
    return f"{dataset['NAME']}" + (f" ({half})" if half != "all" else "")
