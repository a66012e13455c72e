"""Weights by a name of Hugging Face's hub: downloaded once, found again, damaged, not to be had."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from clip.errors import WeightsError
from clip.weights import load_clip
from tests.helpers.runs import ROOT
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
def test_a_name_that_was_fetched_before(
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
def test_names_that_are_none(name: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not a name on Hugging Face's hub"):
        load_clip(name, download_root=tmp_path)


class _Hub(http.server.BaseHTTPRequestHandler):
    """What of the hub's answers a download needs."""

    files: dict[str, bytes] = {}
    asked: list[str] = []

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output clean."""

    def _answer(self, body: bool) -> None:
        prefix = "/somebody/tiny-clip/resolve/main/"
        content = self.files.get(self.path.removeprefix(prefix))
        self.asked.append(f"{self.command} {self.path.removeprefix(prefix)}")
        self.send_response(404 if content is None else 200)
        self.send_header("X-Repo-Commit", "1" * 40)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("ETag", f'"{len(content or b""):040}"')
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if body and content is not None:
            self.wfile.write(content)

    def do_HEAD(self) -> None:
        self._answer(False)

    def do_GET(self) -> None:
        self._answer(True)


def test_a_name_is_downloaded_once(theirs: Any, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "theirs", theirs, "pytorch_model.bin")
    _Hub.files = {path.name: path.read_bytes() for path in folder.iterdir()}
    _Hub.asked = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    code = "import sys; from clip.weights import load_clip; "
    code += "loaded = load_clip('somebody/tiny-clip', download_root=sys.argv[1]); "
    code += "import json; print(json.dumps([loaded.sha256, loaded.source, dict(loaded.origins)]))"
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    environment |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    environment["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
    command = [sys.executable, "-c", code, str(tmp_path / "cache")]
    try:
        first = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert first.returncode == 0, first.stderr[-2000:]
        asked = list(_Hub.asked)
        second = subprocess.run(
            command,
            cwd=ROOT,
            env={**environment, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    digest, source, origins = json.loads(first.stdout.splitlines()[-1])
    assert json.loads(second.stdout.splitlines()[-1])[0] == digest
    assert asked == _Hub.asked and "GET pytorch_model.bin" in asked
    assert source.startswith(str(tmp_path / "cache"))
    assert digest == load_clip(str(folder)).sha256
    assert set(origins.values()) == {"read"}
