"""Vectors out of MATLAB files of version 5 to 7.2, in Python alone.

scipy's reader is written for trusted files: a few changed bytes let it crash the process. What the
datasets' annotations need is little: numbers, texts, and cells and structs of these.
"""

import math
import struct
import zlib
from pathlib import Path
from typing import Any

from safeio.untrusted import read_bounded

MAX_BYTES = 1 << 26  # of a file, and of what is compressed in it
_MAX_DEPTH = 8
_HEADER = 128
_COMPRESSED, _MATRIX = 15, 14
_CELL, _STRUCT, _CHAR, _NUMBERS = 1, 2, 4, range(6, 16)
# Types of stored data, by struct's letters.
_FORMATS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
_TEXTS = {1: "latin-1", 2: "latin-1", 16: "utf-8"}


class _Elements:
    """Walks over data elements: a type, a length and bytes each."""

    def __init__(self, data: bytes, order: str) -> None:
        self.data = data
        self.order = order
        self.place = 0

    def next(self) -> tuple[int, bytes]:
        """Type and bytes of the next element."""
        kind, size = struct.unpack_from(f"{self.order}II", self.data, self.place)
        start, step = self.place + 8, size
        if kind >> 16:  # a small one has its length beside its type, and its bytes behind them
            kind, size, start, step = kind & 0xFFFF, kind >> 16, self.place + 4, 0
        if start + size > len(self.data) or (not step and size > 4 and start == self.place + 4):
            raise ValueError("it is cut off")
        # All but compressed elements fill up to eight bytes.
        self.place += 8 + (step if kind == _COMPRESSED else -(-step // 8) * 8)
        return kind, self.data[start : start + size]

    def numbers(self) -> list[Any]:
        """The next element as numbers."""
        kind, data = self.next()
        if kind not in _FORMATS:
            raise ValueError("it stores numbers in an unknown way")
        letter = _FORMATS[kind]
        count = len(data) // struct.calcsize(letter)
        return list(struct.unpack(f"{self.order}{count}{letter}", data))

    def text(self) -> str:
        """The next element as text."""
        kind, data = self.next()
        wide = "utf-16-le" if self.order == "<" else "utf-16-be"
        return data.decode(_TEXTS.get(kind, wide))

    def ended(self) -> bool:
        """Whether nothing more follows."""
        return self.place >= len(self.data)


def read_vector(path: Path, key: str) -> list[Any]:
    """Read a variable: numbers, the values of a cell, or a dictionary for each struct.

    Args:
        path: the file.
        key: name of the variable.

    Raises:
        ValueError: the file is damaged, of another version or too large, or holds something else.
        KeyError: it has no such variable.
        OSError: it cannot be read.
    """
    data = read_bounded(path, MAX_BYTES)
    order = {b"IM": "<", b"MI": ">"}.get(data[126:_HEADER])
    if order is None:
        raise ValueError("it is no MATLAB file of version 5 to 7.2")
    elements = _Elements(data[_HEADER:], order)
    try:
        while not elements.ended():
            kind, content = elements.next()
            if kind == _COMPRESSED:
                kind, content = _Elements(_unpacked(content), order).next()
            name, value = _matrix(content, order, key) if kind == _MATRIX else ("", [])
            if name == key:
                return value if isinstance(value, list) else [value]
    except (struct.error, zlib.error) as error:
        raise ValueError(f"it is damaged ({error})") from error
    raise KeyError(key)


def _unpacked(content: bytes) -> bytes:
    data = zlib.decompressobj().decompress(content, MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"it unpacks to more than {MAX_BYTES:,} bytes")
    return data


def _matrix(content: bytes, order: str, key: str | None = None, depth: int = 0) -> tuple[str, Any]:
    """Name and value of a matrix; of one that is not the wanted, the name alone."""
    if not content:
        return "", []
    elements = _Elements(content, order)
    kind = int([*elements.numbers(), 0][0]) & 0xFF
    sides = elements.numbers()
    name = elements.text()
    if key is not None and name != key:
        return name, []
    if depth > _MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    count = math.prod(sides)
    if not 0 <= count <= len(content):  # every value takes bytes
        raise ValueError("its sizes are not those of what it holds")
    return name, _content(elements, kind, int(count), depth)


def _content(elements: _Elements, kind: int, count: int, depth: int) -> Any:
    if kind == _CHAR:
        return elements.text()
    if kind in _NUMBERS:
        return elements.numbers()
    if kind == _CELL:
        return [_value(elements, depth) for _ in range(count)]
    if kind == _STRUCT:
        fields = _fields(elements)
        return [{field: _value(elements, depth) for field in fields} for _ in range(count)]
    raise ValueError("it holds something else than numbers, texts, cells and structs")


def _fields(elements: _Elements) -> list[str]:
    (width,) = elements.numbers()
    _, names = elements.next()
    if width < 1:
        raise ValueError("names of fields have no length")
    parts = [names[start : start + width] for start in range(0, len(names), width)]
    return [part.partition(b"\0")[0].decode("latin-1") for part in parts]


def _value(elements: _Elements, depth: int) -> Any:
    """A cell's or field's value: of a matrix of one, that one."""
    kind, content = elements.next()
    if kind != _MATRIX:
        raise ValueError("a value in it is no matrix")
    _, value = _matrix(content, elements.order, depth=depth + 1)
    return value[0] if isinstance(value, list) and len(value) == 1 else value
