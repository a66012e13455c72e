"""Reads the tensors out of pickles without running anything that they carry.

OpenAI publishes CLIP as TorchScript archives: zip files with the modules' attributes as a pickle
(`data.pkl`), the tensors' bytes (`data/0`, ...) and Python code. torch.jit, which would load them,
is deprecated and runs that code. Checkpoints of training programs are pickles of the same kind, and
carry settings of any class beside the weights. Here a pickle becomes a tree of inert records: every
name in it turns into a class that does nothing, and the tensors are put together from the records
afterwards. Names that have no place beside weights are refused all the same.
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

from .errors import WeightsError

_DTYPES = {
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
MOST_MODULES = 100_000  # RN50x64 has 453
MOST_LEVELS = 4  # of dictionaries in which weights are looked for
_TENSOR = "torch._utils._rebuild_tensor_v2"
_PARAMETER = "torch._utils._rebuild_parameter"
_ALLOWED = {_TENSOR, "collections.OrderedDict", *(f"torch.{name}" for name in _DTYPES)}
_ALLOWED_MODULES = r"(__torch__(\..*)?|torch\.jit\._pickle)\Z"

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


class _Record(dict[Any, Any]):
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


class _Unpickler(pickle.Unpickler):
    """Builds records only."""

    def __init__(self, stream: Any, accepts: Callable[[str, str], bool]) -> None:
        super().__init__(stream)
        self.accepts = accepts
        self.storages: dict[str, tuple[Any, ...]] = {}

    def find_class(self, module: str, name: str) -> Any:
        module = _OLD_NAMES.get(module, module)
        origin = f"{module}.{name}"
        if not self.accepts(module, name):
            raise RefusedName(f"it asks for {origin[:200]}, which has no place beside weights")
        # A class of its own for each name, so that nothing outside this archive can be changed.
        return type("_Record", (_Record,), {"origin": origin})

    def persistent_load(self, pid: Any) -> Any:
        _, _, key, *_ = pid
        return self.storages.setdefault(key, pid)


def _of_torchscript(module: str, name: str) -> bool:
    return f"{module}.{name}" in _ALLOWED or re.match(_ALLOWED_MODULES, module) is not None


def _beside_weights(module: str, name: str) -> bool:
    origin = f"{module}.{name}"
    if module.partition(".")[0] in sys.stdlib_module_names:
        return module in _DATA_MODULES or origin in _DATA_NAMES
    return re.match(_LOADERS, origin) is None


def is_torchscript(path: Path) -> bool:
    """Whether the file is a zip archive with TorchScript's `constants.pkl`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError):  # damaged, or no zip at all
        return False


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """All tensors of the archive's modules, named as in a state dict.

    Raises:
        WeightsError: the archive is damaged or is no plain archive of modules and tensors.
    """
    try:
        check_file(path)
        with zipfile.ZipFile(path) as archive:
            prefix = next(
                name for name in archive.namelist() if name.endswith("/constants.pkl")
            ).removesuffix("constants.pkl")
            root = _Unpickler(archive.open(f"{prefix}data.pkl"), _of_torchscript).load()
            tensors = _Tensors(archive, f"{prefix}data/").collect(root)
        check_tensors(tensors)
        return tensors
    except Exception as error:  # bytes from anywhere can fail in any way
        reason = str(error).partition("\n")[0][:200]
        raise WeightsError(
            f"{path} is no usable TorchScript archive ({type(error).__name__}: {reason}); "
            "get the published file again."
        ) from None


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
        root = _Unpickler(archive.open(name), _beside_weights).load()
        content = _Tensors(archive, f"{name.removesuffix('data.pkl')}data/").within(root)
    check_tensors(content)
    return content


def _read_legacy(path: Path) -> Any:
    """The format before PyTorch 1.6: five pickles, and the storages one behind the other."""
    with path.open("rb") as file:
        pickles = [_Unpickler(file, _beside_weights) for _ in range(LEGACY_PICKLES)]
        *_, root, keys = [each.load() for each in pickles]
        tensors = _Tensors(None, "")
        for key in keys:
            _, kind, *_ = pickles[-2].storages[key]
            dtype = _DTYPES[kind.__dict__["origin"].removeprefix("torch.")]
            size = int.from_bytes(file.read(8), "little") * dtype.itemsize
            if size > path.stat().st_size:
                raise ValueError("it holds a storage that is larger than the file")
            tensors.storages[key] = _from_bytes(file.read(size), dtype)
        content = tensors.within(root)
    check_tensors(content)
    return content


def is_mapping(value: Any) -> bool:
    """Whether a value of a pickle is a dictionary, and no object of another class."""
    return isinstance(value, dict) and not isinstance(value, _Record)


def class_of(value: Any) -> str:
    """Name of the class that an object in a pickle had."""
    kind = type(value)
    return value.origin if isinstance(value, _Record) else f"{kind.__module__}.{kind.__qualname__}"


class _Tensors:
    """Turns the records of tensors into tensors, reading every storage once."""

    def __init__(self, archive: zipfile.ZipFile | None, folder: str) -> None:
        self.archive = archive
        self.folder = folder
        self.done: dict[tuple[int, int], Any] = {}
        self.storages: dict[str, Tensor] = {}
        self.modules = 0

    def collect(self, module: Any, prefix: str = "") -> dict[str, Tensor]:
        """Tensors among the attributes of a module and of the modules in it."""
        found: dict[str, Tensor] = {}
        self.modules += 1
        if self.modules > MOST_MODULES:
            raise ValueError("its modules hold each other again and again")
        attributes = module.state if isinstance(module.state, dict) else {}
        for name, value in attributes.items():
            if not isinstance(value, _Record):
                continue
            if value.origin == _TENSOR:
                found[f"{prefix}{name}"] = self._tensor(*value.arguments[:4])
            elif value.origin.startswith("__torch__."):
                found.update(self.collect(value, f"{prefix}{name}."))
        return found

    def within(self, value: Any, levels: int = MOST_LEVELS) -> Any:
        """The value with tensors in place of their records, in dictionaries of a few levels."""
        if isinstance(value, _Record) and value.origin == _PARAMETER:
            value = value.arguments[0]
        if isinstance(value, _Record) and value.origin == _TENSOR:
            return self._tensor(*value.arguments[:4])
        if not isinstance(value, dict) or not levels or (isinstance(value, _Record) and not value):
            return value
        place = (id(value), levels)
        if place not in self.done:
            self.done[place] = {k: self.within(item, levels - 1) for k, item in value.items()}
        return self.done[place]

    def _tensor(
        self, storage: tuple[Any, ...], offset: int, size: tuple[int, ...], stride: tuple[int, ...]
    ) -> Tensor:
        _, kind, key, *_ = storage
        return self._storage(kind.__dict__["origin"], key).as_strided(size, stride, offset)

    def _storage(self, origin: str, key: str) -> Tensor:
        if key not in self.storages:
            if self.archive is None:
                raise ValueError(f"it has no storage {key[:100]!r}")
            data = self.archive.read(f"{self.folder}{key}")
            self.storages[key] = _from_bytes(data, _DTYPES[origin.removeprefix("torch.")])
        return self.storages[key]


def _from_bytes(data: bytes, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)
