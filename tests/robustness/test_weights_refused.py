"""Weights that are not whole, not a CLIP's, damaged or NaN: each is refused by what it is."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clip.clip import build_model
from clip.errors import WeightsError
from clip.model import CLIP
from clip.weights import load_clip
from tests.fuzz.seeds import tiny_clip
from tests.unit.test_weights_checkpoints import HEADS, refused, state_of, tiny_resnet

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
def test_a_missing_key_is_that_of_the_architecture(case: str, prefix: str, tmp_path: Path) -> None:
    make, key = MISSING[case]
    state = state_of(make())
    del state[key]
    refused({f"{prefix}{name}": state[name] for name in state}, tmp_path, f"'{key}' is missing")


@pytest.mark.parametrize(("keep", "tower"), [("visual.", "image"), ("t", "text")])
def test_one_tower_alone(keep: str, tower: str, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("key", ["visual.proj", "ln_final.bias", "logit_scale"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_nan_is_refused_by_its_key(value: float, key: str, suffix: str, tmp_path: Path) -> None:
    state, path = state_of(tiny_clip()), tmp_path / f"weights{suffix}"
    state[key].view(-1)[-1] = value
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    with pytest.raises(WeightsError, match=f"'{key}' holds values that are NaN or infinite"):
        load_clip(str(path), **HEADS)
    with pytest.raises(WeightsError, match=f"'{key}'"):
        build_model(state, **HEADS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_factor_in_place_of_its_logarithm(dtype: torch.dtype, tmp_path: Path) -> None:
    state = state_of(tiny_clip())
    state["logit_scale"] = torch.tensor(100.0, dtype=dtype)
    refused(state, tmp_path, "'logit_scale' is 100, whose exponential is infinite")


def test_heads_that_do_not_fit_are_named_as_in_a_configuration() -> None:
    for argument, key in (("vision_heads", "VISION_HEADS"), ("transformer_heads", "TEXT_HEADS")):
        with pytest.raises(WeightsError, match=rf"another {argument} \(MODEL\.CLIP\.{key}\)"):
            build_model(state_of(tiny_clip()), **{**HEADS, argument: 7})


def test_nan_in_a_resnets_statistics(tmp_path: Path) -> None:
    state = state_of(tiny_resnet())
    state["visual.bn1.running_var"][0] = float("nan")
    refused(state, tmp_path, r"'visual\.bn1\.running_var' holds values that are NaN")


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    state = state_of(tiny_clip())
    state["visual.proj"] = state["visual.proj"].to(torch.int8)
    refused(state, tmp_path, r"'visual\.proj' holds torch\.int8")


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
    with pytest.raises(WeightsError, match=r"is damaged: the checksum of .* is wrong"):
        load_clip(str(path), **HEADS)
