"""Tiny CLIPs, the files they are saved in, and how loading refuses a file."""

from pathlib import Path
from typing import Any

import pytest
import torch

from clip.config import CLIPConfig
from clip.errors import WeightsError
from clip.model import CLIP
from clip.weights import load_clip

HEADS: dict[str, Any] = {"transformer_heads": 2, "vision_heads": 2}
State = dict[str, Any]


def tiny_resnet() -> CLIP:
    torch.manual_seed(0)
    small: dict[str, Any] = {"context_length": 8, "vocab_size": 16, "transformer_width": 8}
    small |= {"transformer_layers": 1, **HEADS}
    return CLIP(CLIPConfig(8, 32, (1, 1, 1, 1), 4, None, **small)).eval()


def state_of(model: CLIP) -> State:
    return {key: value.clone() for key, value in model.state_dict().items()}


def load(content: Any, folder: Path, name: str = "weights.pt") -> Any:
    """Save and load."""
    torch.save(content, folder / name)
    return load_clip(str(folder / name), **HEADS)


def refused_path(path: Path, part: str, **settings: Any) -> None:
    """Expect one sentence that names the file (or folder)."""
    with pytest.raises(WeightsError, match=part) as raised:
        load_clip(str(path), **settings)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def refused(content: Any, folder: Path, part: str) -> None:
    torch.save(content, folder / "weights.pt")
    refused_path(folder / "weights.pt", part, **HEADS)


class Call:
    """Pickles into a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call
