"""The store of features returns the stored rows, also with damaged files and full disks."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.helpers.runs import ROOT
from trainers.core.features.store import FeatureStore, StoredRows

KEY = "a1"


def stored(
    folder: Path, rows: Tensor, fingerprint: str = "now", stored_as: torch.dtype | None = None
) -> tuple[StoredRows | None, int]:
    """Rows from a store, and how often they were made."""
    made = []

    def make() -> Iterator[Tensor]:
        made.append(1)
        return iter(rows.split(3))

    return FeatureStore(folder).get(KEY, fingerprint, len(rows), make, stored_as), len(made)


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 9),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=2),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
)
def test_rows_are_bit_identical(count: int, shape: list[int], dtype: torch.dtype) -> None:
    rows = numbers(count, *shape).to(dtype)
    with tempfile.TemporaryDirectory() as folder:
        for expected in (1, 0):
            found, made = stored(Path(folder), rows)
            assert found is not None
            assert (len(found), made) == (count, expected)
            assert torch.equal(found.read(0, count), rows)
            assert torch.equal(found.read(1, count), rows[1:])
            assert torch.equal(found.take([count - 1, 0]), rows[[count - 1, 0]])
        array = np.load(FeatureStore(folder).path(KEY), allow_pickle=False)
        assert array.tobytes() == rows.view(torch.uint8).numpy().tobytes()


@settings(max_examples=60, deadline=None)
@given(
    suffix=st.sampled_from([".npy", ".json"]),
    position=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)
def test_flipped_bits_change_no_row(suffix: str, position: float, bit: int) -> None:
    rows = numbers(5, 6)
    with tempfile.TemporaryDirectory() as folder:
        stored(Path(folder), rows)
        path = FeatureStore(folder).path(KEY).with_suffix(suffix)
        content = bytearray(path.read_bytes())
        content[int(position * len(content))] ^= 1 << bit
        path.write_bytes(content)
        found, _ = stored(Path(folder), rows)
        assert found is not None
        assert torch.equal(found.read(0, 5), rows)


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "stale"])
def test_a_bad_entry_is_replaced_with_a_message(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, path = numbers(5, 6), FeatureStore(tmp_path).path(KEY)
    stored(tmp_path, rows)
    content = path.read_bytes()
    flipped = bytes([content[-1] ^ 1])
    bad = {"cut": content[:-7], "empty": b"", "flipped": content[:-1] + flipped, "stale": content}
    path.write_bytes(bad[damage])
    capsys.readouterr()
    fingerprint = "later" if damage == "stale" else "now"
    found, made = stored(tmp_path, rows, fingerprint)
    assert made == 1
    assert found is not None
    assert torch.equal(found.read(0, 5), rows)
    (line,) = capsys.readouterr().out.splitlines()
    assert str(path) in line
    assert ("stale" if damage == "stale" else "damaged") in line
    assert stored(tmp_path, rows, fingerprint)[1] == 0


def test_rounded_rows_are_the_same_before_and_after_storing(tmp_path: Path) -> None:
    rows = numbers(7, 2, 3)
    for _ in range(2):
        found, _made = stored(tmp_path, rows, stored_as=torch.float16)
        assert found is not None
        assert torch.equal(found.read(0, 7), rows.half().float())
    in_memory = StoredRows.in_memory(rows.split(2), torch.float16)
    assert torch.equal(in_memory.take([4, 1]), rows.half().float()[[4, 1]])


def test_an_impossible_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert stored(tmp_path / "file" / "below", numbers(2, 2)) == (None, 0)
    (line,) = capsys.readouterr().out.splitlines()
    assert str(tmp_path / "file") in line


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, limits[1]))
    try:
        found, made = stored(tmp_path, numbers(100, 100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (found, made) == (None, 1)
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_a_failure_while_making_rows_leaves_no_file(tmp_path: Path) -> None:
    def make() -> Iterator[Tensor]:
        yield numbers(1, 2)
        raise LookupError("an image cannot be read")

    with pytest.raises(LookupError):
        FeatureStore(tmp_path).get(KEY, "now", 2, make)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    assert stored(tmp_path, numbers(2, 2))[1] == 1


MAKER = """
import sys, time
from pathlib import Path
import torch
from tests.helpers.runs import ROOT
from trainers.core.features.store import FeatureStore

folder, name = Path(sys.argv[1]), sys.argv[2]
(folder / f"{name}.ready").touch()
while len(list(folder.glob("*.ready"))) < 2:
    time.sleep(0.01)

def make():
    with (folder / "made").open("a") as file:
        file.write(name)
    for row in torch.arange(40.0).view(20, 1, 2):
        time.sleep(0.02)
        yield row

rows = FeatureStore(folder / "store").get("b2", "now", 20, make)
assert rows.read(0, 20).flatten().tolist() == list(range(40))
"""


def test_two_processes_make_an_entry_once(tmp_path: Path) -> None:
    commands = [[sys.executable, "-c", MAKER, str(tmp_path), name] for name in "xy"]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for command in commands
    ]
    printed = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert (tmp_path / "made").read_text() in ("x", "y")
    assert sum("waiting" in text for text in printed) == 1
