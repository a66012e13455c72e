"""Weights as training programs save them: in wrappers, with prefixes, next to other objects."""

import argparse
import collections
import datetime
import enum
import os
import pathlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from clip.config import CLIPConfig
from clip.errors import WeightsError
from clip.model import CLIP
from clip.weights import load_clip
from tests.fuzz.seeds import tiny_clip

HEADS: dict[str, Any] = {"transformer_heads": 2, "vision_heads": 2}
State = dict[str, Any]


def tiny_resnet() -> CLIP:
    torch.manual_seed(0)
    small = {"context_length": 8, "vocab_size": 16, "transformer_width": 8, "transformer_layers": 1}
    config = CLIPConfig(8, 32, (1, 1, 1, 1), 4, None, **small, **HEADS)
    return CLIP(config).eval()


def state_of(model: CLIP) -> State:
    return {key: value.clone() for key, value in model.state_dict().items()}


def load(content: Any, folder: Path, name: str = "weights.pt") -> Any:
    torch.save(content, folder / name)
    return load_clip(str(folder / name), **HEADS)


def assert_weights(loaded: Any, state: State) -> None:
    found = loaded.model.state_dict()
    assert set(found) == set(state)
    assert all(torch.equal(found[key], state[key]) for key in state)


def refused(content: Any, folder: Path, part: str) -> None:
    with pytest.raises(WeightsError, match=part) as raised:
        load(content, folder)
    assert "\n" not in str(raised.value)
    assert str(folder / "weights.pt") in str(raised.value)


WRAPPERS = (
    *("state_dict", "model_state_dict", "state_dict_ema", "model_ema", "model", "ema", "net"),
    *("module", "params", "my_clip"),
)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("nested", [False, True])
def test_wrappers(wrapper: str, nested: bool, tmp_path: Path) -> None:
    state = state_of(tiny_clip())
    inner: Any = {"state_dict": state, "epoch": 1} if nested else state
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    loaded = load({wrapper: inner, "epoch": 3, "optimizer": optimizer}, tmp_path)
    assert_weights(loaded, state)
    assert loaded.wrapper == (f"{wrapper}.state_dict" if nested else wrapper)
    assert f"in {loaded.wrapper!r}" in loaded.summary()


def test_the_model_has_precedence_over_its_average(tmp_path: Path) -> None:
    state = state_of(tiny_clip())
    average = {key: value * 0.5 for key, value in state.items()}
    loaded = load({"state_dict_ema": average, "state_dict": state}, tmp_path)
    assert_weights(loaded, state)
    assert loaded.wrapper == "state_dict"
    refused({"model": {"a": average, "b": state}}, tmp_path, "several CLIPs .*model.a.*model.b")
    assert_weights(load({"ema": average, "model": state, "mine": average}, tmp_path), state)
    refused(
        {"teacher": average, "student": state}, tmp_path, "several CLIPs .*'teacher', 'student'"
    )


PREFIXES = (
    *("module.", "model.", "clip.", "clip_model.", "_orig_mod.", "module.model.", "model.module."),
    *("_orig_mod.module.", "module._orig_mod.clip_model.", "net/", "image.encoder."),
)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("make", [tiny_clip, tiny_resnet])
def test_prefixes(prefix: str, make: Callable[[], CLIP], tmp_path: Path) -> None:
    state = state_of(make())
    loaded = load({"state_dict": {f"{prefix}{key}": state[key] for key in state}}, tmp_path)
    assert_weights(loaded, state)
    assert loaded.prefix == prefix.replace("_orig_mod.", "")
    assert not loaded.prefix or f"without the prefix {loaded.prefix!r}" in loaded.summary()


def test_a_compiled_encoder(tmp_path: Path) -> None:
    state = state_of(tiny_clip())
    compiled = {key.replace("visual.", "visual._orig_mod."): state[key] for key in state}
    assert_weights(load(compiled, tmp_path), state)
    refused({**compiled, **state}, tmp_path, "entries twice")


def test_a_custom_text_encoder_with_a_prefix(tmp_path: Path) -> None:
    state = state_of(tiny_clip())
    custom = {
        f"module.{key if key.startswith(('visual.', 'logit')) else f'text.{key}'}": state[key]
        for key in state
    }
    assert_weights(load({"state_dict": custom}, tmp_path), state)
    both = {**{key.removeprefix("module."): custom[key] for key in custom}, **state}
    refused(both, tmp_path, "two text encoders")


def test_different_prefixes_are_refused(tmp_path: Path) -> None:
    state = state_of(tiny_clip())
    prefixed = {f"model.{key}": state[key] for key in state}
    refused({**prefixed, "head.weight": torch.ones(1)}, tmp_path, "'head.weight' does not")
    refused({**prefixed, **{f"ema.{key}": state[key] for key in state}}, tmp_path, "'ema.*does not")


