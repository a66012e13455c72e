"""Runs of genuine Dassl resume: only checkpoints, with pickled schedulers."""

from pathlib import Path

import pytest
import torch

from dassl.engine import finished_run
from tests.helpers.dassl_toy import ToyNet, toy_command
from tests.helpers.killing import same_state
from tests.helpers.run_folders import content, model, rates
from tests.helpers.runs import Capture, finish, refuse

pytestmark = pytest.mark.usefixtures("toys")


def dassl_checkpoint(folder: Path, epochs: int, rate: float = 0.02, warmup: bool = True) -> None:
    """Write a checkpoint as genuine Dassl does, with whole scheduler objects."""
    network = ToyNet(4)
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
    successor = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
    network(torch.rand(2, 3, 4, 4)).sum().backward()
    optimizer.step()
    scheduler = {
        **{"successor": successor, "warmup_epoch": 1, "cons_lr": 1e-3, "verbose": False},
        **{"base_lrs": [rate], "last_epoch": 1, "_step_count": 2, "_last_lr": [0.01]},
    }
    state = {
        "state_dict": network.state_dict(),
        "epoch": epochs,
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler if warmup else successor.state_dict(),
        "val_result": None,
    }
    (folder / "toy").mkdir(parents=True)
    torch.save(state, folder / "toy" / f"model.pth.tar-{epochs}")
    (folder / "toy" / "checkpoint").write_text(f"model.pth.tar-{epochs}\n")


@pytest.mark.parametrize("warmup", [True, False])
def test_a_run_that_dassl_wrote_is_resumed(
    warmup: bool, root: Path, tmp_path: Path, whole: Path, capsys: Capture
) -> None:
    theirs = tmp_path / "theirs"
    dassl_checkpoint(theirs, 2, warmup=warmup)
    before = content(theirs)
    assert refuse(["--resume", str(theirs)], capsys) == (
        f"error: {theirs}/config.yaml is missing, so --resume {theirs} needs the flags that "
        "started the run: --trainer, --config-file and --dataset-config-file, or KEY VALUE pairs"
    )
    assert refuse(toy_command(root, theirs), capsys) == (
        f"error: {theirs} holds checkpoints, but no readable config.yaml with their settings; "
        "choose another --output-dir or --overwrite it"
    )
    assert content(theirs) == before
    flags = ("--resume", str(theirs), "--trainer", "ToyTrainer")
    finish(toy_command(root, tmp_path / "ours", flags=flags))
    assert rates(tmp_path / "ours") == rates(whole)[2:]
    finish(toy_command(root, theirs, flags=flags))
    for folder in (tmp_path / "ours", theirs):
        results = finished_run(folder) or {}
        assert results["origins"] == [{"epochs": 2, "settings": None}]
    assert same_state(model(theirs), model(tmp_path / "ours"))


def test_settings_that_dassls_checkpoint_contradicts(
    root: Path, tmp_path: Path, capsys: Capture
) -> None:
    dassl_checkpoint(tmp_path / "theirs", 6, rate=0.3)
    flags = ("--resume", str(tmp_path / "theirs"), "--trainer", "ToyTrainer")
    given = toy_command(root, tmp_path / "ours", "OPTIM.MAX_EPOCH", "8", flags=flags)
    assert "(OPTIM.LR: 0.3 -> 0.02)" in refuse(given, capsys)
    message = refuse(toy_command(root, tmp_path / "ours", flags=flags), capsys)
    assert "was saved after 6 epochs, but OPTIM.MAX_EPOCH is 4" in message
    assert not content(tmp_path / "ours")
