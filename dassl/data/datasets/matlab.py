"""Reader of vectors in MATLAB files of version 5 to 7.2, in pure Python.

scipy's reader is for trusted files: a few changed bytes can crash the process. The datasets'
annotations need only numbers, texts, and cells and structs of these.
"""

import math
import struct
import zlib
from pathlib import Path
from typing import Any

from safeio.untrusted import read_bounded

MAX_BYTES = 1 << 26  # of a file, and of a decompressed element
_MAX_DEPTH = 8
_HEADER = 128
_COMPRESSED, _MATRIX = 15, 14
_CELL, _STRUCT, _CHAR, _NUMBERS = 1, 2, 4, range(6, 16)
# MATLAB's data types -> format characters of the module struct.
_FORMATS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
_TEXTS = {1: "latin-1", 2: "latin-1", 16: "utf-8"}


class _Elements:
    """Reader of consecutive data elements: a type, a length and bytes each."""

    def __init__(self, data: bytes, order: str) -> None:
        self.data = data
        self.order = order
        self.place = 0

    def next(self) -> tuple[int, bytes]:
        """Return type and bytes of the next element."""
        kind, size = struct.unpack_from(f"{self.order}II", self.data, self.place)
        start, step = self.place + 8, size
        if kind >> 16:  # a small element: type and length in 4 bytes, then the data
            kind, size, start, step = kind & 0xFFFF, kind >> 16, self.place + 4, 0
        if start + size > len(self.data) or (not step and size > 4 and start == self.place + 4):
            raise ValueError("it is cut off")
        # All but compressed elements are padded to a multiple of eight bytes.
        self.place += 8 + (step if kind == _COMPRESSED else -(-step // 8) * 8)
        return kind, self.data[start : start + size]

    def numbers(self) -> list[Any]:
        """Return the next element as numbers."""
        kind, data = self.next()
        if kind not in _FORMATS:
            raise ValueError("it stores numbers in an unknown format")
        letter = _FORMATS[kind]
        count = len(data) // struct.calcsize(letter)
        return list(struct.unpack(f"{self.order}{count}{letter}", data))

    def text(self) -> str:
        """Return the next element as text."""
        kind, data = self.next()
        wide = "utf-16-le" if self.order == "<" else "utf-16-be"
        return data.decode(_TEXTS.get(kind, wide))

    def ended(self) -> bool:
        """Return whether no element follows."""
        return self.place >= len(self.data)


def read_vector(path: Path, key: str) -> list[Any]:
    """Return the value of a variable: numbers, values of cells, or a dictionary for each struct.

    Raises:
        ValueError: the file is damaged, of another version, too large, or has other content.
        KeyError: the variable is missing.
        OSError: the file cannot be read.
    """
    data = read_bounded(path, MAX_BYTES)
    order = {b"IM": "<", b"MI": ">"}.get(data[126:_HEADER])
    if order is None:
        raise ValueError("it is not a MATLAB file of version 5 to 7.2")
    elements = _Elements(data[_HEADER:], order)
    try:
        while not elements.ended():
            kind, content = elements.next()
            if kind == _COMPRESSED:
                kind, content = _Elements(_decompress(content), order).next()
            name, value = _matrix(content, order, key) if kind == _MATRIX else ("", [])
            if name == key:
                return value if isinstance(value, list) else [value]
    except (struct.error, zlib.error) as error:
        raise ValueError(f"it is damaged ({error})") from error
    raise KeyError(key)


def _decompress(content: bytes) -> bytes:
    data = zlib.decompressobj().decompress(content, MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"it decompresses to more than {MAX_BYTES:,} bytes")
    return data


def _matrix(content: bytes, order: str, key: str | None = None, depth: int = 0) -> tuple[str, Any]:
    """Return name and value of a matrix, or an empty value if its name is not `key`."""
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
    if not 0 <= count <= len(content):  # every value takes at least one byte
        raise ValueError("its sizes do not match its content")
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
    raise ValueError("it contains something other than numbers, texts, cells and structs")


def _fields(elements: _Elements) -> list[str]:
    (width,) = elements.numbers()
    _, names = elements.next()
    if width < 1:
        raise ValueError("its field names have length 0")
    parts = [names[start : start + width] for start in range(0, len(names), width)]
    return [part.partition(b"\0")[0].decode("latin-1") for part in parts]


def _value(elements: _Elements, depth: int) -> Any:
    """Return the value of a cell or field; a matrix with a single value is that value."""
    kind, content = elements.next()
    if kind != _MATRIX:
        raise ValueError("a value in it is not a matrix")
    _, value = _matrix(content, elements.order, depth=depth + 1)
    return value[0] if isinstance(value, list) and len(value) == 1 else value