class Colour(enum.Enum):
    RED = 1


class Settings(dict[str, Any]):
    pass


class Notes(list[Any]):
    pass


class Program:
    def __init__(self) -> None:
        self.name = "train"


def _objects() -> dict[str, Any]:
    schedule = torch.optim.lr_scheduler.StepLR(
        torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1), 3
    )
    return {
        "numpy": np.float64(3),
        "integer": np.int64(3),
        "array": np.ones(3),
        "args": argparse.Namespace(lr=0.1, output=pathlib.Path("/tmp/x")),
        "path": pathlib.PurePosixPath("/tmp"),
        "order": collections.OrderedDict(a=1),
        "lists": collections.defaultdict(list, {1: [2]}),
        "dtype": torch.float16,
        "size": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "when": datetime.datetime(2024, 1, 1),
        "duration": datetime.timedelta(seconds=3),
        "enum": Colour.RED,
        "dict": Settings(a=1),
        "list": Notes([1, 2]),
        "set": {pathlib.PurePosixPath("a"), frozenset([1])},
        "keys": {pathlib.PurePosixPath("a"): 1},
        "complex": 1j,
        "bytes": b"abc",
        "version": torch.__version__,
        "object": Program(),
        "scheduler": schedule,
        "function": nn.functional.gelu,
    }


@pytest.mark.parametrize("name", _objects())
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
def test_objects_next_to_the_weights(name: str, legacy: bool, tmp_path: Path) -> None:
    state, path = state_of(tiny_clip()), tmp_path / "weights.pt"
    half = {key: value.half() for key, value in state.items()}
    parameters = {key: nn.Parameter(value) for key, value in half.items()}
    content = {"args": _objects()[name], "state_dict": parameters}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    loaded = load_clip(str(path), **HEADS)
    assert_weights(loaded, {key: value.float() for key, value in half.items()})


class _Call:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("function", [os.system, eval, exec, __import__, getattr, torch.load])
def test_calls_are_named_and_not_made(function: Any, legacy: bool, tmp_path: Path) -> None:
    mark, path = tmp_path / "touched", tmp_path / "weights.pt"
    command = f"touch {mark}" if function is os.system else f"open({str(mark)!r}, 'w')"
    content = {"state_dict": state_of(tiny_clip()), "more": _Call(function, command)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    name = "load" if function is torch.load else function.__name__
    with pytest.raises(WeightsError, match=rf"more than weights: it requests [\w.]+\.{name},"):
        load_clip(str(path), **HEADS)
    assert not mark.exists()


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.Linear(2, 2)


def test_a_whole_model_is_named(tmp_path: Path) -> None:
    refused(Whole(), tmp_path, rf"an object of {Whole.__module__}\.Whole, not a state dict")
    refused(
        {**state_of(tiny_clip()), "epoch": Program()}, tmp_path, r"'epoch' is not a tensor.*Program"
    )


def test_the_content_determines_the_format(tmp_path: Path) -> None:
    state = state_of(tiny_clip())
    save_file(state, tmp_path / "weights.pt")
    assert_weights(load_clip(str(tmp_path / "weights.pt"), **HEADS), state)
    assert_weights(load({"state_dict": state}, tmp_path, "weights.safetensors"), state)
    torch.save(state, tmp_path / "old.safetensors", _use_new_zipfile_serialization=False)
    assert_weights(load_clip(str(tmp_path / "old.safetensors"), **HEADS), state)


def test_a_pointer_of_git_lfs(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
    with pytest.raises(WeightsError, match="git lfs pull"):
        load_clip(str(path))


def test_a_shared_dictionary_is_read_once(tmp_path: Path) -> None:
    """A thousand entries that each contain the same dictionary a thousand times."""
    small: dict[Any, Any] = dict.fromkeys(range(1000), "text")
    middle = dict.fromkeys(range(1000), small)
    content = {"more": dict.fromkeys(range(1000), middle), "model": state_of(tiny_clip())}
    assert_weights(load({**content, "path": Program()}, tmp_path), state_of(tiny_clip()))


def test_tensors_of_one_storage(tmp_path: Path) -> None:
    state = state_of(tiny_clip())
    shared: Tensor = state["ln_final.weight"]
    state["ln_final.bias"] = shared
    loaded = load({"state_dict": state, "path": Program()}, tmp_path)
    assert torch.equal(loaded.model.ln_final.bias, shared)
    assert loaded.model.ln_final.bias.data_ptr() != loaded.model.ln_final.weight.data_ptr()
