"""YAML from strangers: no objects, no expansion without end, no hidden work.

Aliases let a few lines stand for billions of values, and a scalar of a megabyte of digits takes
hours to become a number; both are refused before anything is built.
"""

from typing import Any

import yaml

from safeio.untrusted import shown

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
        self._count = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a value; as many as there may be."""
        self._count += 1
        if self._count > MAX_VALUES:
            raise ValueError(f"it holds more than {MAX_VALUES:,} values")
        return super().compose_node(parent, index)

    def get_single_data(self) -> Any:
        """The document's content."""
        node = self.get_single_node()
        if node is None:
            return None
        _check(node, {}, 0)
        return self.construct_document(node)


def _check(node: yaml.Node, sizes: dict[int, int], depth: int) -> int:
    """Count the values below a node, those behind aliases each time that they are named."""
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise ValueError("an alias names what it stands in")
        return sizes[id(node)]
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    sizes[id(node)] = 0
    size = 1
    for child in _children(node):
        size += _check(child, sizes, depth + 1)
        if size > MAX_VALUES:
            raise ValueError(f"its aliases stand for more than {MAX_VALUES:,} values")
    sizes[id(node)] = size
    return size


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if node.tag != _TEXT and len(node.value) > MAX_NUMBER:
        raise ValueError(f"{shown(node.value)} is no value of a configuration")
    return []


def parse_yaml(text: str) -> Any:
    """Read YAML of plain values.

    Args:
        text: of at most `MAX_BYTES` in UTF-8.

    Raises:
        ValueError: it goes beyond the bounds at the top of this file.
        yaml.YAMLError: it is no YAML, or names objects.
    """
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (yaml.YAMLError, ValueError):
        raise
    except _FAULTS as error:
        raise ValueError(f"a value does not fit its tag ({error})") from error
    finally:
        if loader is not None:
            loader.dispose()
