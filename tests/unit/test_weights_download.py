"""Downloads from a server on this machine: whole, resumed, cut, wrong, refused."""

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


def test_the_nine_models() -> None:
    assert len(clip._MODELS) == 9
    assert clip._MODELS == MODELS
    for url in MODELS.values():
        digest, name = url.split("/")[-2:]
        assert re.fullmatch(r"[0-9a-f]{64}", digest)
        assert name.endswith(".pt")


def test_a_whole_download_happens_once(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = Path(clip._download(server.url, str(tmp_path / "new" / "folder")))
    assert path == tmp_path / "new" / "folder" / "RN50.pt"
    assert path.read_bytes() == CONTENT
    assert _names(path.parent) == {"RN50.pt"}
    assert clip._download(server.url, str(path.parent)) == str(path)
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


@pytest.mark.parametrize(("size", "ranges"), [(5000, False), (len(CONTENT), True)])
def test_a_server_without_ranges_and_a_part_that_is_whole(
    size: int, ranges: bool, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "RN50.pt.part").write_bytes(CONTENT[:size])
    server.ranges = ranges
    assert fetch(server.url, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"of something else", CONTENT + b"more"])
def test_a_part_of_another_file_is_refused_and_removed(
    part: bytes, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "RN50.pt.part").write_bytes(part)
    with pytest.raises(WeightsError, match="SHA-256"):
        fetch(server.url, tmp_path)
    assert _names(tmp_path) == set()
    assert fetch(server.url, tmp_path).read_bytes() == CONTENT


def test_a_wrong_file_is_refused(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(WeightsError, match=rf"refused because its SHA-256 is .*not {DIGEST}"):
        fetch(server.url, tmp_path)
    assert _names(tmp_path) == set()


def test_an_existing_wrong_file_is_refused_and_kept(server: Server, tmp_path: Path) -> None:
    (tmp_path / "RN50.pt").write_bytes(b"mine")
    with pytest.raises(WeightsError, match="is not the published file"):
        fetch(server.url, tmp_path)
    assert (tmp_path / "RN50.pt").read_bytes() == b"mine"
    assert server.requests == []


@pytest.mark.parametrize("status", [404, 503])
def test_errors_of_the_server(status: int, server: Server, tmp_path: Path) -> None:
    server.status = status
    with pytest.raises(WeightsError, match=r"RN50\.pt could not be downloaded") as raised:
        fetch(server.url, tmp_path)
    assert "\n" not in str(raised.value)
    assert _names(tmp_path) == set()


def test_no_server_or_no_folder(server: Server, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="by hand"):
        fetch(f"http://127.0.0.1:1/{DIGEST}/RN50.pt", tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightsError, match="could not be downloaded"):
        fetch(server.url, tmp_path / "file")


def test_two_runs_at_once_download_once(server: Server, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch(server.url, tmp_path), range(4)))
    assert len(set(paths)) == 1
    assert paths[0].read_bytes() == CONTENT
    assert server.requests == [None]


def test_a_model_by_name(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(tiny_clip("rn").state_dict(), tmp_path / "tiny.pt")
    server.content = (tmp_path / "tiny.pt").read_bytes()
    digest = hashlib.sha256(server.content).hexdigest()
    monkeypatch.setitem(MODELS, "RN50", server.url.replace(DIGEST, digest))
    loaded = load_clip("RN50", transformer_heads=2, download_root=tmp_path / "weights")
    assert loaded.sha256 == digest
    assert loaded.source == str(tmp_path / "weights" / "RN50.pt")


@pytest.mark.parametrize("archive", [False, True])
def test_loading_as_coops_trainers_do(
    archive: bool, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first lines of CoOp's trainers and their forks, on both kinds of .pt."""
    torch.manual_seed(0)
    small = CLIP(CLIPConfig(32, 32, (1, 1, 1, 1), 8, None, transformer_width=64)).eval()
    example = (torch.zeros(1, 3, 32, 32), clip.tokenize("a dog"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and these lines use it
        if archive:
            torch.jit.trace(small, example, check_trace=False).save(str(tmp_path / "small.pt"))
        else:
            torch.save(small.state_dict(), tmp_path / "small.pt")
        server.content = (tmp_path / "small.pt").read_bytes()
        digest = hashlib.sha256(server.content).hexdigest()
        monkeypatch.setitem(clip._MODELS, "RN50", server.url.replace(DIGEST, digest))
        monkeypatch.setenv("HOME", str(tmp_path))

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
