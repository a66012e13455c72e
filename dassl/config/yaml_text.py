"""YAML from untrusted sources: no objects, no expansion without end, no hidden work.

Aliases let a few lines stand for billions of values, and a scalar of a megabyte of digits takes
hours to become a number; both are refused before anything is built.
"""

from typing import Any

import yaml

from safeio.untrusted import short_repr

MAX_BYTES = 1 << 20
MAX_VALUES = 100_000
MAX_DEPTH = 50
MAX_NUMBER = 1000  # characters
_TEXT = "tag:yaml.org,2002:str"
# What PyYAML's constructors raise for a value that its tag does not fit, such as `!!bool maybe`.
_FAULTS = (LookupError, AttributeError, TypeError, ArithmeticError)


class _Loader(yaml.SafeLoader):
    """SafeLoader with bounds."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._sizes: dict[int, int] = {}  # values below each finished node, aliases expanded

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
            raise ValueError("an alias names what it stands in")
        if self._sizes[id(node)] > MAX_VALUES:
            raise ValueError(f"it stands for more than {MAX_VALUES:,} values")
        return node


def _children(node: Any) -> list[Any]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if node.tag != _TEXT and len(node.value) > MAX_NUMBER:
        raise ValueError(f"{short_repr(node.value)} is no value of a configuration")
    return []


def parse_yaml(text: str) -> Any:
    """Read YAML of plain values.

    Args:
        text: of at most `MAX_BYTES` in UTF-8.

    Raises:
        ValueError: it goes beyond the bounds at the top of this file.
        yaml.YAMLError: it is no YAML, or names objects.
    """
    try:
        return _Loader(text).get_single_data()
    except (yaml.YAMLError, ValueError):
        raise
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except _FAULTS as error:
        raise ValueError(f"a value does not fit its tag ({error})") from error
