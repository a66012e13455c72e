"""Weights by path and by name: every kind of file gives one model, every bad one a sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import clip
from clip.clip import available_models
from clip.errors import WeightsError
from clip.weights import MINI_PATH, load_clip
from tests.golden import FOLDER, arrays, assert_same_clip, tiny_clip


def _with_settings(state_dict: dict[str, Any]) -> dict[str, Any]:
    settings = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
    return state_dict | {key: torch.tensor(value) for key, value in settings.items()}


def _custom_text(state_dict: dict[str, Any]) -> dict[str, Any]:
    """open_clip's names of a model with its own text encoder, whose projection is a layer."""
    image = {key: value for key, value in state_dict.items() if key.startswith("visual.")}
    rest = {key: value for key, value in state_dict.items() if key not in image}
    scale, projection = rest.pop("logit_scale"), rest.pop("text_projection")
    text = {f"text.{key}": value for key, value in rest.items()}
    text["text.text_projection.weight"] = projection.t().contiguous()
    text["text.attn_mask"] = torch.zeros(77, 77)
    return image | text | {"logit_scale": scale.reshape(1)}


FILES = {
    "state_dict.pt": lambda sd: sd,
    "without_suffix": lambda sd: sd,
    "published_settings.pt": _with_settings,
    "custom_text.pt": lambda sd: {"state_dict": _custom_text(sd)},
    "state_dict.safetensors": lambda sd: sd,
    "custom_text.safetensors": _custom_text,
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("arch", ["vit", "rn"])
def test_every_kind_of_file_gives_the_same_model(name: str, arch: str, tmp_path: Path) -> None:
    model, path = tiny_clip(arch), tmp_path / name
    content = FILES[name](dict(model.state_dict()))
    (save_file if path.suffix == ".safetensors" else torch.save)(content, path)
    loaded = load_clip(str(path), transformer_heads=2)
    assert_same_clip(loaded.model, model, arch)
    assert loaded.source == str(path)
    assert len(loaded.sha256 or "") == 64


def test_metadata_describes_the_model(tmp_path: Path) -> None:
    path, model = tmp_path / "described.safetensors", tiny_clip("vit")
    config = {**vars(model.config), "activation": "gelu"}
    metadata = {"config": json.dumps(config), "pixel_mean": "[0.1, 0.2, 0.3]"}
    save_file(model.state_dict(), path, metadata=metadata)
    loaded = load_clip(str(path))
    assert (loaded.model.config.text_heads, loaded.model.config.activation) == (2, "gelu")
    assert loaded.pixel_mean == (0.1, 0.2, 0.3)
    assert loaded.pixel_std == pytest.approx((0.2686, 0.2613, 0.2758), abs=1e-4)
    assert load_clip(str(path), activation="quick_gelu").model.config.activation == "quick_gelu"


def test_packed_embeddings(tmp_path: Path) -> None:
    state_dict = tiny_clip("vit").state_dict()  # read from a packed file
    weight = state_dict.pop("token_embedding.weight")
    used = arrays("clip_base_vit.npz")["tokens"].unique()
    assert weight.shape == (49408, 32)
    assert weight[used[used > 0]].abs().sum(dim=1).min() > 0
    assert int((weight.abs().sum(dim=1) > 0).sum()) < 1000

    state_dict["token_embedding.weight.rows"] = weight[:3].clone()
    state_dict["token_embedding.weight.index"] = torch.tensor([0, 1, 49408])
    save_file(state_dict, tmp_path / "packed.safetensors")
    with pytest.raises(WeightsError, match="packed"):
        load_clip(str(tmp_path / "packed.safetensors"), transformer_heads=2)


def test_the_bundled_model() -> None:
    loaded = load_clip("mini")
    side = loaded.model.config.image_resolution
    logits, _ = loaded.model(torch.zeros(1, 3, side, side), clip.tokenize(["an apple", "a dog"]))
    assert logits.isfinite().all()
    assert loaded.source == str(MINI_PATH)


def test_random_weights() -> None:
    loaded = load_clip("random:vit_b32", dtype=torch.bfloat16, context_length=16)
    assert loaded.model.dtype == torch.bfloat16
    assert loaded.model.positional_embedding.shape == (16, 512)
    assert (loaded.sha256, loaded.source) == (None, "random:vit_b32")


def test_load_returns_model_and_preprocessing() -> None:
    with pytest.raises(WeightsError, match="transformer_heads"):
        clip.load(str(FOLDER / "tiny_vit.safetensors"))
    model, preprocess = clip.load("random:ViT-B/32")
    assert not model.training
    tensor = preprocess(Image.new("L", (300, 200), 255))
    assert tensor.shape == (3, 224, 224)
    assert tensor[0, 0, 0] == pytest.approx((1 - 0.48145466) / 0.26862954)
    with pytest.raises(WeightsError, match="jit"):
        clip.load("random:ViT-B/32", jit=True)
    assert len(available_models()) == 9 and "ViT-B/16" in available_models()


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("RN51", "RN50"),
        ("ViT-B/15", "ViT-B/16"),
        ("mimi", "mini"),
        ("random:RN500", "RN50"),
        ("/nowhere/model.pt", "/nowhere/model.pt does not exist"),
        ("./model", "does not exist"),
        ("model.safetensors", "does not exist"),
    ],
)
def test_unknown_names(name: str, part: str) -> None:
    with pytest.raises(WeightsError) as raised:
        load_clip(name)
    assert part in str(raised.value) and "\n" not in str(raised.value)


BAD_FILES: dict[str, Any] = {
    "empty.pt": b"",
    "text.pt": b"hello, I am no model",
    "text.safetensors": b"hello, I am no model either",
    "other.pt": {"layer.weight": torch.zeros(2, 2)},
    "number.pt": 7,
    "mixed.pt": {"visual.proj": torch.zeros(2), "name": "clip"},
    "object.pt": Path("a pickled object"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_other_files(name: str, tmp_path: Path) -> None:
    path, content = tmp_path / name, BAD_FILES[name]
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(WeightsError) as raised:
        load_clip(str(path))
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value) and "weights_only" not in str(raised.value)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="contains none of"):
        load_clip(str(tmp_path))
