"""`prompt.safetensors`: learned prompts in a file that opens without running code.

The metadata contains the version of this format and a SHA-256 of the tensors and all other
metadata; older files have neither.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from safeio.checksums import DamagedFile
from safeio.files import write_atomic
from safeio.untrusted import one_line, parse_json

PROMPT_FILE = "prompt.safetensors"
VERSION = 2
_CHECKSUM, _VERSION = "checksum", "version"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors in fp32 and metadata as JSON strings, atomically."""
    copies = {key: value.detach().float().cpu().contiguous() for key, value in tensors.items()}
    strings = {key: json.dumps(value) for key, value in {**metadata, _VERSION: VERSION}.items()}
    strings[_CHECKSUM] = json.dumps(_digest(copies, strings))
    content = save(copies, metadata=strings)  # `save_file` hides the system's reason for a failure
    write_atomic(path, lambda temporary: temporary.write_bytes(content))


def _digest(tensors: Mapping[str, Tensor], strings: Mapping[str, str]) -> str:
    """Return the SHA-256 of the tensors, their names and shapes, and the other metadata."""
    described = {key: text for key, text in strings.items() if key != _CHECKSUM}
    shapes = {name: [str(tensor.dtype), *tensor.shape] for name, tensor in tensors.items()}
    digest = hashlib.sha256(json.dumps([described, shapes], sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the metadata that `save_tensors` wrote.

    Raises:
        DamagedFile: the file is damaged or has another format.
    """
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            strings = file.metadata() or {}
        metadata = {key: parse_json(text) for key, text in strings.items()}
        version, checksum = metadata.pop(_VERSION, None), metadata.pop(_CHECKSUM, None)
        if (version or checksum) and checksum != _digest(tensors, strings):
            raise ValueError("it does not match its checksum")
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise DamagedFile(f"{path} is damaged: {one_line(error)}") from error
    return tensors, metadata
