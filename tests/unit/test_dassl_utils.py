"""Checkpoints, logs, meters, files, devices and registries."""

import json
import random
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
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


def test_random_states_come_back(tmp_path: Path) -> None:
    utils.set_random_seed(4)
    torch.save(utils.random_states(), tmp_path / "r")

    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.normal()), torch.rand(1).item()

    first = draw()
    utils.restore_random_states(torch.load(tmp_path / "r", weights_only=True))
    assert draw() == first
    utils.set_random_seed(4)
    assert draw() == first


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


def test_dassls_own_checkpoints_load(tmp_path: Path) -> None:
    """They contain whole scheduler objects and NumPy scalars next to the weights."""
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
    scheduler = {"last_epoch": 1, "base_lrs": [0.1], "successor": cosine, "_step_count": 2}
    state = {
        "state_dict": OrderedDict(model.state_dict()),
        "epoch": 5,
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler,
        "val_result": np.float64(91.5),
    }
    for zipped in (True, False):
        torch.save(state, tmp_path / "c", _use_new_zipfile_serialization=zipped)
        loaded = utils.load_checkpoint(tmp_path / "c")
        assert torch.equal(loaded["state_dict"]["weight"], model.weight)
        assert loaded["val_result"] == 91.5
        assert not isinstance(loaded["scheduler"]["successor"], type(cosine))


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


def test_logger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    logger = utils.setup_logger(tmp_path / "run")
    assert logger is not None
    with logger:
        print("hello")
        print("bar", file=sys.stderr)
    assert sys.stdout is before
    assert (tmp_path / "run" / "log.txt").read_text() == "hello\n"
    assert capsys.readouterr().out == "hello\n"
    second = utils.setup_logger(tmp_path / "run")
    assert second is not None
    with second:
        print("again")
    assert second.path is not None
    assert second.path.name.startswith("log.txt-20")
    assert (tmp_path / "run" / "log.txt").read_text() == "hello\n"
    assert utils.setup_logger(None) is None


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


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(1, 9)), min_size=1))
def test_average_meter(values: list[tuple[float, int]]) -> None:
    plain, tensors = utils.AverageMeter(), utils.AverageMeter()
    for value, n in values:
        plain.update(value, n)
        tensors.update(torch.tensor(value, dtype=torch.float64), n)
    count = sum(n for _, n in values)
    mean = sum(v * n for v, n in values) / count
    assert plain.avg == pytest.approx(mean, abs=1e-6)
    assert (plain.val, plain.avg, plain.sum) == (tensors.val, tensors.avg, tensors.sum)
    assert plain.count == count


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


def test_registry() -> None:
    registry = utils.Registry("ANIMAL")
    with pytest.raises(UserError, match="nothing is registered"):
        registry.get("Cat")

    @registry.register()
    class Cat:
        pass

    class Dog:
        pass

    registry.register(Dog)
    assert registry.get("Cat") is Cat
    assert registry.registered_names() == ["Cat", "Dog"]
    with pytest.raises(KeyError):
        registry.register(Dog)
    registry.register(Dog, force=True)
    with pytest.raises(UserError, match=r'"cta" is not .* did you mean "Cat"'):
        registry.get("cta")


def test_layers() -> None:
    body, head = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)
    model = nn.Sequential(OrderedDict(body=body, head=head))
    utils.open_specified_layers(model, "head")
    assert not body.training
    assert not body.weight.requires_grad
    assert head.weight.requires_grad
    with pytest.raises(ValueError, match="tail"):
        utils.open_specified_layers(model, ["tail"])
    utils.open_all_layers(model)
    assert body.training
    assert body.weight.requires_grad
    assert body.bias is not None
    assert utils.count_num_param(model) == 2 * 9 + 2 + 4
    assert utils.count_num_param(params=body.bias) == 2
    for kind in ("normal", "xavier", "kaiming", "orthogonal"):
        utils.init_network_weights(model, kind)
        assert not body.bias.any()
    with pytest.raises(ValueError, match="zeros"):
        utils.init_network_weights(model, "zeros")


def test_small_helpers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (".hidden", "b", "a"):
        (tmp_path / name).touch()
    assert utils.listdir_nohidden(tmp_path, sort=True) == ["a", "b"]
    assert utils.check_isfile(tmp_path / "a") and not utils.check_isfile(tmp_path / "c")
    assert "No file found" in capsys.readouterr().out
    assert utils.tolist_if_not(1) == utils.tolist_if_not([1]) == [1]
    assert f"torch: {torch.__version__.split('+')[0]}" in utils.collect_env_info()
    utils.write_json({"ä": 1}, tmp_path / "deep" / "x.json")
    assert json.loads((tmp_path / "deep" / "x.json").read_text(encoding="utf-8")) == {"ä": 1}
