"""Read untrusted input within limits, and escape it so that it cannot imitate our own output.

A file of a few bytes can expand to gigabytes or nest too deeply for Python, and a name can contain
line breaks or a terminal's control codes. These functions raise ValueError, which every reader
turns into its own message.
"""

import json
import re
import reprlib
from pathlib import Path
from typing import Any

# Line breaks, control codes, bidirectional marks and surrogates.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 3
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = 8
LONGEST_LINE = 1000


def read_bounded(path: Path, limit: int) -> bytes:
    """Read a whole file, which may be endless, of at most `limit` bytes.

    Raises:
        ValueError: the file is larger.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"it has more than {limit:,} bytes")
    return data


def parse_json(text: str | bytes) -> Any:
    """Read JSON.

    Raises:
        ValueError: the text is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def is_printable(text: str) -> bool:
    """Return whether a text stays on its line and can be written as UTF-8."""
    return _UNPRINTABLE.search(text) is None


def printable(text: str) -> str:
    r"""Return a text on one line, with unprintable characters escaped as \x1b, \n or \u202e."""
    return _UNPRINTABLE.sub(lambda found: ascii(found.group())[1:-1], text)


def short_repr(value: Any) -> str:
    """Return the `repr` of any value, shortened for a message."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python does not print integers of more than 4300 digits
        return f"a {type(value).__name__} with a number of thousands of digits"


def one_line(error: Exception | str) -> str:
    """Return another library's error message on one line of bounded length."""
    text = " ".join(str(error).split())
    return printable(text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]}...")


def escape_control(value: Any, levels: int = 50) -> Any:
    """Return a copy of parsed JSON with every text made `printable`.

    Raises:
        ValueError: the value is nested deeper than `levels`.
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
    """Return the text for a CSV cell, quoted if spreadsheets would run it as a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
