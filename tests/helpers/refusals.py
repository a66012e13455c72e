"""Errors for people: one sentence, with certain parts."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from safeio.errors import UserError


@contextmanager
def refused(*parts: str, kind: type[Exception] = UserError) -> Iterator[None]:
    """The block raises an error of one line that matches all regular expressions."""
    with pytest.raises(kind) as raised:
        yield
    message = str(raised.value)
    assert "\n" not in message
    for part in parts:
        assert re.search(part, message), message
