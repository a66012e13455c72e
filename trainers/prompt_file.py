"""`prompt.safetensors`: learned prompts in a file that anybody may open without running code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from dassl.utils import write_atomic


def save_prompt(path: Path, learner: nn.Module, metadata: Mapping[str, Any]) -> None:
    """Write the learner's tensors in fp32; metadata values are JSON strings.

    The file appears under its name only when it is complete.
    """
    tensors = {
        key: value.detach().float().cpu().contiguous()
        for key, value in learner.state_dict().items()
    }
    strings = {key: json.dumps(value) for key, value in metadata.items()}
    write_atomic(path, lambda temporary: save_file(tensors, temporary, metadata=strings))
