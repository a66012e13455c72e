"""Every command works on a read-only run, unless it writes there."""

from pathlib import Path

from nemesis.commands import export, low_norm, predict, words
from tests.helpers.runs import Capture, command, finish, refuse, results
from tests.helpers.small_disk import read_only

SHORT = ("OPTIM.MAX_EPOCH", "1", "DATASET.NUM_SHOTS", "1", "TEST.SPLIT", "val")


def test_commands_on_a_read_only_run(tmp_path: Path, data_root: Path, capsys: Capture) -> None:
    run = tmp_path / "run"
    finish(command(run, data_root, *SHORT, "DATASET.SUBSAMPLE_CLASSES", "base"))
    picture = next((data_root / "emoji_activities" / "images").rglob("*.png"))
    low = str(tmp_path / "low")
    few = ("--positions", "0", "--rescale", "0.1", "--replace", "--output-dir", low)
    with read_only(run):
        assert predict.main([str(run), str(picture)]) == 0
        assert export.main([str(run), "-o", str(tmp_path / "classifier.safetensors")]) == 0
        assert words.main([str(run)]) == 0
        capsys.readouterr()
        assert low_norm.main([str(run), *few]) == 0
        (warning,) = capsys.readouterr().err.splitlines()
        assert warning == (
            f"Warning: {run}/corruption.json cannot be written: Read-only file system; a second "
            "call tests all corruptions again"
        )
        new = ("DATASET.SUBSAMPLE_CLASSES", "new", "--eval-only", "--model-dir", str(run))
        finish(command(tmp_path / "tested", data_root, *new[2:], *SHORT, *new[:2]))
        more = ("--resume", str(run), "--output-dir", str(tmp_path / "on"), "OPTIM.MAX_EPOCH", "2")
        finish(list(more))
        assert results(tmp_path / "on")["epochs"] == 2
        message = refuse(command(run, data_root, *SHORT, *new[:1], "base"), capsys)
        expected = f"The output folder {run} cannot be written to: Read-only file system"
        assert message == f"error: {expected}"
        assert export.main([str(run)]) == 2
        assert "Read-only file system" in capsys.readouterr().err
    assert not (run / "corruption.json").exists()
