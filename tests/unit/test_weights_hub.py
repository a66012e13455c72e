"""Weights by a name of Hugging Face's hub: downloaded once, cached, damaged, unavailable."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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
