"""Reads pickles of torch.save without running anything that they carry.

A pickle becomes a tree of inert records: every name in it turns into a class that does nothing, and
the tensors are put together from the records afterwards. Names that have no place beside weights
are refused all the same.
"""

import pickle
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from safeio.pickles import LEGACY_PICKLES, check_file, check_tensors

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
MOST_LEVELS = 4  # of dictionaries in which weights are looked for
TENSOR = "torch._utils._rebuild_tensor_v2"
_PARAMETER = "torch._utils._rebuild_parameter"

# What comes with Python is on this list, because some of it runs commands when it is called.
_DATA_MODULES = {
    *("argparse", "collections", "datetime", "decimal", "enum", "fractions", "pathlib", "uuid"),
    *("pathlib._local", "zoneinfo"),
}
_DATA_NAMES = {
    *("types.SimpleNamespace", "functools.partial", "copyreg._reconstructor", "_codecs.encode"),
    *("builtins.bool", "builtins.bytearray", "builtins.bytes", "builtins.complex", "builtins.dict"),
    *("builtins.float", "builtins.frozenset", "builtins.int", "builtins.list", "builtins.object"),
    *("builtins.range", "builtins.set", "builtins.slice", "builtins.str", "builtins.tuple"),
}
_OLD_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # which protocol 2 writes
_LOADERS = r"(torch\.(load|hub|jit|package|serialization)|numpy\.load)\b"


class RefusedName(pickle.UnpicklingError):
    """A pickle asks for something that has no place beside weights."""


class Record(dict[Any, Any]):
    """Inert stand-in for any call or object in the pickle: records name, arguments and state.

    It accepts the items of dictionaries, lists and sets, so that it can stand for their subclasses,
    too, and stores those of dictionaries alone.
    """

    origin = ""
    # Objects are made without a call of __init__, and need not be given a state.
    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state

    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__

    def append(self, item: Any) -> None:
        """Drop an item of a list."""

    def extend(self, items: Any) -> None:
        """Drop items of a list."""

    def add(self, item: Any) -> None:
        """Drop an item of a set."""


class InertUnpickler(pickle.Unpickler):
    """Builds records only.

    Args:
        stream: the pickle.
        accepts: whether a module's name may stand in it.
    """

    def __init__(self, stream: Any, accepts: Callable[[str, str], bool]) -> None:
        super().__init__(stream)
        self.accepts = accepts
        self.storages: dict[str, tuple[Any, ...]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return a record's class in place of the named one."""
        module = _OLD_NAMES.get(module, module)
        origin = f"{module}.{name}"
        if not self.accepts(module, name):
            raise RefusedName(f"it asks for {origin[:200]}, which has no place beside weights")
        # A class of its own for each name, so that nothing outside this archive can be changed.
        return type("Record", (Record,), {"origin": origin})

    def persistent_load(self, pid: Any) -> Any:
        """Return the description of a storage."""
        _, _, key, *_ = pid
        return self.storages.setdefault(key, pid)


def _beside_weights(module: str, name: str) -> bool:
    origin = f"{module}.{name}"
    if module.partition(".")[0] in sys.stdlib_module_names:
        return module in _DATA_MODULES or origin in _DATA_NAMES
    return re.match(_LOADERS, origin) is None


def read_pickled(path: Path) -> Any:
    """What torch.save wrote: dictionaries, tensors, plain values, and records of all else.

    Raises:
        RefusedName: it asks for something that has no place beside weights.
        Exception: it is damaged, or torch.save did not write it.
    """
    check_file(path)
    if not zipfile.is_zipfile(path):
        return _read_legacy(path)
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        root = InertUnpickler(archive.open(name), _beside_weights).load()
        content = Tensors(archive, f"{name.removesuffix('data.pkl')}data/").within(root)
    check_tensors(content)
    return content


def _read_legacy(path: Path) -> Any:
    """The format before PyTorch 1.6: five pickles, and the storages one behind the other."""
    with path.open("rb") as file:
        pickles = [InertUnpickler(file, _beside_weights) for _ in range(LEGACY_PICKLES)]
        *_, root, keys = [each.load() for each in pickles]
        tensors = Tensors()
        for key in keys:
            _, kind, *_ = pickles[-2].storages[key]
            dtype = DTYPES[kind.__dict__["origin"].removeprefix("torch.")]
            size = int.from_bytes(file.read(8), "little") * dtype.itemsize
            if size > path.stat().st_size:
                raise ValueError("it holds a storage that is larger than the file")
            tensors.storages[key] = _from_bytes(file.read(size), dtype)
        content = tensors.within(root)
    check_tensors(content)
    return content


def is_mapping(value: Any) -> bool:
    """Whether a value of a pickle is a dictionary, and no object of another class."""
    return isinstance(value, dict) and not isinstance(value, Record)


def class_of(value: Any) -> str:
    """Name of the class that an object in a pickle had."""
    kind = type(value)
    return value.origin if isinstance(value, Record) else f"{kind.__module__}.{kind.__qualname__}"


class Tensors:
    """Turns the records of tensors into tensors, reading every storage once.

    Args:
        archive: holds the storages; None where `storages` are filled in by hand.
        folder: of the storages in the archive, with a slash.
    """

    def __init__(self, archive: zipfile.ZipFile | None = None, folder: str = "") -> None:
        self.archive = archive
        self.folder = folder
        self.storages: dict[str, Tensor] = {}
        self._done: dict[tuple[int, int], Any] = {}

    def within(self, value: Any, levels: int = MOST_LEVELS) -> Any:
        """The value with tensors in place of their records, in dictionaries of a few levels."""
        if isinstance(value, Record) and value.origin == _PARAMETER:
            value = value.arguments[0]
        if isinstance(value, Record) and value.origin == TENSOR:
            return self.tensor(value)
        if not isinstance(value, dict) or not levels or (isinstance(value, Record) and not value):
            return value
        place = (id(value), levels)
        if place not in self._done:
            self._done[place] = {k: self.within(item, levels - 1) for k, item in value.items()}
        return self._done[place]

    def tensor(self, record: Record) -> Tensor:
        """The tensor of a record of `TENSOR`."""
        (_, kind, key, *_), offset, size, stride = record.arguments[:4]
        return self._storage(kind.__dict__["origin"], key).as_strided(size, stride, offset)

    def _storage(self, origin: str, key: str) -> Tensor:
        if key not in self.storages:
            if self.archive is None:
                raise ValueError(f"it has no storage {key[:100]!r}")
            data = self.archive.read(f"{self.folder}{key}")
            self.storages[key] = _from_bytes(data, DTYPES[origin.removeprefix("torch.")])
        return self.storages[key]


def _from_bytes(data: bytes, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)
