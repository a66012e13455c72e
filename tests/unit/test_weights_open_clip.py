"""Weights by open_clip's names: a small architecture of theirs, served from this machine."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip import pretrained

import clip
from clip.config import ARCHITECTURES
from clip.errors import WeightsError
from clip.weights import load_clip
from tests.helpers.server import serve

ARCHITECTURE = "ViT-tiny-32"
MODEL: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 16, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 2},
}


@pytest.fixture(params=[False, True], ids=["gelu", "quick_gelu"])
def their_model(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """Add an architecture and its weights to open_clip's tables, on a server of this machine."""
    torch.manual_seed(0)
    model = open_clip.CLIP(**MODEL, quick_gelu=request.param).eval()
    torch.save({"epoch": 1, "state_dict": model.state_dict()}, tmp_path / "tiny.pt")
    config = MODEL | ({"quick_gelu": True} if request.param else {})
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, ARCHITECTURE, config)
    with serve() as server:
        server.files["/tiny.pt"] = (tmp_path / "tiny.pt").read_bytes()
        more = {"quick_gelu": request.param, "mean": (0.5,) * 3, "std": (0.25,) * 3}
        weights = {tag: {"url": f"{server.url}/{tag}.pt", **more} for tag in ("tiny", "gone")}
        monkeypatch.setitem(pretrained._PRETRAINED, ARCHITECTURE, weights)
        yield model


def test_heads_activation_and_normalisation_come_from_their_tables(
    their_model: Any, tmp_path: Path
) -> None:
    loaded = load_clip(f"open_clip:{ARCHITECTURE}/tiny", download_root=tmp_path / "weights")
    tokens = clip.tokenize(["a photo of a dog", "a cat"])
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for ours, theirs in (
            (loaded.model.encode_text(tokens), their_model.encode_text(tokens)),
            (loaded.model.encode_image(images), their_model.encode_image(images)),
        ):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert loaded.model.config.image_heads == 4
    assert loaded.pixel_mean == (0.5, 0.5, 0.5)
    assert loaded.source == str(tmp_path / "weights" / "tiny.pt")
    with pytest.raises(WeightsError, match="could not be downloaded by open_clip"):
        load_clip(f"open_clip:{ARCHITECTURE}/gone", download_root=tmp_path)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("ViT-B-33/laion2b_s34b_b79k", "ViT-B-32"),
        ("ViT-B-32/laion2b_s34b_b79", "laion2b_s34b_b79k"),
        ("ViT-B/32/laion2b_s34b_b79", "laion2b_s34b_b79k"),
        ("ViT-B-32", "laion2b_s34b_b79k"),
        ("ViT-B/32", "has no tag"),
        ("ViT-B-3", "<architecture>/<tag>"),
        ("ViT-B-16-SigLIP/webli", "not a plain CLIP"),
        ("convnext_base/laion400m_s13b_b51k", "timm_model_name"),
    ],
)
def test_wrong_names_are_refused(name: str, part: str) -> None:
    with pytest.raises(WeightsError) as raised:
        load_clip(f"open_clip:{name}")
    assert part in str(raised.value) and "\n" not in str(raised.value)


def test_without_open_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(WeightsError, match="pip install open_clip_torch"):
        load_clip("open_clip:ViT-B-32/openai")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_our_table_of_the_published_models_equals_theirs(name: str) -> None:
    config = ARCHITECTURES[name]
    theirs = open_clip.get_model_config(name.replace("/", "-").replace("@336px", "-336"))
    vision, text = theirs["vision_cfg"], theirs["text_cfg"]
    layers = tuple(vision["layers"]) if isinstance(vision["layers"], list) else vision["layers"]
    assert (
        *(theirs["embed_dim"], layers, vision["width"], vision["image_size"]),
        *(vision["patch_size"], text["width"], text["heads"], text["layers"]),
        text["context_length"],
    ) == (
        *(config.embed_dim, config.vision_layers, config.vision_width, config.image_resolution),
        *(config.vision_patch_size, config.transformer_width, config.text_heads),
        *(config.transformer_layers, config.context_length),
    )
