"""Read pickles of torch.save without running any code in them.

A pickle becomes a tree of inert records, from which the tensors are rebuilt afterwards. Names that
could run code are still refused.
"""

import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from safeio.pickles import LEGACY_PICKLES, InertUnpickler, Record

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
MAX_LEVELS = 4  # of nested dictionaries that are searched for weights
TENSOR = "torch._utils._rebuild_tensor_v2"
_PARAMETER = "torch._utils._rebuild_parameter"

# Accepted names of the standard library, parts of which run commands when called.
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
_LOADERS = r"(torch\.(load|hub|jit|package|serialization)|numpy\.load)\b"


def _is_accepted(module: str, name: str) -> bool:
    origin = f"{module}.{name}"
    if module.partition(".")[0] in sys.stdlib_module_names:
        return module in _DATA_MODULES or origin in _DATA_NAMES
    return re.match(_LOADERS, origin) is None


def read_pickled(path: Path) -> Any:
    """Read a file of torch.save: dictionaries, tensors, plain values, and records of all else.

    The caller has to use `check_file` before and `check_tensors` after.

    Raises:
        RefusedName: the file requests a name that is not accepted.
        Exception: the file is damaged, or not a file of torch.save.
    """
    if not zipfile.is_zipfile(path):
        return _read_legacy(path)
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        with archive.open(name) as member:
            root = InertUnpickler(member, _is_accepted).load()
        storages = f"{name.removesuffix('data.pkl')}data/"
        return TensorRebuilder(archive, storages).rebuild_nested(root)


def _read_legacy(path: Path) -> Any:
    """Read the format before PyTorch 1.6: five pickles followed by the storages."""
    with path.open("rb") as file:
        pickles = [InertUnpickler(file, _is_accepted) for _ in range(LEGACY_PICKLES)]
        *_, root, keys = [unpickler.load() for unpickler in pickles]
        tensors = TensorRebuilder()
        for key in keys:
            _, kind, *_ = pickles[-2].storages[key]
            dtype = DTYPES[kind.__dict__["origin"].removeprefix("torch.")]
            size = int.from_bytes(file.read(8), "little") * dtype.itemsize
            if size > path.stat().st_size:
                raise ValueError("it contains a storage that is larger than the file")
            tensors.storages[key] = _from_bytes(file.read(size), dtype)
        return tensors.rebuild_nested(root)


def is_mapping(value: Any) -> bool:
    """Return whether a value of a pickle is a dictionary, not a record of a subclass."""
    return isinstance(value, dict) and not isinstance(value, Record)


def class_of(value: Any) -> str:
    """Return the name of the class of an object in a pickle."""
    kind = type(value)
    return value.origin if isinstance(value, Record) else f"{kind.__module__}.{kind.__qualname__}"


class TensorRebuilder:
    """Rebuild tensors from their records, reading every storage once.

    Args:
        archive: contains the storages; None if the caller fills `storages`.
        folder: of the storages in the archive, with a slash.
    """

    def __init__(self, archive: zipfile.ZipFile | None = None, folder: str = "") -> None:
        self.archive = archive
        self.folder = folder
        self.storages: dict[str, Tensor] = {}
        self._rebuilt: dict[tuple[int, int], Any] = {}

    def rebuild_nested(self, value: Any, levels: int = MAX_LEVELS) -> Any:
        """Return the value with its records of tensors rebuilt, also in nested dictionaries."""
        if isinstance(value, Record) and value.origin == _PARAMETER:
            value = value.arguments[0]
        if isinstance(value, Record) and value.origin == TENSOR:
            return self.rebuild(value)
        if not isinstance(value, dict) or not levels or (isinstance(value, Record) and not value):
            return value
        key = (id(value), levels)
        if key not in self._rebuilt:
            items = {name: self.rebuild_nested(item, levels - 1) for name, item in value.items()}
            self._rebuilt[key] = items
        return self._rebuilt[key]

    def rebuild(self, record: Record) -> Tensor:
        """Return the tensor of a record of `TENSOR`."""
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
