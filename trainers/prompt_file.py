"""`prompt.safetensors`: learned prompts in a file that anybody may open without running code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dassl.utils import UserError, write_atomic
from dassl.utils.strangers import parse_json, sentence

PROMPT_FILE = "prompt.safetensors"


def save_prompt(path: Path, learner: nn.Module, metadata: Mapping[str, Any]) -> None:
    """Write the learner's tensors in fp32; metadata values are JSON strings.

    The file appears under its name only when it is complete.
    """
    save_tensors(path, learner.state_dict(), metadata)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors in fp32 and metadata as JSON strings, under the name only when complete."""
    plain = {key: value.detach().float().cpu().contiguous() for key, value in tensors.items()}
    strings = {key: json.dumps(value) for key, value in metadata.items()}
    write_atomic(path, lambda temporary: save_file(plain, temporary, metadata=strings))


def read_prompt_metadata(path: Path) -> dict[str, Any]:
    """What `save_prompt` was told about the prompts.

    Raises:
        UserError: the file is damaged, or not of this kind.
    """
    try:
        with safe_open(path, "pt") as file:
            return {key: parse_json(text) for key, text in (file.metadata() or {}).items()}
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{path} is damaged: {sentence(error)}") from error
