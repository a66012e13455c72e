"""YAML parser for untrusted files, without objects and with bounds on size.

With aliases, a few lines can represent billions of values, and a number with a million digits
takes hours to parse. Both are refused before any value is constructed.
"""

from typing import Any

import yaml

from safeio.untrusted import short_repr

MAX_BYTES = 1 << 20
MAX_VALUES = 100_000
MAX_DEPTH = 50
MAX_NUMBER = 1000  # characters
_TEXT = "tag:yaml.org,2002:str"
# PyYAML's constructors raise these for a value that does not match its tag, as `!!bool maybe`.
_TAG_ERRORS = (LookupError, AttributeError, TypeError, ArithmeticError)


class _Loader(yaml.SafeLoader):
    """SafeLoader with bounds on depth, size and numbers."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._sizes: dict[int, int] = {}  # number of values below a node, with aliases expanded

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a value and check its depth and size."""
        is_alias = self.check_event(yaml.AliasEvent)
        self._depth += 1
        if self._depth > MAX_DEPTH + 1:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if not is_alias:
            self._sizes[id(node)] = 1 + sum(self._sizes[id(child)] for child in _children(node))
        elif id(node) not in self._sizes:
            raise ValueError("an alias refers to a value that contains it")
        if self._sizes[id(node)] > MAX_VALUES:
            raise ValueError(f"it expands to more than {MAX_VALUES:,} values")
        return node


def _children(node: Any) -> list[Any]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if node.tag != _TEXT and len(node.value) > MAX_NUMBER:
        raise ValueError(f"{short_repr(node.value)} is too long for a value that is not text")
    return []


def parse_yaml(text: str) -> Any:
    """Parse YAML without objects.

    Args:
        text: at most `MAX_BYTES` in UTF-8.

    Raises:
        ValueError: it exceeds the bounds at the top of this file.
        yaml.YAMLError: it is not valid YAML, or contains objects.
    """
    try:
        return _Loader(text).get_single_data()
    except (yaml.YAMLError, ValueError):
        raise
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except _TAG_ERRORS as error:
        raise ValueError(f"a value does not match its tag ({error})") from error
