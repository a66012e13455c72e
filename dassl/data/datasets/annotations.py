"""Reading the lists of images and class names that datasets come with."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ...utils import UserError

Key = TypeVar("Key")
Value = TypeVar("Value")
# What scipy raises for other files, HDF5 and damage, and NumPy for values of another form.
_MAT_FAULTS = (OSError, ValueError, TypeError, LookupError, NotImplementedError, zlib.error)


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
            raise UserError(f'{path}, line {number}: expected are {columns} words, not "{line}"')
        rows.append(row)
    return rows


def read_mat(path: Path, key: str, fields: Sequence[str] = ()) -> list[Any]:
    """Read a vector of a MATLAB file (up to version 7.2); nothing in it is executed.

    Args:
        path: the file.
        key: the variable: numbers, cells that hold one value each, or structs.
        fields: of structs, those that are wanted.

    Returns:
        Numbers and strings; a tuple of them for each struct.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    from scipy.io import loadmat  # only two datasets need it
    from scipy.io.matlab import MatReadError

    try:
        entries = loadmat(path, variable_names=[key])[key].flat
        if fields:
            return [tuple(entry[field].item() for field in fields) for entry in entries]
        return [entry.item() for entry in entries]
    except (MatReadError, *_MAT_FAULTS) as error:
        wanted = f"{key} ({', '.join(fields)})" if fields else key
        raise UserError(
            f'{path} is no MATLAB file with the variable "{wanted}": {error}'
        ) from error


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
