"""A changed byte or a lost end of any file of a run is noticed, and runs resume without the file.

Every test writes a file, damages it somewhere and reads it: the result is an error that names the
file, or exactly what was written (a byte of indentation changes nothing).
"""

import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dassl.data.datasets.listing import _read, write_listing
from dassl.data.datasets.split_dataset import _read_sample
from dassl.engine import finished_run
from dassl.engine.run_record import RunRecord, read_history, results_fault
from dassl.utils import CheckpointFolder, load_checkpoint, save_checkpoint
from nemesis.commands import report, sweep
from nemesis.low_norm.corruption import Corruption
from nemesis.low_norm.study import Study
from safeio.checksums import (
    DamagedFile,
    read_verified_json,
    with_checksum,
    without_checksum,
    write_json_with_checksum,
)
from tests.helpers.report_runs import a_run
from tests.helpers.runs import SHORT, Capture, command, finish, results
from tests.helpers.sweeps_small import learned, runs_in
from tests.helpers.sweeps_small import write as write_sweep
from trainers.core.prompt_file import read_tensors, save_tensors

DAMAGE = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PLACES = st.floats(0, 1, exclude_max=True)
# A changed byte, or (None) the file cut off there.
CHANGES = st.one_of(st.none(), st.integers(1, 255))

STATE: dict[str, Any] = {"state_dict": {"ctx": torch.arange(40.0).view(4, 10)}, "epoch": 3}
STATE["optimizer"] = None
PROMPT = {"ctx": torch.arange(12.0).view(3, 4)}
ROWS = {"kind": "rescale", "value": 0.5, "position": 1, "correct": 3, "accuracy": 37.5}
SAMPLE = {"train": [["a", 0, "b"]], "val": [], "split_sha256": "0"}


def damaged(content: bytes, place: float, change: int | None) -> bytes:
    """The bytes with one of them changed, or cut off from there."""
    at = int(place * len(content))
    if change is None:
        return content[:at]
    return content[:at] + bytes([content[at] ^ change]) + content[at + 1 :]


def plain(value: Any) -> Any:
    """Tensors as lists, to be compared."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def write_study(path: Path) -> None:
    study = Study({"trainer": "CoOp"}, {"file": "x", "sha256": "0"}, 0, "test", 8, {"correct": 2})
    study.entries[Corruption("rescale", 0.5, 1)] = ROWS
    study.write(path)


def read(reader: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """A reader that returns None for a damaged file, as one that raises."""

    def strict(path: Path) -> Any:
        content = reader(path)
        if content is None:
            raise DamagedFile(f"{path}")
        return vars(content) if isinstance(content, Study) else content

    return strict


KINDS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    "checkpoint": (
        lambda path: save_checkpoint(STATE, path.parent, model_name=path.name),
        load_checkpoint,
    ),
    "results": (lambda path: write_json_with_checksum(a_run(71.5), path), read_verified_json),
    "prompt": (lambda path: save_tensors(path, PROMPT, {"classnames": ["a"]}), read_tensors),
    "corruption": (write_study, read(Study.read)),
    "few-shot sample": (lambda p: write_json_with_checksum(SAMPLE, p), read(_read_sample)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_goes_unnoticed(kind: str, tmp_path: Path) -> None:
    write, load = KINDS[kind]
    path = tmp_path / "file"
    write(path)
    whole, expected = path.read_bytes(), plain(load(path))

    @DAMAGE
    @given(place=PLACES, change=CHANGES)
    def damage(place: float, change: int | None) -> None:
        path.write_bytes(damaged(whole, place, change))
        try:
            found = plain(load(path))
        except DamagedFile as error:
            assert str(path) in str(error)
        else:
            assert kind != "checkpoint"  # whose every byte is covered
            assert found == expected

    damage()


def test_every_bit_of_a_results_file(tmp_path: Path) -> None:
    """A small one, exhaustively."""
    content = {"accuracy": 71.25, "status": "finished", "config": {"SEED": 1, "LIST": [1, 2]}}
    path = tmp_path / "results.json"
    write_json_with_checksum(content, path)
    whole = path.read_bytes()
    for at in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            found = finished_run(tmp_path)
            assert found is None or found == content, (at, bit)
            assert bool(found) != bool(results_fault(tmp_path))
    for end in range(len(whole) - 2):
        path.write_bytes(whole[:end])
        assert finished_run(tmp_path) is None


@DAMAGE
@given(place=PLACES, change=CHANGES)
def test_a_damaged_line_of_the_history_is_ignored(place: float, change: int | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        record = RunRecord(folder)
        for epoch in range(4):
            record.epoch(epoch, 1.5, 0.002, {"loss": 1 / (epoch + 1)})
        whole = read_history(folder)
        path = Path(folder) / "history.jsonl"
        path.write_bytes(damaged(path.read_bytes(), place, change))
        found = read_history(folder)
        assert all(entry in whole for entry in found)
        assert change is None or len(found) >= 2  # a lost end of a line takes the next one with it


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.one_of(st.integers(), st.floats(allow_nan=False), st.text(), st.lists(st.booleans())),
    )
)
def test_content_with_a_checksum_comes_back(content: dict[str, Any]) -> None:
    stored = json.loads(json.dumps({k: v for k, v in content.items() if k != "checksum"}))
    if any(str(value).startswith(("sha256:", "crc32:")) for value in stored.values()):
        return
    again = json.loads(json.dumps(with_checksum(stored), indent=3))
    assert without_checksum(again) == stored
    assert without_checksum(stored) == stored  # as older versions wrote it


def test_checkpoints_of_other_programs(tmp_path: Path) -> None:
    """PyTorch reads ours; of theirs, the archive's CRC-32 is checked, which PyTorch does not."""
    path = save_checkpoint(STATE, tmp_path)
    for mapped in (False, True):
        assert plain(torch.load(path, weights_only=True, mmap=mapped)) == plain(STATE)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"sha256:")
    torch.save(STATE, path)
    assert plain(load_checkpoint(path)) == plain(STATE)
    whole = path.read_bytes()
    at = whole.index(STATE["state_dict"]["ctx"].numpy().tobytes()) + 40
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    assert plain(torch.load(path, weights_only=True)) != plain(STATE)
    with pytest.raises(DamagedFile, match="is damaged"):
        load_checkpoint(path)


