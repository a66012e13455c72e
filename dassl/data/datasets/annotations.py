"""Reading the lists of images and class names that datasets come with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from safeio.errors import UserError
from safeio.untrusted import one_line, short_repr

from .matlab import read_vector

Key = TypeVar("Key")
Value = TypeVar("Value")


def read_rows(path: Path, columns: int = 1) -> list[list[str]]:
    """Read a text file of one entry a line; empty lines and lines that begin with # are left out.

    Args:
        path: the file, UTF-8.
        columns: each line has so many, between white space; the last takes the rest of the line.

    Raises:
        UserError: the file cannot be read, or a line has too few columns.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    rows = []
    for number, line in enumerate(lines, 1):
        row = line.strip().split(None, columns - 1)
        if not row or row[0].startswith("#"):
            continue
        if len(row) < columns:
            raise UserError(
                f"{path}, line {number}: expected are {columns} words, not {short_repr(line)}"
            )
        rows.append(row)
    return rows


def read_mat(path: Path, key: str, fields: Sequence[str] = ()) -> list[Any]:
    """Read a vector of a MATLAB file (version 5 to 7.2); nothing in it is executed.

    Args:
        path: the file.
        key: the variable: numbers, cells that hold one value each, or structs.
        fields: of structs, those that are wanted.

    Returns:
        Numbers and strings; a tuple of them for each struct.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    try:
        entries = read_vector(path, key)
        if fields:
            return [tuple(_plain(entry[field]) for field in fields) for entry in entries]
        return [_plain(entry) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        wanted = f"{key} ({', '.join(fields)})" if fields else key
        raise UserError(
            f'{path} is no MATLAB file with the variable "{wanted}": {one_line(error)}'
        ) from error


def _plain(value: Any) -> Any:
    if not isinstance(value, int | float | str):
        raise ValueError("a value in it is no number and no text")
    return value


def lookup(known: Mapping[Key, Value], name: Key, where: Path, source: object) -> Value:
    """Return what belongs to a name or label that an annotation file uses.

    Args:
        known: what there is.
        name: the name or label.
        where: the file that uses it.
        source: what defines the known names, for the message.

    Raises:
        UserError: it is unknown.
    """
    if name not in known:
        raise UserError(f'{where} names "{name}", which is not in {source}')
    return known[name]
