"""Reads the tensors out of a TorchScript archive without running anything that it carries.

OpenAI publishes CLIP as TorchScript archives: zip files with the modules' attributes as a pickle
(`data.pkl`), the tensors' bytes (`data/0`, ...) and Python code. torch.jit, which would load them,
is deprecated and runs that code. Here the pickle becomes a tree of inert records: the few global
names that such archives need turn into classes that do nothing, every other name is refused, and
the tensors are put together from the records afterwards.
"""

import io
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import WeightsError
from .pickles import check_file, check_tensors

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
_TENSOR = "torch._utils._rebuild_tensor_v2"
_ALLOWED = {_TENSOR, "collections.OrderedDict", *(f"torch.{name}" for name in _DTYPES)}
_ALLOWED_MODULES = r"(__torch__(\..*)?|torch\.jit\._pickle)\Z"


class _Record:
    """What a call or an object of the archive becomes: its name, arguments and state, no deed."""

    origin = ""
    # Objects are made without a call of __init__, and need not be given a state.
    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Builds records only."""

    def find_class(self, module: str, name: str) -> Any:
        origin = f"{module}.{name}"
        if origin not in _ALLOWED and not re.match(_ALLOWED_MODULES, module):
            raise pickle.UnpicklingError(f"it asks for {origin}, which no archive of CLIP does")
        # A class of its own for each name, so that nothing outside this archive can be changed.
        return type("_Record", (_Record,), {"origin": origin})

    def persistent_load(self, pid: Any) -> Any:
        return pid


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
            root = _Unpickler(io.BytesIO(archive.read(f"{prefix}data.pkl"))).load()
            tensors = _Tensors(archive, f"{prefix}data/").collect(root)
        check_tensors(tensors)
        return tensors
    except Exception as error:  # bytes from anywhere can fail in any way
        reason = str(error).partition("\n")[0][:200]
        raise WeightsError(
            f"{path} is no usable TorchScript archive ({type(error).__name__}: {reason}); "
            "get the published file again."
        ) from None


class _Tensors:
    """Turns the records of tensors into tensors, reading every storage once."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        self.archive = archive
        self.folder = folder
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

    def _tensor(
        self, storage: tuple[Any, ...], offset: int, size: tuple[int, ...], stride: tuple[int, ...]
    ) -> Tensor:
        _, kind, key, *_ = storage
        return self._storage(kind.__dict__["origin"], key).as_strided(size, stride, offset)

    def _storage(self, origin: str, key: str) -> Tensor:
        if key not in self.storages:
            dtype = _DTYPES[origin.removeprefix("torch.")]
            data = bytearray(self.archive.read(f"{self.folder}{key}"))
            self.storages[key] = (
                torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            )
        return self.storages[key]
