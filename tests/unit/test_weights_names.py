"""Weights by a name of Hugging Face's hub or open_clip: downloaded once, cached, unavailable."""

import json
import os
import subprocess
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
from tests.helpers.runs import ROOT
from tests.helpers.server import serve
from tests.helpers.tiny_transformers import (
    assert_same_features,
    their_clip,
    write_cache,
    write_folder,
)

# Hugging Face's hub

NAME = "somebody/tiny-clip"


@pytest.fixture(scope="module")
def theirs() -> Any:
    return their_clip()


@pytest.mark.parametrize("name", [NAME, f"hf:{NAME}"])
def test_a_cached_name_is_loaded_after_a_path(
    name: str, theirs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = write_cache(tmp_path / "cache", theirs)
    loaded = load_clip(name, download_root=tmp_path / "cache")
    assert_same_features(loaded.model, theirs)
    assert loaded.source == str(snapshot / "model.safetensors")
    assert set(loaded.origins.values()) == {"read"}
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / NAME, their_clip("quick_gelu"))
    if not name.startswith("hf:"):
        assert load_clip(name, download_root="cache").model.config.activation == "quick_gelu"


def test_a_damaged_file_of_the_cache_is_refused(theirs: Any, tmp_path: Path) -> None:
    weights = write_cache(tmp_path / "cache", theirs) / "model.safetensors"
    digest = load_clip(NAME, download_root=tmp_path / "cache").sha256
    assert digest is not None
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    (tmp_path / "cache" / digest).write_bytes(data)
    weights.unlink()
    weights.symlink_to(tmp_path / "cache" / digest)
    with pytest.raises(WeightsError, match=f"is damaged: its SHA-256 is .*, not {digest}"):
        load_clip(NAME, download_root=tmp_path / "cache")


def test_names_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("hf:tiny-clip", "hf:", "hf:a/b/c", "hf:../../etc"):
        with pytest.raises(WeightsError, match="not a name on Hugging Face's hub"):
            load_clip(name, download_root=tmp_path)
    with pytest.raises(WeightsError, match="could not be downloaded from Hugging") as raised:
        load_clip("somebody/no-such-clip", download_root=tmp_path)
    assert "\n" not in str(raised.value)
    assert "'somebody/no-such-clip' is not a local file" in str(raised.value)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match="pip install huggingface_hub"):
        load_clip("openai/clip-vit-base-patch32", download_root=tmp_path)


@pytest.mark.slow
def test_a_name_is_downloaded_once(theirs: Any, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "theirs", theirs, "pytorch_model.bin")
    code = "import json, sys; from clip.weights import load_clip; "
    code += f"loaded = load_clip('{NAME}', download_root=sys.argv[1]); "
    code += "print(json.dumps([loaded.sha256, loaded.source, dict(loaded.origins)]))"
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    environment |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

    def load(**more: str) -> Any:
        words = [sys.executable, "-c", code, str(tmp_path / "cache")]
        settings: dict[str, Any] = {"cwd": ROOT, "env": environment | more, "text": True}
        done = subprocess.run(words, capture_output=True, check=False, **settings)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1])

    with serve() as server:
        prefix = f"/{NAME}/resolve/main/"
        server.files = {prefix + path.name: path.read_bytes() for path in folder.iterdir()}
        server.headers = {"X-Repo-Commit": "1" * 40, "X-Error-Code": "EntryNotFound"}
        environment["HF_ENDPOINT"] = server.url
        digest, source, origins = load()
        paths = list(server.paths)
        assert load(HF_HUB_OFFLINE="1")[0] == digest
    assert paths == server.paths and f"{prefix}pytorch_model.bin" in paths
    assert source.startswith(str(tmp_path / "cache"))
    assert digest == load_clip(str(folder)).sha256
    assert set(origins.values()) == {"read"}


# open_clip

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
