"""Every reader accepts valid files and refuses damaged ones in one sentence."""

import contextlib
import functools
import importlib.util
import random
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dassl.engine.resume_checkpoint import ResumeCheckpoint
from tests.fuzz.readers import READERS, answer, seeds_of

WORDS = (
    *(b"9" * 30, b"1e999", b"-1", b"NaN", b"null", b"[", b"{", b'"', b"\0", b"\\ud800", b"&a"),
    *(b"*a", b"!!float x", b"\xff\xff\xff\xff", b"\0\0\0\0", b"0x", b":", b"true", b"{}", b'"\\n"'),
    *(b".inf", b"2020-01-01", b"../", b"\x1b[2J"),
)


@functools.cache
def _seeds(name: str) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
        return seeds_of(READERS[name], Path(folder))


def _damaged(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """One to four of: a flipped bit, a cut, a repeated, removed or foreign piece, a word."""
    content = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(content) + 1)
        end = min(len(content), at + draw.randint(1, 40))
        kind = draw.randrange(6)
        if kind == 0 and at < len(content):
            content[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del content[max(at, 1) :]
        elif kind == 2:
            content[at:at] = content[at:end]
        elif kind == 3:
            del content[at:end]
        elif kind == 4:
            start = draw.randrange(len(other) + 1)
            content[at:end] = other[start : start + draw.randint(1, 60)]
        else:
            content[at:at] = draw.choice(WORDS)
    return bytes(content)


def _read(name: str, data: bytes, folder: Path) -> str | None:
    with warnings.catch_warnings(), contextlib.redirect_stdout(None):
        warnings.simplefilter("ignore")  # Pillow warns of damage that it accepts
        return answer(READERS[name], data, folder)


@pytest.mark.parametrize("name", READERS)
def test_a_reader_accepts_valid_files(name: str, tmp_path: Path) -> None:
    assert {_read(name, data, tmp_path / "x") for data in _seeds(name)} == {None}


@pytest.mark.parametrize("name", READERS)
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(draw=st.randoms(use_true_random=False, note_method_calls=False))
def test_a_damaged_file_is_refused_cleanly_or_read(name: str, draw: random.Random) -> None:
    first, second = draw.choice(_seeds(name)), draw.choice(_seeds(name))
    with tempfile.TemporaryDirectory() as folder:
        _read(name, _damaged(first, second, draw), Path(folder))


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this machine"
)
@pytest.mark.parametrize("name", ["split", "torchscript"])
def test_the_fuzzer_runs(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", name, "--runs", "100"]
    done = subprocess.run(
        [*command, "--output-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Done 10" in done.stderr  # runs, in libFuzzer's statistics
    assert list((tmp_path / name / "corpus").iterdir())
    assert not list((tmp_path / name / "defects").iterdir())


@pytest.mark.parametrize(
    ("key", "value"),
    [("models", []), ("epoch", "1"), ("losses", {"loss": [1]}), ("lr", torch.ones(1)), ("own", 1)],
)
def test_a_wrong_resume_checkpoint_is_ignored(
    key: str, value: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole: dict[str, object] = {"epoch": 1, "batches": 2, "seconds": 0.5, "lr": None, "own": {}}
    whole |= {"models": {}, "losses": {"loss": [1.0, 1.0, 2.0, 2]}}
    path = tmp_path / "resume.pth.tar"
    torch.save(whole, path)
    assert ResumeCheckpoint(tmp_path).load() == {**whole, "path": path}
    torch.save({**whole, key: value}, path)
    assert ResumeCheckpoint(tmp_path).load() is None
    assert "is not a resume checkpoint" in capsys.readouterr().out
