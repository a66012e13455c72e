"""CLIP as Hugging Face's transformers saves it: folders, files, bad descriptions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPVisionConfig

from clip.errors import WeightsError
from clip.hugging_face import TEXT_DEFAULTS, VISION_DEFAULTS
from clip.weights import load_clip
from tests.helpers.tiny_transformers import (
    MEAN,
    STD,
    assert_same_features,
    config_of,
    features,
    tensors_of,
    their_clip,
    write_folder,
    write_json,
)
from tests.helpers.weights_files import refused_path


@pytest.fixture(scope="module")
def theirs() -> Any:
    return their_clip()


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_a_folder_gives_their_features(activation: str, weights: str, tmp_path: Path) -> None:
    model = their_clip(activation)
    loaded = load_clip(str(write_folder(tmp_path, model, weights)))
    assert_same_features(loaded.model, model)
    config = loaded.model.config
    assert (config.image_heads, config.text_heads, config.activation) == (2, 4, activation)
    assert (list(loaded.pixel_mean), list(loaded.pixel_std)) == (MEAN, STD)
    assert set(loaded.origins.values()) == {"read"}
    assert loaded.facts["described_by"] == "config.json"
    assert loaded.facts["layout"] == "Hugging Face"
    assert load_clip(str(tmp_path / weights)).sha256 == loaded.sha256


def test_without_config_the_assumptions_are_listed(theirs: Any, tmp_path: Path) -> None:
    (write_folder(tmp_path, theirs) / "config.json").unlink()
    loaded = load_clip(str(tmp_path / "model.safetensors"))
    assumed = ["activation", "vision_heads", "text_heads", "pixel_mean", "pixel_std"]
    assert loaded.assumed == assumed
    assert loaded.facts["activation"] == {"value": "quick_gelu", "origin": "assumed"}
    assert "text_heads 1 (assumed)" in loaded.summary()


def test_heads_of_another_width_change_the_features(theirs: Any, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, theirs)
    guessed = load_clip(str(folder), vision_heads=10, activation="quick_gelu")
    right, wrong = features(theirs)[0], features(guessed.model)[0]
    assert (right * wrong).sum(dim=-1).max() < 0.99
    assert guessed.origins["vision_heads"] == guessed.origins["activation"] == "set"
    assert guessed.origins["text_heads"] == "read"


def test_the_weights_in_several_files(theirs: Any, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, theirs)
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2]}
    parts["model-00002-of-00002.safetensors"] = names[1::2]
    for file, keys in parts.items():
        save_file({key: tensors[key] for key in keys}, folder / file)
    (folder / "model.safetensors").unlink()
    places = {key: file for file, keys in parts.items() for key in keys}
    index = folder / "model.safetensors.index.json"
    write_json(index, {"metadata": {}, "weight_map": places})
    first = load_clip(str(folder))
    assert_same_features(first.model, theirs)
    assert load_clip(str(index)).sha256 == first.sha256

    for more, part in (
        ("model-00001-of-00002.safetensors", "'more', which is missing in 'model-00001-of-00002"),
        ("../secret.safetensors", r"secret\.safetensors', which is outside its folder"),
        ("model-3.safetensors", r"'model-3\.safetensors', which is not"),
    ):
        write_json(index, {"weight_map": {**places, "more": more}})
        refused_path(folder, part)


def test_older_files_and_descriptions(theirs: Any, tmp_path: Path) -> None:
    """Files with position_ids; descriptions of 2022, whose `text_config_dict` takes precedence."""
    folder = write_folder(tmp_path, theirs)
    buffers = {
        "text_model.embeddings.position_ids": torch.arange(77)[None],
        "vision_model.embeddings.position_ids": torch.arange(17)[None],
    }
    save_file({**tensors_of(theirs), **buffers}, folder / "model.safetensors")
    content = config_of(theirs)
    for tower in ("text_config", "vision_config"):
        content[f"{tower}_dict"] = content[tower]
        content[tower] = {"num_attention_heads": 8}
    write_json(folder / "config.json", content)
    assert_same_features(load_clip(str(folder)).model, theirs)


def test_defaults_are_those_of_transformers() -> None:
    for ours, their in ((TEXT_DEFAULTS, CLIPTextConfig()), (VISION_DEFAULTS, CLIPVisionConfig())):
        assert ours == {key: getattr(their, key) for key in ours}


@pytest.mark.parametrize(
    "images", [{"do_normalize": False}, {"image_processor": {"image_mean": 1}}]
)
def test_other_preparations_of_images(images: dict[str, Any], theirs: Any, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, theirs)
    (folder / "preprocessor_config.json").unlink()
    write_json(folder / "processor_config.json", images)
    loaded = load_clip(str(folder))
    if "do_normalize" in images:
        assert (loaded.pixel_mean, loaded.pixel_std) == ((0.0,) * 3, (1.0,) * 3)
    else:
        assert loaded.pixel_mean == (1.0,) * 3
        assert loaded.assumed == ["pixel_std"]


def _tower(name: str, **values: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda content: {**content, name: {**content[name], **values}}


CONFIGS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "eps": (_tower("vision_config", layer_norm_eps=1e-6), "layer_norm_eps is 1e-06"),
    "activation": (_tower("text_config", hidden_act="gelu_new"), "hidden_act is 'gelu_new'"),
    "two activations": (_tower("vision_config", hidden_act="quick_gelu"), "text encoder is 'gelu'"),
    "image size": (_tower("vision_config", image_size=40), "image_resolution is 40"),
    "patch size": (_tower("vision_config", patch_size=16), "vision_patch_size is 16"),
    "layers": (_tower("text_config", num_hidden_layers=3), "transformer_layers is 3"),
    "width": (_tower("vision_config", hidden_size=80, intermediate_size=320), "is 80, but .* 160"),
    "mlp": (_tower("text_config", intermediate_size=300), "intermediate_size is 300"),
    "heads": (_tower("text_config", num_attention_heads=7), "7 heads cannot share"),
    "no heads": (_tower("text_config", num_attention_heads=0), "positive whole number"),
    "heads in words": (_tower("text_config", num_attention_heads="8"), "positive whole number"),
    "projection": (lambda c: {**c, "projection_dim": 32}, "embed_dim is 32"),
    "siglip": (lambda c: {**c, "model_type": "siglip"}, "'siglip'"),
    "altclip": (lambda c: {**c, "model_type": "altclip"}, "'altclip'"),
    "chinese_clip": (lambda c: {**c, "model_type": "chinese_clip"}, "'chinese_clip'"),
    "image tower": (lambda c: {"model_type": "clip_vision_model"}, "only the image encoder"),
    "text tower": (lambda c: {"model_type": "clip_text_model"}, "only the text encoder"),
    "a list": (lambda c: [c], "not a JSON object"),
    "a tower that is a list": (lambda c: {**c, "text_config": [1]}, "not a group of settings"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_descriptions_that_do_not_fit(name: str, theirs: Any, tmp_path: Path) -> None:
    change, part = CONFIGS[name]
    folder = write_folder(tmp_path, theirs)
    write_json(folder / "config.json", change(config_of(theirs)))
    refused_path(folder, part)


def test_bad_means_are_refused(theirs: Any, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, theirs)
    for mean in ([0.5, 0.5], ["0.5"] * 3, [float("nan")] * 3, "grey", [1e400] * 3):
        write_json(folder / "preprocessor_config.json", {"image_mean": mean})
        with pytest.raises(WeightsError, match="three numbers are needed"):
            load_clip(str(folder))


def _without(*parts: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda tensors: {k: v for k, v in tensors.items() if not any(p in k for p in parts)}


def _with_key(key: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda tensors: {**tensors, key: torch.zeros(1)}


TENSORS = {
    "image tower": (_without("text_", "logit"), "only the image encoder"),
    "text tower": (_without("vis", "logit"), "only the text encoder"),
    "key": (_without("text_model.final_layer_norm.bias"), r"final_layer_norm.bias' is missing"),
    "image key": (_without("pre_layrnorm.weight"), "'vision_model.pre_layrnorm.weight' is missing"),
    "value": (_without("text_model.encoder.layers.1.self_attn.v_proj.bias"), "v_proj.bias"),
    "extra": (_with_key("vision_model.more"), "'vision_model.more' is unknown"),
    "lora": (_with_key("text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight"), "LoRA"),
    "siglip": (_with_key("vision_model.head.probe"), "SigLIP"),
    "altclip": (_with_key("text_model.roberta.embeddings.weight"), "AltCLIP"),
    "chinese": (_with_key("text_model.embeddings.word_embeddings.weight"), "Chinese-CLIP"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_of_other_models(name: str, theirs: Any, tmp_path: Path) -> None:
    change, part = TENSORS[name]
    save_file(change(tensors_of(theirs)), tmp_path / "model.safetensors")
    refused_path(tmp_path / "model.safetensors", part)


def test_other_frameworks_and_adapters_are_named(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"model_type": "clip"})
    for name in ("tf_model.h5", "flax_model.msgpack"):
        (tmp_path / name).write_bytes(b"x")
        refused_path(tmp_path, f"contains {name}, .* load it with transformers 4")
        (tmp_path / name).unlink()
    write_json(tmp_path / "adapter_config.json", {"peft_type": "LORA"})
    adapter = tmp_path / "adapter_model.safetensors"
    save_file({"a.lora_A.weight": torch.zeros(1)}, adapter)
    refused_path(tmp_path, "contains an adapter")
    refused_path(adapter, "contains adapters")
