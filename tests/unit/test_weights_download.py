"""Downloads from a real server on this machine: whole, resumed, cut, wrong, refused."""

import hashlib
import re
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from clip import clip
from clip.config import CLIPConfig
from clip.download import MODELS, fetch
from clip.errors import WeightsError
from clip.model import CLIP
from clip.weights import load_clip
from tests.golden import tiny_clip
from tests.helpers.server import Server, serve

CONTENT = bytes(range(256)) * 20_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as state:
        state.content = CONTENT
        state.url += f"/models/{DIGEST}/RN50.pt"
        yield state


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_the_nine_models_have_a_hash() -> None:
    assert len(clip._MODELS) == 9 and clip._MODELS == MODELS
    for url in MODELS.values():
        digest, name = url.split("/")[-2:]
        assert url.startswith("https://") and re.fullmatch(r"[0-9a-f]{64}", digest)
        assert name.endswith(".pt")


def test_four_runs_at_once_download_once(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "folder"
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: clip._download(server.url, str(folder)), range(4)))
    assert set(paths) == {str(folder / "RN50.pt")}
    assert (folder / "RN50.pt").read_bytes() == CONTENT
    assert _names(folder) == {"RN50.pt"}
    assert server.requests == [None]
    assert capfd.readouterr().err == ""  # no progress bar without a terminal


def test_a_cut_download_resumes(server: Server, tmp_path: Path) -> None:
    server.cut_after = 1_000_000
    with pytest.raises(WeightsError, match=r"cut after 1000000 of 5120000 bytes.*run again"):
        fetch(server.url, tmp_path)
    assert _names(tmp_path) == {"RN50.pt.part"}
    server.cut_after = None
    assert fetch(server.url, tmp_path).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=1000000-"]
    assert _names(tmp_path) == {"RN50.pt"}


@pytest.mark.parametrize(
    ("part", "ranges"), [(CONTENT[:5000], False), (CONTENT, True), (CONTENT, False)]
)
def test_parts_on_disk(part: bytes, ranges: bool, server: Server, tmp_path: Path) -> None:
    """A server without ranges sends everything again; a whole part needs nothing more."""
    (tmp_path / "RN50.pt.part").write_bytes(part)
    server.ranges = ranges
    assert fetch(server.url, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"of another file", CONTENT + b"more"])
def test_a_part_of_another_file_is_dropped(part: bytes, server: Server, tmp_path: Path) -> None:
    (tmp_path / "RN50.pt.part").write_bytes(part)
    with pytest.raises(WeightsError, match="SHA-256"):
        fetch(server.url, tmp_path)
    assert _names(tmp_path) == set()
    assert fetch(server.url, tmp_path).read_bytes() == CONTENT


def test_wrong_files_are_refused(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(WeightsError, match=rf"refused because its SHA-256 is .*not {DIGEST}"):
        fetch(server.url, tmp_path)
    assert _names(tmp_path) == set()
    server.requests.clear()
    (tmp_path / "RN50.pt").write_bytes(b"mine")
    with pytest.raises(WeightsError, match="is not the published file"):
        fetch(server.url, tmp_path)
    assert (tmp_path / "RN50.pt").read_bytes() == b"mine"
    assert server.requests == []


def test_failed_downloads_are_one_sentence(server: Server, tmp_path: Path) -> None:
    for status in (404, 503):
        server.status = status
        with pytest.raises(WeightsError, match=r"RN50\.pt could not be downloaded") as raised:
            fetch(server.url, tmp_path)
        assert "\n" not in str(raised.value)
    assert _names(tmp_path) == set()
    with pytest.raises(WeightsError, match="by hand"):
        fetch(f"http://127.0.0.1:1/{DIGEST}/RN50.pt", tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightsError, match="could not be downloaded"):
        fetch(server.url, tmp_path / "file")


def _publish(path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Serve a file as RN50; returns its hash."""
    server.content = path.read_bytes()
    digest = hashlib.sha256(server.content).hexdigest()
    monkeypatch.setitem(MODELS, "RN50", server.url.replace(DIGEST, digest))
    return digest


def test_a_model_by_name(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(tiny_clip("rn").state_dict(), tmp_path / "tiny.pt")
    digest = _publish(tmp_path / "tiny.pt", server, monkeypatch)
    loaded = load_clip("RN50", transformer_heads=2, download_root=tmp_path / "weights")
    assert loaded.sha256 == digest
    assert loaded.source == str(tmp_path / "weights" / "RN50.pt")


@pytest.mark.parametrize("archive", [False, True])
def test_the_lines_of_coops_trainers_load_a_model(
    archive: bool, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both kinds of .pt."""
    torch.manual_seed(0)
    small = CLIP(CLIPConfig(32, 32, (1, 1, 1, 1), 8, None, transformer_width=64)).eval()
    small.requires_grad_(False)
    example = (torch.zeros(1, 3, 32, 32), clip.tokenize("a dog"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and these lines use it
        if archive:
            torch.jit.trace(small, example, check_trace=False).save(str(tmp_path / "small.pt"))
        else:
            torch.save(small.state_dict(), tmp_path / "small.pt")
        _publish(tmp_path / "small.pt", server, monkeypatch)

        url = clip._MODELS["RN50"]
        model_path = clip._download(url)
        try:
            model = torch.jit.load(model_path, map_location="cpu").eval()
            state_dict = None
        except RuntimeError:
            state_dict = torch.load(model_path, map_location="cpu")
        built = clip.build_model(state_dict or model.state_dict())
    assert (state_dict is None) == archive
    assert not built.training
    assert Path(model_path) == tmp_path / ".cache" / "clip" / "RN50.pt"
    torch.testing.assert_close(built(*example), small(*example))
