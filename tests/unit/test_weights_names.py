"""Weights by names of Hugging Face's hub and of open_clip, served from this machine."""

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
from tests.helpers.tiny_transformers import assert_same_features, their_clip, write_folder


@pytest.fixture(scope="module")
def theirs() -> Any:
    return their_clip()


def _in_cache(root: Path, model: Any, name: str = "models--somebody--tiny-clip") -> Path:
    """A model in huggingface_hub's cache, as its download leaves it."""
    snapshot = root / name / "snapshots" / ("0" * 40)
    write_folder(snapshot, model)
    refs = root / name / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    return snapshot


@pytest.mark.parametrize("name", ["somebody/tiny-clip", "hf:somebody/tiny-clip"])
def test_a_name_in_the_cache(
    name: str, theirs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = _in_cache(tmp_path / "cache", theirs)
    loaded = load_clip(name, download_root=tmp_path / "cache")
    assert_same_features(loaded.model, theirs)
    assert loaded.source == str(snapshot / "model.safetensors")
    assert set(loaded.origins.values()) == {"read"}
    # A path comes before a name.
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "somebody" / "tiny-clip", their_clip("quick_gelu"))
    if not name.startswith("hf:"):
        assert load_clip(name, download_root="cache").model.config.activation == "quick_gelu"


def test_a_damaged_file_of_the_cache(theirs: Any, tmp_path: Path) -> None:
    snapshot = _in_cache(tmp_path / "cache", theirs)
    weights = snapshot / "model.safetensors"
    digest = load_clip("somebody/tiny-clip", download_root=tmp_path / "cache").sha256
    assert digest is not None
    blob = tmp_path / "cache" / digest
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    weights.unlink()
    weights.symlink_to(blob)
    with pytest.raises(WeightsError, match=f"is damaged: its SHA-256 is .*, not {digest}"):
        load_clip("somebody/tiny-clip", download_root=tmp_path / "cache")


def test_a_name_without_network(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match="could not be downloaded from Hugging Face's hub"
    ) as raised:
        load_clip("somebody/no-such-clip", download_root=tmp_path)
    assert "\n" not in str(raised.value)
    assert "'somebody/no-such-clip' is not a local file" in str(raised.value)


def test_a_name_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match="pip install huggingface_hub"):
        load_clip("openai/clip-vit-base-patch32", download_root=tmp_path)


@pytest.mark.parametrize("name", ["hf:tiny-clip", "hf:", "hf:a/b/c", "hf:../../etc"])
def test_wrong_names_of_the_hub(name: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not a name on Hugging Face's hub"):
        load_clip(name, download_root=tmp_path)


LOAD = """
import json, sys
from clip.weights import load_clip
loaded = load_clip("somebody/tiny-clip", download_root=sys.argv[1])
print(json.dumps([loaded.sha256, loaded.source, dict(loaded.origins)]))
"""


def test_a_name_is_downloaded_once(theirs: Any, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "theirs", theirs, "pytorch_model.bin")
    place = "/somebody/tiny-clip/resolve/main"
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    environment |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    found = []
    with serve() as server:
        server.hub = True
        server.files = {f"{place}/{path.name}": path.read_bytes() for path in folder.iterdir()}
        environment["HF_ENDPOINT"] = server.url
        for offline in ({}, {"HF_HUB_OFFLINE": "1"}):
            command = [sys.executable, "-c", LOAD, str(tmp_path / "cache")]
            done = subprocess.run(
                command, cwd=ROOT, env=environment | offline, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr[-2000:]
            found.append(json.loads(done.stdout.splitlines()[-1]))
            asked = list(server.paths) if not offline else asked
    assert asked == server.paths and f"{place}/pytorch_model.bin" in asked
    digest, source, origins = found[0]
    assert found[1][0] == digest == load_clip(str(folder)).sha256
    assert source.startswith(str(tmp_path / "cache"))
    assert set(origins.values()) == {"read"}


ARCHITECTURE = "ViT-tiny-32"
MODEL: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 16, "patch_size": 32},
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 64,
        "heads": 4,
        "layers": 2,
    },
}


@pytest.fixture(params=[False, True], ids=["gelu", "quick_gelu"])
def their_model(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """Add an architecture and its weights to open_clip's tables, on a server of this machine."""
    torch.manual_seed(0)
    model = open_clip.CLIP(**MODEL, quick_gelu=request.param).eval()
    torch.save({"epoch": 1, "state_dict": model.state_dict()}, tmp_path / "served.pt")
    config = MODEL | ({"quick_gelu": True} if request.param else {})
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, ARCHITECTURE, config)
    with serve() as server:
        server.files["/tiny.pt"] = (tmp_path / "served.pt").read_bytes()
        weights = {"quick_gelu": request.param, "mean": (0.5,) * 3, "std": (0.25,) * 3}
        tags = {
            tag: weights | {"url": f"{server.url}/{file}.pt"}
            for tag, file in (("mine", "tiny"), ("gone", "gone"))
        }
        monkeypatch.setitem(pretrained._PRETRAINED, ARCHITECTURE, tags)
        yield model


def test_heads_activation_and_normalisation_come_from_their_tables(
    their_model: Any, tmp_path: Path
) -> None:
    loaded = load_clip(f"open_clip:{ARCHITECTURE}/mine", download_root=tmp_path / "weights")
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


def test_a_failed_download_by_open_clip(their_model: Any, tmp_path: Path) -> None:
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
def test_wrong_names_of_open_clip(name: str, part: str) -> None:
    with pytest.raises(WeightsError) as raised:
        load_clip(f"open_clip:{name}")
    assert part in str(raised.value)
    assert "\n" not in str(raised.value)


def test_without_open_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(WeightsError, match="pip install open_clip_torch"):
        load_clip("open_clip:ViT-B-32/openai")


def test_the_published_architectures_agree() -> None:
    """open_clip's tables of the nine published models agree with `ARCHITECTURES`."""
    for name, config in ARCHITECTURES.items():
        theirs = open_clip.get_model_config(name.replace("/", "-").replace("@336px", "-336"))
        vision, text = theirs["vision_cfg"], theirs["text_cfg"]
        layers = vision["layers"]
        assert theirs["embed_dim"] == config.embed_dim
        assert (tuple(layers) if isinstance(layers, list) else layers) == config.vision_layers
        assert vision["width"] == config.vision_width
        assert vision["image_size"] == config.image_resolution
        assert vision["patch_size"] == config.vision_patch_size
        assert text["width"] == config.transformer_width
        assert text["heads"] == config.text_heads
        assert text["layers"] == config.transformer_layers
        assert text["context_length"] == config.context_length
