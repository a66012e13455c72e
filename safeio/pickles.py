"""Unpickle without running code, and resource limits for files with pickles.

`InertUnpickler` turns every name in a pickle into a class that does nothing. Such readers can still
hang or exhaust the memory: a tuple of tuples of tuples as a key takes years to hash, a compressed
archive of a megabyte unpacks to terabytes, and a tensor of a few bytes claims a trillion elements.
Weights do none of this, so it is refused before a file is read.
"""

import pickle
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

LARGEST_TUPLE = 100_000  # values; a referenced value counts at every reference
LEGACY_PICKLES = 5  # at the start of a file of torch.save before PyTorch 1.6
LARGEST_PICKLE = 1 << 28  # bytes
LARGEST_MEMO = 1 << 22  # values that a pickle can refer back to
SPARE_BYTES = 1 << 26  # an archive may unpack to its own size plus this; torch does not compress
_OLD_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # of protocol 2


class RefusedName(pickle.UnpicklingError):
    """A pickle requests a name that is not accepted in a weights file."""


class Record(dict[Any, Any]):
    """Inert stand-in for any call or object in the pickle: records name, arguments and state.

    It accepts the items of dictionaries, lists and sets, so that it can also replace their
    subclasses, but stores only those of dictionaries.
    """

    origin = ""
    # Defaults, because unpickling may skip __init__ and __setstate__.
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
    """Unpickler that builds only records; `accepts` decides about a module and a name in it."""

    def __init__(self, stream: Any, accepts: Callable[[str, str], bool]) -> None:
        super().__init__(stream)
        self.accepts = accepts
        self.storages: dict[str, tuple[Any, ...]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return a class of records in place of the named class."""
        module = _OLD_NAMES.get(module, module)
        origin = f"{module}.{name}"
        if not self.accepts(module, name):
            raise RefusedName(f"it requests {origin[:200]}, which weights files may not contain")
        # A new class for each name, so that the pickle can change nothing outside itself.
        return type("Record", (Record,), {"origin": origin})

    def persistent_load(self, pid: Any) -> Any:
        """Return the description of a storage."""
        _, _, key, *_ = pid
        return self.storages.setdefault(key, pid)


def check_file(path: Path) -> None:
    """Refuse a file of torch.save or torch.jit whose pickles or archive exceed the limits.

    Raises:
        ValueError: the file exceeds a limit or is damaged.
        OSError: the file cannot be read.
    """
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            for _ in range(LEGACY_PICKLES):
                check_pickle(file)
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        read = [member for member in members if "code/" not in member.filename]
        if sum(member.file_size for member in read) > path.stat().st_size + SPARE_BYTES:
            raise ValueError("it unpacks to much more than its own size, unlike weights")
        for member in read:
            if member.filename.endswith("data.pkl"):
                if member.file_size > LARGEST_PICKLE:
                    raise ValueError("its list of tensors is too long")
                with archive.open(member) as file:
                    check_pickle(file)


def check_pickle(file: Any) -> None:
    """Scan one pickle without building objects.

    Raises:
        ValueError: a tuple contains too many values, the pickle requests too much memory, or it is
            damaged.
    """
    stack: list[int] = []  # the number of values in each entry; 0 for a mark
    memo: dict[int, int] = {}
    try:
        for code, found, _ in pickletools.genops(file):
            argument: Any = found
            if code.name in ("GET", "BINGET", "LONG_BINGET"):
                stack.append(memo[int(argument)])
            elif code.name in ("PUT", "BINPUT", "LONG_BINPUT"):
                if int(argument) > LARGEST_MEMO:  # readers allocate this many
                    raise ValueError("it requests too much memory")
                memo[int(argument)] = stack[-1]
            elif code.name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif code.name == "DUP":
                stack.append(stack[-1])
            else:
                _refuse_bytearray(code.name, argument)
                stack += _apply(code, stack)
    except (IndexError, KeyError) as error:
        raise ValueError("it is damaged") from error


def _apply(code: pickletools.OpcodeInfo, stack: list[int]) -> list[int]:
    """Pop the arguments of an operation from the stack, and return what it pushes."""
    before = [entry for entry in code.stack_before if entry is not pickletools.stackslice]
    size = 1
    if pickletools.markobject in before:
        while item := stack.pop():
            size += item
        before.remove(pickletools.markobject)
    for _ in before:
        size += stack.pop()
    if size > LARGEST_TUPLE and "TUPLE" in code.name:
        raise ValueError("a tuple in it contains too many values")
    pushed = size if "TUPLE" in code.name else 1
    return [0 if entry is pickletools.markobject else pushed for entry in code.stack_after]


def _refuse_bytearray(name: str, argument: Any) -> None:
    is_name = name in ("GLOBAL", "SHORT_BINUNICODE", "BINUNICODE", "UNICODE")
    if is_name and str(argument).rpartition(" ")[2] == "bytearray":
        raise ValueError("it requests bytearrays, unlike weights")


def check_tensors(content: Any) -> None:
    """Refuse tensors in nested containers that claim more elements than the file contains.

    Raises:
        ValueError: a tensor is larger than its storage, or not of a kind that weights have.
    """
    seen: set[int] = set()
    pending = [content]
    while pending:
        value = pending.pop()
        if isinstance(value, torch.Tensor):
            _check_tensor(value)
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            pending += value.values() if isinstance(value, dict) else value


def _check_tensor(tensor: torch.Tensor) -> None:
    dense = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not dense or tensor.is_quantized or tensor.is_complex():
        raise ValueError("it contains a tensor that is not dense, real and on the CPU")
    if tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
        raise ValueError("it contains a tensor that is larger than its storage")
