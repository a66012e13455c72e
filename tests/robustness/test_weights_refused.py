"""Weights that are incomplete, of another model, damaged or not finite are refused by name."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from clip.clip import build_model
from clip.errors import WeightsError
from clip.model import CLIP
from tests.fuzz.seeds import tiny_clip
from tests.helpers.weights_files import HEADS, refused, refused_path, state_of, tiny_resnet

MISSING: dict[str, tuple[Callable[[], CLIP], str]] = {
    "proj": (tiny_clip, "visual.proj"),
    "patches": (tiny_clip, "visual.conv1.weight"),
    "positions": (tiny_clip, "visual.positional_embedding"),
    "class": (tiny_clip, "visual.class_embedding"),
    "text": (tiny_clip, "text_projection"),
    "temperature": (tiny_clip, "logit_scale"),
    "layer": (tiny_resnet, "visual.layer1.0.conv1.weight"),
    "pool": (tiny_resnet, "visual.attnpool.positional_embedding"),
    "stem": (tiny_resnet, "visual.conv1.weight"),
}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("case", MISSING)
def test_a_missing_key_is_named_by_the_architecture(case: str, prefix: str, tmp_path: Path) -> None:
    make, key = MISSING[case]
    state = state_of(make())
    del state[key]
    refused({f"{prefix}{name}": state[name] for name in state}, tmp_path, f"'{key}' is missing")


@pytest.mark.parametrize(("keep", "tower"), [("visual.", "image"), ("t", "text")])
def test_one_encoder_alone_is_refused(keep: str, tower: str, tmp_path: Path) -> None:
    state = {key: value for key, value in state_of(tiny_clip()).items() if key.startswith(keep)}
    refused(state, tmp_path, f"only the {tower} encoder")


OTHERS = {
    "visual.trunk.patch_embed.weight": "timm's image encoder",
    "text.transformer.embeddings.word_embeddings.weight": "another text encoder",
    "text_decoder.resblocks.0.weight": "CoCa",
    "visual.attn_pool.query": "CoCa",
    "visual.transformer.resblocks.0.attn.lora_A": "LoRA",
    "prompt_learner.ctx": "--model-dir",
    "ctx": "--model-dir",
}


@pytest.mark.parametrize("key", OTHERS)
def test_other_models_are_named(key: str, tmp_path: Path) -> None:
    refused({**state_of(tiny_clip()), key: torch.ones(1)}, tmp_path, OTHERS[key])


NO_CLIP: dict[str, Any] = {
    "empty.pt": b"",
    "text.pt": b"hello, I am no model",
    "text.safetensors": b"hello, I am no model either",
    "other.pt": {"layer.weight": torch.zeros(2, 2)},
    "number.pt": 7,
    "mixed.pt": {"visual.proj": torch.zeros(2), "name": "clip"},
    "object.pt": Path("a pickled object"),
}


@pytest.mark.parametrize("name", NO_CLIP)
def test_files_that_are_not_clip_are_refused(name: str, tmp_path: Path) -> None:
    path, content = tmp_path / name, NO_CLIP[name]
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    refused_path(path, "^((?!weights_only).)*$")
    (tmp_path / "folder").mkdir()
    refused_path(tmp_path / "folder", "contains none of")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("key", ["visual.proj", "ln_final.bias", "logit_scale"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_nan_is_refused_by_its_key(value: float, key: str, suffix: str, tmp_path: Path) -> None:
    state, path = state_of(tiny_clip()), tmp_path / f"weights{suffix}"
    state[key].view(-1)[-1] = value
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    refused_path(path, f"'{key}' holds values that are NaN or infinite", **HEADS)
    with pytest.raises(WeightsError, match=f"'{key}'"):
        build_model(state, **HEADS)


def test_other_impossible_values_are_refused(tmp_path: Path) -> None:
    state = state_of(tiny_resnet())
    state["visual.bn1.running_var"][0] = float("nan")
    refused(state, tmp_path, r"'visual\.bn1\.running_var' holds values that are NaN")
    state = state_of(tiny_clip())
    integers = {**state, "visual.proj": state["visual.proj"].to(torch.int8)}
    refused(integers, tmp_path, r"'visual\.proj' holds torch\.int8")
    for dtype in (torch.float32, torch.float16):  # the factor instead of its logarithm
        factor = {**state, "logit_scale": torch.tensor(100.0, dtype=dtype)}
        refused(factor, tmp_path, "'logit_scale' is 100, whose exponential is infinite")
    for argument, key in (("vision_heads", "VISION_HEADS"), ("transformer_heads", "TEXT_HEADS")):
        with pytest.raises(WeightsError, match=rf"another {argument} \(MODEL\.CLIP\.{key}\)"):
            build_model(state, **{**HEADS, argument: 7})


def test_a_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(state_of(tiny_clip()), path)
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if "/data/" in member.filename]
        largest = max(members, key=lambda member: member.file_size)
    data = bytearray(path.read_bytes())
    at = largest.header_offset
    names = sum(int.from_bytes(data[at + field : at + field + 2], "little") for field in (26, 28))
    data[at + 30 + names + largest.file_size // 2] ^= 1
    path.write_bytes(data)
    refused_path(path, r"is damaged: the checksum of .* is wrong", **HEADS)
