"""Untrusted input: read within bounds, and escaped so that it cannot pass for our own output.

A file of a few bytes can stand for gigabytes or nest deeper than Python counts, and a name can hold
line breaks or a terminal's control codes. What is here answers with ValueError, which every reader
turns into its own sentence.
"""

import json
import re
import reprlib
from pathlib import Path
from typing import Any

# Line breaks, control codes, marks that turn the direction of writing, and halves of characters.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 3
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = 8
SENTENCE = 1000


def read_bounded(path: Path, limit: int) -> bytes:
    """Read a whole file that has no reason to be large.

    Args:
        path: any file; a device without end is read no further than this, either.
        limit: bytes.

    Raises:
        ValueError: the file has more.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"it has more than {limit:,} bytes")
    return data


def parse_json(text: str | bytes) -> Any:
    """Read JSON.

    Raises:
        ValueError: it is no JSON, or is nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def is_printable(text: str) -> bool:
    """Whether a text stays on its line, in its direction, and can be written as UTF-8."""
    return _UNPRINTABLE.search(text) is None


def printable(text: str) -> str:
    r"""A text on one line, with what is not printable as \x1b, \n or \u202e."""
    return _UNPRINTABLE.sub(lambda found: ascii(found.group())[1:-1], text)


def short_repr(value: Any) -> str:
    """A value for a message: `repr`, but short whatever it is."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python writes no numbers of more than 4300 digits
        return f"a {type(value).__name__} with a number of thousands of digits"


def one_line(error: Exception | str) -> str:
    """Another library's error message as a part of ours: one line of bounded length."""
    text = " ".join(str(error).split())
    return printable(text if len(text) <= SENTENCE else f"{text[:SENTENCE]}...")


def escape_control(value: Any, levels: int = 50) -> Any:
    """A copy of what JSON gave with every text `printable`.

    Raises:
        ValueError: it is nested deeper than `levels`.
    """
    if isinstance(value, str):
        return printable(value)
    if not isinstance(value, list | dict):
        return value
    if not levels:
        raise ValueError("it is nested too deeply")
    if isinstance(value, list):
        return [escape_control(item, levels - 1) for item in value]
    return {printable(key): escape_control(item, levels - 1) for key, item in value.items()}


def spreadsheet_text(text: str) -> str:
    """A text for a cell of a CSV, which spreadsheets run when it begins like a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
