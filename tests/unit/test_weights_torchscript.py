"""TorchScript archives are read without torch.jit, and none of their code runs."""

import io
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clip.build import convert_weights
from clip.errors import WeightsError
from clip.model import CLIP
from clip.torchscript import is_torchscript, read_torchscript
from clip.weights import load_clip
from tests.golden import arrays, assert_same_clip, images, tiny_clip
from tests.helpers.weights_files import Call


def _archive(model: CLIP, arch: str, path: Path) -> None:
    """Trace as OpenAI did, with the settings and masks of their archives."""
    for block in model.transformer.blocks:
        block.register_buffer("attn_mask", torch.full((77, 77), float("-inf")).triu(1))
    for name, value in (("input_resolution", 32), ("context_length", 77), ("vocab_size", 49408)):
        if hasattr(model, name):
            delattr(model, name)
        model.register_buffer(name, torch.tensor(value))
    example = (images(arch), arrays(f"clip_base_{arch}.npz")["tokens"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; only this test still needs it
        torch.jit.trace(model, example, check_trace=False).save(str(path))


@pytest.mark.parametrize("arch", ["vit", "rn"])
def test_an_archive_gives_the_model(
    arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = tiny_clip(arch), tmp_path / "archive.pt"
    _archive(model, arch, path)
    assert is_torchscript(path)
    assert "transformer.resblocks.0.attn_mask" in read_torchscript(path)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("torch.jit was called")

    monkeypatch.setattr(torch.jit, "load", refuse)
    loaded = load_clip(str(path), transformer_heads=2)
    assert_same_clip(loaded.model, tiny_clip(arch), arch)


def test_a_half_precision_archive_becomes_fp32(tmp_path: Path) -> None:
    model = tiny_clip("vit")
    convert_weights(model)
    _archive(model, "vit", tmp_path / "archive.pt")
    tensors = read_torchscript(tmp_path / "archive.pt")
    assert tensors["visual.conv1.weight"].dtype == torch.float16
    assert tensors["ln_final.weight"].dtype == torch.float32
    assert load_clip(str(tmp_path / "archive.pt"), transformer_heads=2).model.dtype == torch.float32


def test_a_scripted_module_with_all_kinds_of_attributes(tmp_path: Path) -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.arange(6.0).reshape(2, 3).t())
            self.sizes = [1, 2, 3]
            self.names = {"a": 1}

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()
            self.again = self.inner
            self.register_buffer("steps", torch.tensor(7))

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    module, path = Outer(), tmp_path / "scripted.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module).save(str(path))
    tensors = read_torchscript(path)
    assert torch.equal(tensors["inner.weight"], module.inner.weight)
    assert torch.equal(tensors["steps"], torch.tensor(7))
    with pytest.raises(WeightsError, match="not that of a CLIP"):
        load_clip(str(path))


def _write_archive(path: Path, data: bytes, storages: dict[str, bytes] | None = None) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("evil/data.pkl", data)
        archive.writestr("evil/constants.pkl", b"\x80\x02).")
        for key, value in (storages or {}).items():
            archive.writestr(f"evil/data/{key}", value)


@pytest.mark.parametrize(
    "function", [os.system, eval, exec, pickle.loads, torch.load, getattr, __import__]
)
def test_a_call_is_refused_and_not_made(function: Any, tmp_path: Path) -> None:
    mark = tmp_path / "touched"
    command = f"touch {mark}" if function is os.system else f"open({str(mark)!r}, 'w')"
    _write_archive(tmp_path / "evil.pt", pickle.dumps(Call(function, command), protocol=2))
    with pytest.raises(WeightsError, match=r"evil\.pt is not a usable TorchScript archive"):
        load_clip(str(tmp_path / "evil.pt"))
    assert not mark.exists()


def test_allowed_names_do_nothing(tmp_path: Path) -> None:
    """A call of a name that looks like the archive's own code becomes a record."""
    mark = tmp_path / "touched"
    argument = f"touch {mark}".encode()
    text = b"X" + len(argument).to_bytes(4, "little") + argument
    call = b"c__torch__.os\nsystem\n" + text + b"\x85R"
    # A module whose attribute "a" is the result of that call.
    pickled = b"\x80\x02c__torch__\nModule\n)\x81}X\x01\x00\x00\x00a" + call + b"sb."
    _write_archive(tmp_path / "evil.pt", pickled)
    assert read_torchscript(tmp_path / "evil.pt") == {}
    assert not mark.exists()


def test_a_module_without_state_is_refused(tmp_path: Path) -> None:
    _write_archive(tmp_path / "empty.pt", b"\x80\x02c__torch__\nModule\n)\x81.")
    assert read_torchscript(tmp_path / "empty.pt") == {}
    with pytest.raises(WeightsError, match="no state dict"):
        load_clip(str(tmp_path / "empty.pt"))


@pytest.mark.parametrize(
    "pickled",
    [
        # a state for a name instead of an object
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb.",
        # a module that contains itself
        b"\x80\x02c__torch__\nModule\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb.",
    ],
)
def test_impossible_states_are_refused(pickled: bytes, tmp_path: Path) -> None:
    _write_archive(tmp_path / "evil.pt", pickled)
    with pytest.raises(WeightsError, match="not a usable TorchScript archive"):
        read_torchscript(tmp_path / "evil.pt")
    assert not hasattr(torch._utils._rebuild_tensor_v2, "a")


@pytest.mark.parametrize(
    ("size", "offset", "data"),
    [((100,), 0, b"\0" * 16), ((4,), 3, b"\0" * 16), ((4,), 0, b"\0" * 3), ((4,), 0, None)],
)
def test_tensors_cannot_reach_beyond_their_storage(
    size: tuple[int, ...], offset: int, data: bytes | None, tmp_path: Path
) -> None:
    class Storage(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", 4) if obj is mark else None

    mark = object()
    stream = io.BytesIO()
    rebuild = Call(torch._utils._rebuild_tensor_v2, mark, offset, size, (1,), False, None)
    Storage(stream, protocol=2).dump({"weight": rebuild})
    body = stream.getvalue().removeprefix(b"\x80\x02").removesuffix(b".")
    pickled = b"\x80\x02c__torch__\nModule\n)\x81" + body + b"b."
    _write_archive(tmp_path / "evil.pt", pickled, {"0": data} if data is not None else {})
    with pytest.raises(WeightsError, match="not a usable TorchScript archive"):
        read_torchscript(tmp_path / "evil.pt")


@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_a_damaged_archive(keep: float, tmp_path: Path) -> None:
    model, path = tiny_clip("vit"), tmp_path / "archive.pt"
    _archive(model, "vit", path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(WeightsError, match=r"archive\.pt"):
        load_clip(str(path), transformer_heads=2)
