"""Few-shot samples in pickles of CoOp and Dassl: third-party code loads them, ours compares."""

import json
import pickle
import pickletools
import sys
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import dassl.data.datasets.base_dataset as ours
from dassl.data.datasets import Datum
from dassl.data.datasets.coop_fewshot import LARGEST, read_sample
from tests.helpers.dassl_toy import Squares, make_split, toy_config

pytestmark = pytest.mark.usefixtures("toys")

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class DasslDatum:
    """Pickles as Dassl's `Datum`: its attributes by name."""

    def __init__(self, impath: str, label: int, classname: str) -> None:
        self._impath, self._label, self._domain, self._classname = impath, label, 0, classname


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_split(tmp_path / "data")


def pickled(content: object, protocol: int) -> bytes:
    """A pickle as Dassl's code writes it: its class has the name and place of ours."""
    elsewhere = ModuleType("dassl.data.datasets.base_dataset")
    kind = type("Datum", (DasslDatum,), {"__module__": elsewhere.__name__})
    elsewhere.Datum = kind  # type: ignore[attr-defined]

    def converted(value: Any) -> Any:
        if isinstance(value, Datum):
            return kind(value.impath, value.label, value.classname)
        if isinstance(value, dict):
            return {key: converted(entry) for key, entry in value.items()}
        return [converted(entry) for entry in value]

    sys.modules[elsewhere.__name__] = elsewhere
    try:
        return pickle.dumps(converted(content), protocol)
    finally:
        sys.modules[elsewhere.__name__] = ours


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_third_party_code_loads_dassls_pickles(protocol: int) -> None:
    items = [Datum("/a/train.jpg", 1, 0, "train"), Datum("/b.jpg", 0, 0, "val")]
    data = pickled({"train": items, "val": items[1:]}, protocol)
    read = pickle.loads(data)
    assert read == {"train": items, "val": items[1:]}
    assert (read["train"][0]._impath, read["train"][0].classname) == ("/a/train.jpg", "train")


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_our_items_can_be_pickled_and_copied(protocol: int) -> None:
    item = Datum("/a.jpg", 3, 2, "owl")
    assert pickle.loads(pickle.dumps(item, protocol)) == deepcopy(item) == item
    assert item.__getstate__() == {
        **{"_impath": "/a.jpg", "_label": 3, "_domain": 2, "_classname": "owl"}
    }


@pytest.mark.parametrize("state", [{"_impath": 3}, {"_impath": "a", "_label": -1}, {"_impath": ""}])
def test_wrong_states(state: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        Datum("a.jpg").__setstate__(state)


def drawn(root: Path, *opts: str) -> tuple[Squares, str]:
    dataset = Squares(toy_config(root, root, "DATASET.NUM_SHOTS", "2", *opts))
    return dataset, str(root / "squares" / "split_fewshot" / "shot_2-seed_1.pkl")


def write(path: str, content: object, protocol: int = 4) -> None:
    Path(path).write_bytes(pickled(content, protocol))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_warning_if_the_samples_differ(
    protocol: int, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, path = drawn(root)
    train, val = dataset.train_x or [], dataset.val or []
    capsys.readouterr()
    # The same sample, also of a folder elsewhere; ImageNet's file has no val.
    moved = [Datum(i.impath.replace(str(root), "/home/x"), i.label, 0, "c") for i in train]
    windows = [Datum(i.impath.replace("/", "\\"), i.label, 0, "c") for i in train]
    for same in ({"train": train, "val": val}, {"train": moved}, {"train": windows}):
        write(path, same, protocol)
        assert drawn(root)[0].train_x == train
        assert "shot_2-seed_1.pkl" not in capsys.readouterr().out
    whole = Squares(toy_config(root, root, "DATASET.NUM_SHOTS", "-1"))
    others = [item for item in whole.train_x or [] if item not in train][:3]
    write(path, {"train": [*train[3:], *others], "val": [*val, val[0]]}, protocol)
    capsys.readouterr()
    assert drawn(root)[0].train_x == train
    (line,) = [text for text in capsys.readouterr().out.splitlines() if path in text]
    assert line == (
        f"Warning: {path} contains another sample of 2 shots with seed 1 and is not used: 3 of "
        "its 8 train images are not in our 8, 1 of its 9 val images are not in our 8"
    )


class _Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("raise SystemExit('run')",)


def test_unreadable_pickles_are_ignored(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset, name = drawn(root)
    path = Path(name)
    write(name, {"train": dataset.train_x or []})
    whole = path.read_bytes()
    texts = pickle.dumps(["_impath"] * 3)
    contents = [b"", b"no pickle", whole[:300], whole[:-40] + b"\xff" * 40, texts]
    contents += [pickle.dumps({"train": [_Bomb()]}), b"\x80\x04h\x07.", b"\x80\x04p.\n", b"g-1\n."]
    contents += [
        json.dumps({"train": []}).encode(),
        b"\x80\x04\x8d" + b"\xff" * 8,
        b"\x80\x04L1L\n.",
    ]
    for content in contents:
        path.write_bytes(content)
        capsys.readouterr()
        assert drawn(root)[0].train_x == dataset.train_x
        (line,) = [text for text in capsys.readouterr().out.splitlines() if name in text]
        assert (
            line == f"Warning: {name} cannot be read as a few-shot sample of CoOp, and is not used"
        )
    with path.open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(ValueError, match="more than"):
        read_sample(path)


def test_no_pickle_is_loaded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, name = drawn(root)
    write(name, {"train": dataset.train_x or [], "val": dataset.val or []})
    monkeypatch.setattr(pickle, "Unpickler", None)
    monkeypatch.setattr(pickle, "loads", None)
    monkeypatch.setattr(pickle, "load", None)
    paths = [item.impath for item in dataset.train_x or []]
    assert read_sample(Path(name))["train"] == paths
    assert pickletools.__name__ in sys.modules
