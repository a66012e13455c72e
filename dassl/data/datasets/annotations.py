"""Readers of the annotation files that datasets are published with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from safeio.errors import UserError
from safeio.untrusted import one_line, short_repr

from .matlab import read_vector

Key = TypeVar("Key")
Value = TypeVar("Value")


def read_rows(path: Path, columns: int = 1) -> list[list[str]]:
    """Read a text file with one entry a line; skip empty lines and lines that start with #.

    Args:
        path: the file, UTF-8.
        columns: number of columns, separated by white space; the last is the rest of the line.

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
                f"{path}, line {number}: {columns} words are expected, not {short_repr(line)}"
            )
        rows.append(row)
    return rows


def read_mat(path: Path, key: str, fields: Sequence[str] = ()) -> list[Any]:
    """Read a vector of a MATLAB file (version 5 to 7.2) without executing anything in it.

    Args:
        path: the file.
        key: name of a variable: numbers, cells of one value each, or structs.
        fields: for structs, the fields to return.

    Returns:
        Numbers and strings, or a tuple of the fields for each struct.

    Raises:
        UserError: the file cannot be read, or has other content.
    """
    try:
        entries = read_vector(path, key)
        if fields:
            return [tuple(_scalar(entry[field]) for field in fields) for entry in entries]
        return [_scalar(entry) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        variable = f"{key} ({', '.join(fields)})" if fields else key
        raise UserError(
            f'{path} is not a MATLAB file with the variable "{variable}": {one_line(error)}'
        ) from error


def _scalar(value: Any) -> Any:
    if not isinstance(value, int | float | str):
        raise ValueError("a value in it is neither a number nor text")
    return value


def lookup(known: Mapping[Key, Value], name: Key, where: Path, source: object) -> Value:
    """Return the value of a name or label that the file `where` uses and `source` defines.

    Raises:
        UserError: the name is unknown.
    """
    if name not in known:
        raise UserError(f'{where} contains "{name}", which is not in {source}')
    return known[name]