def test_a_damaged_listing_is_noticed(tmp_path: Path) -> None:
    """By the CRC-32 of its compression."""
    path = tmp_path / "listing.json.gz"
    entries = {"cat": (12, ["1.png", "2.png"])}
    write_listing(entries, path)
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(damaged(content, at / len(content), 4))
        assert _read(path) in ({}, entries)


# What commands do then


def flip(path: Path, at: int = -200) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_a_run_resumes_from_the_newest_valid_checkpoint(
    tmp_path: Path, data_root: Path, capsys: Capture
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    finish(command(whole, data_root, *SHORT, "TRAIN.CHECKPOINT_FREQ", "1"))
    shutil.copytree(whole, run)
    spoilt = run / "prompt_learner" / "model.pth.tar-3"
    flip(run / "results.json", 300)
    flip(spoilt)
    wrong = spoilt.read_bytes()
    finish(command(run, data_root, "--resume", str(run), *SHORT, "TRAIN.CHECKPOINT_FREQ", "1"))
    printed = capsys.readouterr().out
    assert f'Warning: "{spoilt}" is refused: it is damaged' in printed
    assert f"Warning: {run / 'results.json'} is damaged" in printed
    assert "will resume training after epoch 2" in printed
    assert spoilt.with_name("model.pth.tar-3.damaged").read_bytes() == wrong  # nothing is lost
    states = [load_checkpoint(folder / "prompt_learner/model.pth.tar-3") for folder in (whole, run)]
    assert plain(states[0]["state_dict"]) == plain(states[1]["state_dict"])
    assert results(whole)["accuracy"] == results(run)["accuracy"]


def test_without_a_valid_checkpoint_resuming_fails(tmp_path: Path) -> None:
    save_checkpoint(STATE, tmp_path)
    flip(tmp_path / "model.pth.tar-3")
    with pytest.raises(DamagedFile, match="contains no other checkpoint"):
        CheckpointFolder(tmp_path).newest_valid()
    assert CheckpointFolder(tmp_path).newest_valid() is None  # it was quarantined


@pytest.mark.slow
def test_a_sweep_resumes_from_the_newest_valid_checkpoint(tmp_path: Path, data_root: Path) -> None:
    path = write_sweep(tmp_path, data_root, {"OPTIM.MAX_EPOCH": 3, "TRAIN.CHECKPOINT_FREQ": 1})
    assert sweep.main([path, "--workers", "0"]) == 0
    (run,) = runs_in(path)
    expected = learned(run)
    flip(run.folder / "results.json", 300)
    flip(run.folder / "prompt_learner" / "model.pth.tar-3")
    assert sweep.main([path, "--workers", "0"]) == 0
    again = learned(run)
    assert torch.equal(expected[0], again[0]) and expected[1] == again[1]
    log = sorted(run.folder.glob("log.txt*"))[-1].read_text()
    assert "will resume training after epoch 2" in log


def test_the_report_names_damaged_results(tmp_path: Path, capsys: Capture) -> None:
    for seed in (1, 2, 3):
        path = tmp_path / "runs" / str(seed) / "results.json"
        write_json_with_checksum(a_run(50.0 + seed, seed=seed), path)
    spoilt = tmp_path / "runs" / "2" / "results.json"
    spoilt.write_text(spoilt.read_text().replace("52.0", "92.0"))
    assert report.main([str(tmp_path / "runs"), "--output-dir", str(tmp_path / "report")]) == 1
    printed = capsys.readouterr()
    assert printed.err == f"error: {spoilt} is damaged: it does not match its checksum\n"
    assert "92.0" not in printed.out
