"""Whole runs of KgCoOp, ProGrad and TCP on cached features, killed in an epoch and resumed."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

import train
from tests.helpers.killing import Killed, assert_same, killed_after
from tests.helpers.runs import command, finish, results
from trainers.core.batched import train_together

FEW = (
    *("OPTIM.MAX_EPOCH", "2", "DATASET.NUM_SHOTS", "2", "DATASET.SUBSAMPLE_CLASSES", "base"),
    *("TEST.SPLIT", "val", "INPUT.TRAIN_VIEWS", "2"),
)
PAN = ("TRAINER.NEMESIS.BETA", "0.3", "TRAINER.NEMESIS.N", "2")


@pytest.mark.parametrize("name", ["KgCoOp", "ProGradNemesis", "TCPNemesis"])
def test_killed_and_resumed(name: str, tmp_path: Path, data_root: Path) -> None:
    """Adam's state and the meta-net of TCP, and momentum on projected gradients, go on."""
    options = (*FEW, *PAN, "DATALOADER.TRAIN_X.BATCH_SIZE", "24")
    whole, killed = (tmp_path / part for part in ("whole", "killed"))
    finish(command(whole, data_root, *options, trainer=name))
    with pytest.raises(Killed), killed_after(5):
        finish(command(killed, data_root, *options, trainer=name))
    finish(command(killed, data_root, *options, "--resume", str(killed), trainer=name))
    assert_same(whole, killed)
    learned = set(load_file(whole / "prompt.safetensors"))
    assert ("meta_net.linear2.weight" in learned) == name.startswith("TCP")
    assert results(whole)["train_views"] == 2


def test_kgcoop_is_trained_in_batches(tmp_path: Path, data_root: Path) -> None:
    parser, cfgs = train.build_parser(), []
    for trainer in ("KgCoOp", "KgCoOpNemesis"):
        finish(command(tmp_path / f"{trainer}-alone", data_root, *FEW, *PAN, trainer=trainer))
        arguments = command(tmp_path / trainer, data_root, *FEW, *PAN, trainer=trainer)
        cfgs.append(train.make_config(parser.parse_args(arguments)))
    assert train_together(cfgs) == [None, None]
    for trainer in ("KgCoOp", "KgCoOpNemesis"):
        alone, together = results(tmp_path / f"{trainer}-alone"), results(tmp_path / trainer)
        assert together["batched"] == 2
        assert together["accuracy"] == pytest.approx(alone["accuracy"], abs=1e-9)
        one, two = (
            load_file(folder / "prompt.safetensors")["ctx"]
            for folder in (tmp_path / f"{trainer}-alone", tmp_path / trainer)
        )
        assert (one - two).abs().max() <= 1e-5
