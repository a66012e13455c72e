"""Parser for command lines with flags and KEY VALUE pairs in any order."""

import argparse
import re
import sys
from collections.abc import Collection, Sequence
from itertools import islice
from typing import Any

from safeio.errors import UserError
from safeio.untrusted import one_line

from .command_line import Parser

_WORD = re.compile(r"[A-Za-z_]\w*")
_SEVERAL = ("+", "*", argparse.REMAINDER)


class PairsParser(Parser):
    """Parser that collects KEY VALUE pairs between the flags in `opts`.

    A KEY ends the values of a flag that takes several: it is a dotted name whose first part is a
    known group or in capitals, or the name of a setting outside of all groups.

    Args:
        description: see `Parser`.
        groups: names of the groups of settings.
        settings: names of the settings outside of all groups.
    """

    def __init__(
        self, description: str | None, groups: Collection[str], settings: Collection[str]
    ) -> None:
        super().__init__(description)
        self._groups = groups
        self._settings = settings
        self.add_argument("opts", nargs="*", metavar="KEY VALUE", help="override any setting")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse a command line; see `argparse`.

        Raises:
            UserError: a KEY has no VALUE.
        """
        flags, pairs = self._split(sys.argv[1:] if args is None else args)
        arguments, rest = super().parse_known_args(flags, namespace)
        arguments.opts = pairs if rest else _checked(pairs)
        return arguments, rest

    def _split(self, words: Sequence[str]) -> tuple[list[str], list[str]]:
        flags: list[str] = []
        pairs: list[str] = []
        several = False  # whether the last flag takes further values
        remaining = iter(words)
        for word in remaining:
            if word == "--":
                pairs += remaining
            elif word.startswith("-"):
                flags.append(word)
                takes = 0 if "=" in word else self._values_of(word)
                several = takes in _SEVERAL
                if takes is None:
                    flags += islice(remaining, 1)
            elif several and not self._is_key(word):
                flags.append(word)
            else:
                several = False
                pairs += [word, *islice(remaining, 1)]
        return flags, pairs

    def _values_of(self, flag: str) -> Any:
        """Return argparse's `nargs` of a flag."""
        action = self._option_string_actions.get(flag)
        return action.nargs if action else 0

    def _is_key(self, word: str) -> bool:
        first, *others = word.partition("=")[0].split(".")
        if not all(_WORD.fullmatch(name) for name in (first, *others)):
            return False
        if not others:
            return first in self._settings
        return first.isupper() or first.upper() in self._groups


def _checked(pairs: list[str]) -> list[str]:
    """Return the pairs unchanged.

    Raises:
        UserError: a KEY has no VALUE, or its VALUE is a flag.
    """
    for key, value in zip(pairs[::2], [*pairs[1::2], None], strict=False):
        if "=" in key:
            raise UserError(
                f'"{one_line(key)}" is not a setting; write two words, KEY VALUE, such as '
                f"{one_line(key.replace('=', ' ', 1))}"
            )
        if value is None or value.startswith("--"):
            raise UserError(
                f'"{one_line(key)}" is not a flag, and as a setting it has no value; write '
                "settings as pairs KEY VALUE, such as DATASET.NUM_SHOTS 16"
            )
    return pairs
