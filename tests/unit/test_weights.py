"""Weights by path and by name: every kind of file gives the same model."""

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
from clip.weights import BUNDLED, known_config, load_clip
from tests.golden import FOLDER, arrays, assert_same_clip, tiny_clip


def _custom_text(state_dict: dict[str, Any]) -> dict[str, Any]:
    """open_clip's names of a model with its own text encoder, whose projection is a layer."""
    image = {key: value for key, value in state_dict.items() if key.startswith("visual.")}
    rest = {key: value for key, value in state_dict.items() if key not in image}
    scale, projection = rest.pop("logit_scale"), rest.pop("text_projection")
    text = {f"text.{key}": value for key, value in rest.items()}
    text["text.text_projection.weight"] = projection.t().contiguous()
    text["text.attn_mask"] = torch.zeros(77, 77)
    return image | text | {"logit_scale": scale.reshape(1)}


SETTINGS = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
FILES = {
    "no_suffix": lambda sd: sd,
    "published_settings.pt": lambda sd: sd | {k: torch.tensor(v) for k, v in SETTINGS.items()},
    "parallel.pt": lambda sd: {"epoch": 3, "state_dict": {f"module.{key}": sd[key] for key in sd}},
    "custom_text.pt": lambda sd: {"state_dict": _custom_text(sd)},
    "plain.safetensors": lambda sd: sd,
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
    assert loaded.sha256 is not None and len(loaded.sha256) == 64


def test_metadata_describes_the_model(tmp_path: Path) -> None:
    path = tmp_path / "described.safetensors"
    config = {
        **{"embed_dim": 32, "image_resolution": 32, "vision_layers": 2, "vision_width": 64},
        **{"vision_patch_size": 8, "transformer_width": 32, "transformer_heads": 2},
        **{"transformer_layers": 2, "activation": "gelu"},
    }
    metadata = {"config": json.dumps(config), "pixel_mean": "[0.1, 0.2, 0.3]"}
    save_file(tiny_clip("vit").state_dict(), path, metadata=metadata)
    loaded = load_clip(str(path))
    assert loaded.model.config.text_heads == 2
    assert loaded.model.config.activation == "gelu"
    assert loaded.pixel_mean == (0.1, 0.2, 0.3)
    assert loaded.pixel_std == pytest.approx((0.2686, 0.2613, 0.2758), abs=1e-4)
    assert load_clip(str(path), activation="quick_gelu").model.config.activation == "quick_gelu"
    wrong = {"config": json.dumps({**config, "image_resolution": 64})}
    save_file(tiny_clip("vit").state_dict(), path, metadata=wrong)
    with pytest.raises(WeightsError, match="image_resolution is 64"):
        load_clip(str(path))


def test_a_packed_embedding_is_spread(tmp_path: Path) -> None:
    weight = tiny_clip("vit").token_embedding.weight
    used = arrays("clip_base_vit.npz")["tokens"].unique()
    assert weight.shape == (49408, 32)
    assert weight[used[used > 0]].abs().sum(dim=1).min() > 0
    assert int((weight.abs().sum(dim=1) > 0).sum()) < 1000
    state_dict = tiny_clip("vit").state_dict()
    state_dict["token_embedding.weight.rows"] = state_dict.pop("token_embedding.weight")[:3].clone()
    state_dict["token_embedding.weight.index"] = torch.tensor([0, 1, 49408])
    save_file(state_dict, tmp_path / "packed.safetensors")
    with pytest.raises(WeightsError, match="packed"):
        load_clip(str(tmp_path / "packed.safetensors"), transformer_heads=2)


def test_models_by_name() -> None:
    loaded = load_clip("mini")
    size = loaded.model.config.image_resolution
    logits, _ = loaded.model(torch.zeros(1, 3, size, size), clip.tokenize(["an apple", "a dog"]))
    assert logits.isfinite().all()
    assert loaded.source == str(BUNDLED["mini"])
    loaded = load_clip("random:vit_b32", dtype=torch.bfloat16, context_length=16)
    assert loaded.model.dtype == torch.bfloat16
    assert loaded.model.positional_embedding.shape == (16, 512)
    assert (loaded.sha256, loaded.source) == (None, "random:vit_b32")
    assert len(available_models()) == 9 and "ViT-B/16" in available_models()


def test_load_gives_model_and_preprocess() -> None:
    with pytest.raises(WeightsError, match="transformer_heads"):
        clip.load(str(FOLDER / "tiny_vit.safetensors"))
    model, preprocess = clip.load("random:ViT-B/32")
    assert not model.training
    tensor = preprocess(Image.new("L", (300, 200), 255))
    assert tensor.shape == (3, 224, 224)
    assert tensor[0, 0, 0] == pytest.approx((1 - 0.48145466) / 0.26862954)
    with pytest.raises(WeightsError, match="jit"):
        clip.load("random:ViT-B/32", jit=True)


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
def test_unknown_names_are_refused(name: str, part: str) -> None:
    with pytest.raises(WeightsError) as raised:
        load_clip(name)
    assert part in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("name", [*BUNDLED, "random:ViT-B/32", "RN50", "other.pt"])
def test_architectures_known_before_loading(name: str) -> None:
    """So methods refuse encoders that they cannot prompt before anything is loaded."""
    config = known_config(name)
    assert (config is None) == (name == "other.pt")
    if name in BUNDLED:
        assert config == load_clip(name).model.config
    elif config is not None:
        assert config.is_resnet == (name == "RN50")
