"""Checkpoints, logs, meters, files, devices and registries."""

from pathlib import Path

import pytest
import torch
from torch import nn

from dassl import utils
from dassl.config import get_cfg_default
from safeio.errors import UserError
from safeio.files import prepare_output_dir, publish_json, write_atomic
from tests.helpers.weights_files import Call


def test_checkpoint_round_trip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = {
        "state_dict": {f"module.{k}": v for k, v in model.state_dict().items()},
        "epoch": 3,
        "optimizer": optimizer.state_dict(),
        "random_states": utils.random_states(),
    }
    utils.save_checkpoint(state, tmp_path / "m", is_best=True)
    utils.save_checkpoint(state, tmp_path / "m", model_name="other.pth.tar")
    names = {path.name for path in (tmp_path / "m").iterdir()}
    assert names == {"model.pth.tar-3", "model-best.pth.tar", "other.pth.tar", "checkpoint"}
    assert (tmp_path / "m" / "checkpoint").read_text() == "model.pth.tar-3\n"
    other = nn.Linear(2, 2)
    other_optimizer = torch.optim.Adam(other.parameters())
    assert utils.resume_from_checkpoint(tmp_path / "m", other, other_optimizer) == 3
    assert torch.equal(other.weight, model.weight)
    assert other_optimizer.state_dict()["state"][0]["step"] == 1
    assert "Checkpoint saved to" in capsys.readouterr().out


def test_unreadable_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="No checkpoint at"):
        utils.load_checkpoint(tmp_path / "none")
    path = tmp_path / "c"
    torch.save({"state_dict": {}, "evil": Call(print, "this must not run")}, path)
    with pytest.raises(UserError, match="could run code"):
        utils.load_checkpoint(path)
    torch.save({"state_dict": {"w": torch.zeros(1000)}}, path)
    for content in (path.read_bytes()[:900], b"", b"text", b"\x80\x02]q\x00", b"\x80\x02]q\x00e."):
        path.write_bytes(content)
        with pytest.raises(UserError, match="damaged"):
            utils.load_checkpoint(path)
    assert "must not run" not in capsys.readouterr().out
    with pytest.raises(UserError, match="no checkpoint to resume from"):
        utils.resume_from_checkpoint(tmp_path, nn.Linear(1, 1))


def test_writes_are_atomic_and_the_first_publication_stays(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    assert publish_json([1], path) == publish_json([2], path) == [1]

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, fail)
    assert utils.read_json(path) == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["f.json"]


def test_pretrained_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = nn.Linear(2, 3), nn.Linear(2, 3)
    state = {"module.weight": source.weight, "bias": torch.zeros(7), "extra": torch.zeros(1)}
    torch.save({"state_dict": state}, tmp_path / "w")
    utils.load_pretrained_weights(target, tmp_path / "w")
    assert torch.equal(target.weight, source.weight)
    assert "['bias', 'extra']" in capsys.readouterr().out
    utils.load_pretrained_weights(nn.Conv2d(1, 1, 1), tmp_path / "w")
    assert "Warning: no weights in" in capsys.readouterr().out


def test_output_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "sub"):
        with pytest.raises(UserError, match="a file with this name exists"):
            prepare_output_dir(path)
    with pytest.raises(UserError, match=r"cannot be (created|written to)"):
        prepare_output_dir("/proc/1/output")
    assert prepare_output_dir(tmp_path / "a" / "b").is_dir()

    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(UserError, match="cannot be written to: Permission denied"):
        utils.setup_logger(tmp_path)


def test_metric_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = utils.MetricMeter()
    meter.update({"loss": torch.tensor(1.0), "acc": 50})
    meter.update({"loss": torch.tensor([3.0]), "acc": 100.0})
    meter.update(None)
    assert str(meter) == "loss 3.0000 (2.0000) acc 100.0000 (75.0000)"
    assert meter.averages() == {"loss": 2.0, "acc": 75.0}
    with pytest.raises(TypeError):
        meter.update([1])  # type: ignore[arg-type]
    smooth = utils.AverageMeter(ema=True)
    smooth.update(10)
    assert smooth.avg == pytest.approx(1.0)
    meter = utils.MetricMeter()
    monkeypatch.setattr(torch.Tensor, "item", None)  # reading would synchronise a GPU
    for value in range(5):
        meter.update({"loss": torch.tensor(float(value))})


def test_devices() -> None:
    cfg = get_cfg_default()
    cfg.DEVICE = "cpu"
    assert utils.choose_device(cfg) == torch.device("cpu")
    for name in ("gpu", "cuda:x", "cpu:1", "mps:0"):
        cfg.DEVICE = name
        with pytest.raises(UserError, match="auto, cpu, cuda, cuda:N, mps"):
            utils.choose_device(cfg)
    cfg.DEVICE = "cuda:99"
    with pytest.raises(UserError, match="is not available: PyTorch finds"):
        utils.choose_device(cfg)
    cfg.USE_CUDA = False
    assert utils.choose_device(cfg) == torch.device("cpu")
