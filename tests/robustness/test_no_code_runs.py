"""No file that a user could have downloaded is ever run: the whole tree is held to it."""

import ast
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from clip.download import MODELS
from clip.errors import WeightsError
from clip.weights import load_clip
from dassl.utils import load_checkpoint
from safeio.errors import UserError

HOUSE = Path(__file__).parents[2]
OURS = ("safeio", "clip", "dassl", "datasets", "trainers", "nemesis", "benchmarks", "tools")
# Calls that run what they are given, or let a file decide what runs.
NEVER = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load"),
    *("pickle.loads", "dill.load", "dill.loads", "joblib.load", "marshal.load", "marshal.loads"),
    *("shelve.open", "torch.jit.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load"),
    *("pandas.read_pickle", "runpy.run_path", "scipy.io.loadmat", "loadmat"),
}
# Beneath what may not be called, what may be built upon with care, and where that is.
SUBCLASSES = {"pickle.Unpickler": ["safeio/pickles.py"]}


def _files() -> Iterator[Path]:
    yield from HOUSE.glob("*.py")
    for folder in OURS:
        yield from (HOUSE / folder).rglob("*.py")


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


def test_no_call_in_the_whole_tree_runs_what_a_file_holds() -> None:
    files = list(_files())
    assert len(files) > 100
    wrong = [
        f"{path.relative_to(HOUSE)}:{node.lineno}: {ast.unparse(node)}"
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and _wrong(node)
    ]
    assert wrong == []


def test_names_that_run_code_are_not_imported_by_themselves() -> None:
    """`from pickle import loads` would go past the test above."""
    hidden = {name.rpartition(".")[::2] for name in NEVER if "." in name}
    hidden |= {("torch", "load"), ("numpy", "load")}
    found = [
        f"{path.relative_to(HOUSE)}: {node.module}.{alias.name}"
        for path in _files()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if (node.module, "", alias.name)[::2] in hidden
    ]
    assert found == []


def test_unpicklers_and_yaml_loaders_are_built_upon_in_one_place_each() -> None:
    bases: dict[str, list[str]] = {}
    for path in _files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for base in getattr(node, "bases", []) if isinstance(node, ast.ClassDef) else []:
                bases.setdefault(_name(base), []).append(path.relative_to(HOUSE).as_posix())
    assert {name: bases.get(name) for name in SUBCLASSES} == SUBCLASSES
    loaders = {name for name in bases if name.startswith("yaml.") and name.endswith("Loader")}
    assert loaders == {"yaml.SafeLoader"}


class _Touch:
    """Pickles into a call of os.system."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
def test_a_checkpoint_cannot_run_a_command(legacy: bool, tmp_path: Path) -> None:
    mark, path = tmp_path / "touched", tmp_path / "evil.pt"
    content = {"state_dict": {}, "epoch": 1, "optimizer": _Touch(f"touch {mark}")}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError, match="could run code"):
        load_checkpoint(path)
    with pytest.raises(WeightsError, match="contains more than weights"):
        load_clip(str(path))
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match="is refused"):
        load_checkpoint(path)
    assert not mark.exists()


def test_the_published_archives_are_known_by_their_hashes() -> None:
    assert len(MODELS) == 9
    for address in MODELS.values():
        digest = address.split("/")[-2]
        assert address.startswith("https://") and len(digest) == 64 and int(digest, 16)
