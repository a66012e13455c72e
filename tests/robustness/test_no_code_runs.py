"""No code in a downloaded file is ever run: rules for the whole tree, and malicious files."""

import ast
import functools
import os
import pickle
from pathlib import Path

import pytest
import torch

from clip.errors import WeightsError
from clip.weights import load_clip
from dassl.utils import load_checkpoint
from safeio.errors import UserError
from tests.helpers.runs import ROOT
from tests.helpers.weights_files import Call

OURS = ("safeio", "clip", "dassl", "datasets", "trainers", "nemesis", "benchmarks", "tools")
# Calls that run their argument, or let a file decide which code runs.
NEVER = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load"),
    *("pickle.loads", "dill.load", "dill.loads", "joblib.load", "marshal.load", "marshal.loads"),
    *("shelve.open", "torch.jit.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load"),
    *("pandas.read_pickle", "runpy.run_path", "scipy.io.loadmat", "loadmat"),
}
# Classes that may be subclassed, and the one place where they are.
SUBCLASSES = {"pickle.Unpickler": ["safeio/pickles.py"]}


@functools.cache
def _nodes() -> list[tuple[str, ast.AST]]:
    """(file, node) of every node of every file."""
    files = [*ROOT.glob("*.py"), *(path for name in OURS for path in (ROOT / name).rglob("*.py"))]
    assert len(files) > 100
    return [
        (path.relative_to(ROOT).as_posix(), node)
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    ]


def _name(node: ast.expr) -> str:
    """`a.b.c` of an expression; "" for any other."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and _name(node.value):
        return f"{_name(node.value)}.{node.attr}"
    return ""


def _keyword(call: ast.Call, name: str) -> object:
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value.value if isinstance(keyword.value, ast.Constant) else keyword.value
    return None


def _wrong(call: ast.Call) -> bool:
    name = _name(call.func)
    if name == "torch.load":
        return _keyword(call, "weights_only") is not True
    return (
        name in NEVER
        or _keyword(call, "shell") not in (None, False)
        or _keyword(call, "allow_pickle") not in (None, False)
        or (name.endswith(".extractall") and _keyword(call, "filter") != "data")
    )


def test_no_call_runs_the_content_of_a_file() -> None:
    wrong = [
        f"{path}:{node.lineno}: {ast.unparse(node)}"
        for path, node in _nodes()
        if isinstance(node, ast.Call) and _wrong(node)
    ]
    assert wrong == []


def test_names_that_run_code_are_not_imported() -> None:
    """`from pickle import loads` would evade the test above."""
    hidden = {name.rpartition(".")[::2] for name in NEVER if "." in name}
    hidden |= {("torch", "load"), ("numpy", "load")}
    found = [
        f"{path}: {node.module}.{alias.name}"
        for path, node in _nodes()
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if (node.module, alias.name) in hidden
    ]
    assert found == []


def test_unpicklers_and_yaml_loaders_have_one_subclass() -> None:
    bases: dict[str, list[str]] = {}
    for path, node in _nodes():
        for base in node.bases if isinstance(node, ast.ClassDef) else []:
            bases.setdefault(_name(base), []).append(path)
    assert {name: bases.get(name) for name in SUBCLASSES} == SUBCLASSES
    loaders = {name for name in bases if name.startswith("yaml.") and name.endswith("Loader")}
    assert loaders == {"yaml.SafeLoader"}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
def test_a_checkpoint_cannot_run_a_command(legacy: bool, tmp_path: Path) -> None:
    mark, path = tmp_path / "touched", tmp_path / "evil.pt"
    content = {"state_dict": {}, "epoch": 1, "optimizer": Call(os.system, f"touch {mark}")}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError, match="could run code"):
        load_checkpoint(path)
    with pytest.raises(WeightsError, match="contains more than weights"):
        load_clip(str(path))
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match="is refused"):
        load_checkpoint(path)
    assert not mark.exists()
