"""Weights as training programs save them: inside wrappers, with prefixes, next to other objects."""

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
from torch import nn

from clip.model import CLIP
from clip.weights import load_clip
from tests.fuzz.seeds import tiny_clip
from tests.helpers.weights_files import (
    HEADS,
    Call,
    State,
    load,
    refused,
    refused_path,
    state_of,
    tiny_resnet,
)


@pytest.fixture
def state() -> State:
    return state_of(tiny_clip())


def assert_weights(loaded: Any, state: State) -> None:
    found = loaded.model.state_dict()
    assert set(found) == set(state)
    assert all(torch.equal(found[key], state[key]) for key in state)


WRAPPERS = (
    *("state_dict", "model_state_dict", "state_dict_ema", "model_ema", "model", "ema", "net"),
    *("module", "params", "my_clip"),
)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_are_opened(wrapper: str, state: State, tmp_path: Path) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    for inner, name in (
        (state, wrapper),
        ({"state_dict": state, "epoch": 1}, f"{wrapper}.state_dict"),
    ):
        loaded = load({wrapper: inner, "epoch": 3, "optimizer": optimizer}, tmp_path)
        assert_weights(loaded, state)
        assert loaded.wrapper == name
        assert f"in {loaded.wrapper!r}" in loaded.summary()


def test_an_average_next_to_the_model_is_not_taken(state: State, tmp_path: Path) -> None:
    average = {key: value * 0.5 for key, value in state.items()}
    loaded = load({"state_dict_ema": average, "state_dict": state}, tmp_path)
    assert_weights(loaded, state)
    assert loaded.wrapper == "state_dict"
    assert_weights(load({"ema": average, "model": state, "mine": average}, tmp_path), state)
    refused({"model": {"a": average, "b": state}}, tmp_path, "several CLIPs .*model.a.*model.b")
    two = {"teacher": average, "student": state}
    refused(two, tmp_path, "several CLIPs .*'teacher', 'student'")


PREFIXES = (
    *("module.", "model.", "clip.", "clip_model.", "_orig_mod.", "module.model.", "model.module."),
    *("_orig_mod.module.", "module._orig_mod.clip_model.", "net/", "image.encoder."),
)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("make", [tiny_clip, tiny_resnet])
def test_one_common_prefix_is_stripped(
    prefix: str, make: Callable[[], CLIP], tmp_path: Path
) -> None:
    state = state_of(make())
    loaded = load({"state_dict": {f"{prefix}{key}": state[key] for key in state}}, tmp_path)
    assert_weights(loaded, state)
    assert loaded.prefix == prefix.replace("_orig_mod.", "")
    assert not loaded.prefix or f"without the prefix {loaded.prefix!r}" in loaded.summary()


def test_mixed_prefixes(state: State, tmp_path: Path) -> None:
    prefixed = {f"model.{key}": state[key] for key in state}
    refused({**prefixed, "head.weight": torch.ones(1)}, tmp_path, "'head.weight' does not")
    refused({**prefixed, **{f"ema.{key}": state[key] for key in state}}, tmp_path, "'ema.*does not")
    compiled = {key.replace("visual.", "visual._orig_mod."): state[key] for key in state}
    assert_weights(load(compiled, tmp_path), state)
    refused({**compiled, **state}, tmp_path, "entries twice")
    custom = {
        key if key.startswith(("visual.", "logit")) else f"text.{key}": state[key] for key in state
    }
    assert_weights(load({f"module.{key}": custom[key] for key in custom}, tmp_path), state)
    refused({**custom, **state}, tmp_path, "two text encoders")


class Colour(enum.Enum):
    RED = 1


class Settings(dict[str, Any]):
    pass


class Notes(list[Any]):
    pass


class Program:
    def __init__(self) -> None:
        self.name = "train"


SGD = torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1)
BESIDE: dict[str, Any] = {
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
    "scheduler": torch.optim.lr_scheduler.StepLR(SGD, 3),
    "function": nn.functional.gelu,
}


@pytest.mark.parametrize("name", BESIDE)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
def test_objects_next_to_the_weights(name: str, legacy: bool, state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    half = {key: value.half() for key, value in state.items()}
    parameters = {key: nn.Parameter(value) for key, value in half.items()}
    content = {"args": BESIDE[name], "state_dict": parameters}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    loaded = load_clip(str(path), **HEADS)
    assert_weights(loaded, {key: value.float() for key, value in half.items()})


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("function", [os.system, eval, exec, __import__, getattr, torch.load])
def test_calls_are_named_and_not_made(
    function: Any, legacy: bool, state: State, tmp_path: Path
) -> None:
    mark, path = tmp_path / "touched", tmp_path / "weights.pt"
    command = f"touch {mark}" if function is os.system else f"open({str(mark)!r}, 'w')"
    content = {"state_dict": state, "more": Call(function, command)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    name = "load" if function is torch.load else function.__name__
    refused_path(path, rf"more than weights: it requests [\w.]+\.{name},", **HEADS)
    assert not mark.exists()


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.Linear(2, 2)


def test_a_whole_model_is_refused_by_its_class(state: State, tmp_path: Path) -> None:
    refused(Whole(), tmp_path, rf"an object of {Whole.__module__}\.Whole, not a state dict")
    refused({**state, "epoch": Program()}, tmp_path, r"'epoch' is not a tensor.*Program")


def test_the_content_counts_and_not_the_suffix(state: State, tmp_path: Path) -> None:
    save_file(state, tmp_path / "weights.pt")
    assert_weights(load_clip(str(tmp_path / "weights.pt"), **HEADS), state)
    assert_weights(load({"state_dict": state}, tmp_path, "weights.safetensors"), state)
    torch.save(state, tmp_path / "old.safetensors", _use_new_zipfile_serialization=False)
    assert_weights(load_clip(str(tmp_path / "old.safetensors"), **HEADS), state)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"
    (tmp_path / "model.safetensors").write_text(pointer)
    refused_path(tmp_path / "model.safetensors", "git lfs pull")


def test_shared_objects_are_read_once(state: State, tmp_path: Path) -> None:
    """A thousand entries that each hold a thousand times the same dictionary, and one storage."""
    small: dict[Any, Any] = dict.fromkeys(range(1000), "text")
    middle = dict.fromkeys(range(1000), small)
    state["ln_final.bias"] = state["ln_final.weight"]
    content = {"more": dict.fromkeys(range(1000), middle), "model": state, "path": Program()}
    loaded = load(content, tmp_path)
    assert_weights(loaded, state)
    norm = loaded.model.ln_final
    assert norm.bias.data_ptr() != norm.weight.data_ptr()
