"""The lines of history.jsonl reach the disk before a checkpoint that counts them."""

from pathlib import Path

import pytest

from dassl.engine import run_record
from safeio import files
from tests.helpers.runs import command, finish

SHORT = ("OPTIM.MAX_EPOCH", "3", "DATASET.NUM_SHOTS", "1", "INPUT.TRAIN_VIEWS", "1")


def test_before_every_checkpoint_and_no_more(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    flush = files.flush_to_disk

    def recorded(path: Path) -> None:
        flushed.append(path.name)
        flush(path)

    monkeypatch.setattr(files, "flush_to_disk", recorded)
    monkeypatch.setattr(run_record, "flush_to_disk", recorded)
    output = tmp_path / "run"
    finish(command(output, data_root, *SHORT, "TRAIN.CHECKPOINT_FREQ", "2", trainer="CoOp"))
    parts = ("history.jsonl", ".model.pth.tar", ".results.json")
    order = [part for name in flushed for part in parts if name.startswith(part)]
    # After two epochs, after the third, and at the end, behind the line of the test.
    assert order == ["history.jsonl", ".model.pth.tar"] * 2 + ["history.jsonl", ".results.json"]
