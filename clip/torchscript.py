"""Read the tensors of TorchScript archives without torch.jit, which would run their code.

OpenAI publishes CLIP as TorchScript archives: zip files with the modules' attributes as a pickle
(`data.pkl`), the tensors' bytes (`data/0`, ...) and Python code.
"""

import itertools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from safeio.pickles import InertUnpickler, Record, check_file, check_tensors

from .errors import WeightsError
from .inert_pickle import DTYPES, TENSOR, TensorRebuilder

MAX_MODULES = 100_000  # RN50x64 has 453
_ALLOWED = {TENSOR, "collections.OrderedDict", *(f"torch.{name}" for name in DTYPES)}
_ALLOWED_MODULES = r"(__torch__(\..*)?|torch\.jit\._pickle)\Z"


def is_torchscript(path: Path) -> bool:
    """Return whether the file is a zip archive with TorchScript's `constants.pkl`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError):  # damaged, or not a zip
        return False


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Return all tensors of the archive's modules, named as in a state dict.

    Raises:
        WeightsError: the archive is damaged or contains more than modules and tensors.
    """
    try:
        check_file(path)
        with zipfile.ZipFile(path) as archive:
            prefix = next(
                name for name in archive.namelist() if name.endswith("/constants.pkl")
            ).removesuffix("constants.pkl")
            with archive.open(f"{prefix}data.pkl") as member:
                root = InertUnpickler(member, _is_allowed).load()
            tensors = _collect(root, TensorRebuilder(archive, f"{prefix}data/"), itertools.count(1))
        check_tensors(tensors)
        return tensors
    except Exception as error:  # untrusted bytes can fail in any way
        reason = str(error).partition("\n")[0][:200]
        raise WeightsError(
            f"{path} is not a usable TorchScript archive ({type(error).__name__}: {reason}); "
            "download the published file again."
        ) from None


def _is_allowed(module: str, name: str) -> bool:
    return f"{module}.{name}" in _ALLOWED or re.match(_ALLOWED_MODULES, module) is not None


def _collect(
    module: Any, rebuilder: TensorRebuilder, count: Iterator[int], prefix: str = ""
) -> dict[str, Tensor]:
    """Return the tensors among the attributes of a module and of its submodules."""
    if next(count) > MAX_MODULES:
        raise ValueError("it has too many modules, or they contain each other")
    found: dict[str, Tensor] = {}
    attributes = module.state if isinstance(module.state, dict) else {}
    for name, value in attributes.items():
        if isinstance(value, Record) and value.origin == TENSOR:
            found[f"{prefix}{name}"] = rebuilder.rebuild(value)
        elif isinstance(value, Record) and value.origin.startswith("__torch__."):
            found.update(_collect(value, rebuilder, count, f"{prefix}{name}."))
    return found
