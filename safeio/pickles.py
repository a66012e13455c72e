"""Bounds on what a file with a pickle in it demands of its reader, checked before it is read.

Readers that run nothing can still be kept busy for ever, or made to fill the memory: a tuple of
tuples of tuples as a key takes years to hash, a compressed archive of a megabyte unpacks to
terabytes, and a tensor of a few bytes says that it has a trillion elements. No weights do so.
"""

import pickletools
import zipfile
from pathlib import Path
from typing import Any

import torch

LARGEST_TUPLE = 100_000  # values, those behind references each time that they are named
LEGACY_PICKLES = 5  # which torch wrote one behind the other, before the storages
LARGEST_PICKLE = 1 << 28  # bytes
LARGEST_MEMO = 1 << 22  # values that a pickle refers back to
SPARE_BYTES = 1 << 26  # that an archive may take beyond its own size; torch compresses nothing


def check_file(path: Path) -> None:
    """Refuse a file whose pickles or archive would not end well.

    Args:
        path: an archive or older file of torch.save, or an archive of torch.jit.

    Raises:
        ValueError: it asks for too much, or is damaged.
        OSError: it cannot be read.
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
            raise ValueError("it unpacks to much more than its own size, which no weights do")
        for member in read:
            if member.filename.endswith("data.pkl"):
                if member.file_size > LARGEST_PICKLE:
                    raise ValueError("its list of tensors is too long")
                with archive.open(member) as file:
                    check_pickle(file)


def check_pickle(file: Any) -> None:
    """Read over one pickle without building anything, and bound its tuples.

    Raises:
        ValueError: a tuple stands for too many values, it asks for memory by number, or it is no
            pickle.
    """
    stack: list[int] = []  # sizes; 0 for a mark
    memo: dict[int, int] = {}
    try:
        for code, found, _ in pickletools.genops(file):
            argument: Any = found
            if code.name in ("GET", "BINGET", "LONG_BINGET"):
                stack.append(memo[int(argument)])
            elif code.name in ("PUT", "BINPUT", "LONG_BINPUT"):
                if int(argument) > LARGEST_MEMO:  # a reader makes room up to this number
                    raise ValueError("it asks for too much memory")
                memo[int(argument)] = stack[-1]
            elif code.name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif code.name == "DUP":
                stack.append(stack[-1])
            else:
                _refuse_memory(code.name, argument)
                stack += _pushed(code, stack)
    except (IndexError, KeyError) as error:
        raise ValueError("it is damaged") from error


def _pushed(code: pickletools.OpcodeInfo, stack: list[int]) -> list[int]:
    """Take off the stack what an operation takes, and return what it puts there."""
    before = [entry for entry in code.stack_before if entry is not pickletools.stackslice]
    size = 1
    if pickletools.markobject in before:
        while item := stack.pop():
            size += item
        before.remove(pickletools.markobject)
    for _ in before:
        size += stack.pop()
    if size > LARGEST_TUPLE and "TUPLE" in code.name:
        raise ValueError("a tuple in it stands for too many values")
    kept = size if "TUPLE" in code.name else 1
    return [0 if entry is pickletools.markobject else kept for entry in code.stack_after]


def _refuse_memory(name: str, argument: Any) -> None:
    asks = name in ("GLOBAL", "SHORT_BINUNICODE", "BINUNICODE", "UNICODE")
    if asks and str(argument).rpartition(" ")[2] == "bytearray":
        raise ValueError("it asks for bytearrays, which no weights do")


def check_tensors(content: Any) -> None:
    """Refuse tensors that say that they are larger than what the file holds of them.

    Args:
        content: what was read: containers, tensors and plain values.

    Raises:
        ValueError: a tensor is of another kind than weights, or its elements overlap.
    """
    seen: set[int] = set()
    left = [content]
    while left:
        value = left.pop()
        if isinstance(value, torch.Tensor):
            _check_tensor(value)
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            left += value.values() if isinstance(value, dict) else value


def _check_tensor(tensor: torch.Tensor) -> None:
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.is_quantized or tensor.is_complex():
        raise ValueError("it holds tensors of another kind than weights")
    if tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
        raise ValueError("it holds a tensor that is larger than its storage")
