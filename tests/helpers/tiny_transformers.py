"""A tiny CLIP of Hugging Face's transformers with random weights, and its files."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

TOLERANCE = 2e-5
MEAN, STD = [0.5, 0.4, 0.3], [0.3, 0.2, 0.25]
VOCABULARY = 100  # its last token ends a text
TEXT = {
    **{"vocab_size": VOCABULARY, "eos_token_id": VOCABULARY - 1, "hidden_size": 64},
    **{"intermediate_size": 256, "num_attention_heads": 4, "num_hidden_layers": 2},
    **{"max_position_embeddings": 77, "projection_dim": 24},
}
VISION = {
    **{"hidden_size": 160, "intermediate_size": 640, "num_hidden_layers": 2, "image_size": 32},
    **{"num_attention_heads": 2, "patch_size": 8, "projection_dim": 24},  # 80 wide, as in ViT-H/14
}


def their_clip(activation: str = "gelu") -> Any:
    """The model of transformers itself, in evaluation mode."""
    act = {"hidden_act": activation}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=TEXT | act, vision_config=VISION | act, projection_dim=24)
    model = CLIPModel(config).eval()
    with torch.no_grad():  # large enough for the activation and the heads to matter
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    return model


def tensors_of(model: Any) -> dict[str, torch.Tensor]:
    """Its state dict, whose tensors share no memory."""
    return {key: value.contiguous().clone() for key, value in model.state_dict().items()}


def config_of(model: Any) -> dict[str, Any]:
    """The content of its config.json."""
    return json.loads(model.config.to_json_string(use_diff=False))


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def write_folder(folder: Path, model: Any, weights: str = "model.safetensors") -> Path:
    """A folder as transformers writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config_of(model))
    write_json(folder / "preprocessor_config.json", {"image_mean": MEAN, "image_std": STD})
    if weights.endswith(".safetensors"):
        save_file(tensors_of(model), folder / weights, metadata={"format": "pt"})
    else:
        torch.save(tensors_of(model), folder / weights)
    return folder


def write_cache(root: Path, model: Any, name: str = "somebody/tiny-clip") -> Path:
    """A model in huggingface_hub's cache; returns its folder."""
    entry = root / f"models--{name.replace('/', '--')}"
    snapshot = write_folder(entry / "snapshots" / ("0" * 40), model)
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text("0" * 40)
    return snapshot


def features(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Image and text features of ours or theirs, normalised."""
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens = torch.zeros(3, 77, dtype=torch.long)
    for row, length in enumerate((5, 9, 30)):
        tokens[row, :length] = torch.arange(1, length + 1)
        tokens[row, length] = VOCABULARY - 1
    with torch.no_grad():
        if hasattr(model, "encode_image"):
            found = model.encode_image(images), model.encode_text(tokens)
        else:
            vision = model.vision_model(images).pooler_output
            text = model.text_model(tokens).pooler_output
            found = model.visual_projection(vision), model.text_projection(text)
    image, text = (torch.nn.functional.normalize(value, dim=-1) for value in found)
    return image, text


def assert_same_features(ours: Any, theirs: Any) -> None:
    for own, other in zip(features(ours), features(theirs), strict=True):
        torch.testing.assert_close(own, other, atol=TOLERANCE, rtol=0)
