"""YACS node with checked merging and hints for unknown keys."""

import ast
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from yacs.config import CfgNode as YacsNode

from safeio.errors import UserError
from safeio.untrusted import one_line, read_bounded, short_repr

from .hints import hint
from .yaml_text import MAX_BYTES, parse_yaml

BASE_KEY = "_BASE_"
MAX_BASES = 20
LONGEST_NUMBER = 1 << 10  # bits; Python refuses to print much longer integers
LONGEST_LITERAL = 1 << 16  # characters; longer texts are not parsed

# Called with the path of a missing file: return the content it would have, or None if the path is
# no known name. The content has a `_BASE_`.
CONFIG_RULES: list[Callable[[Path], dict[str, Any] | None]] = []

Config: TypeAlias = YacsNode  # type of parameters: this CfgNode, or that of third-party code


class CfgNode(YacsNode):
    """YACS' CfgNode with checked merging.

    Unknown keys, and values of another type than the default's, raise `UserError` with the file,
    the key and a hint. YAML is loaded safely, and Python files are never run as configuration.
    """

    @property
    def notes(self) -> list[str]:
        """Notes on the origin of settings, for the head of a run's log.

        Notes on settings that were overridden, or that are another trainer's, are left out.
        """
        trainer = self.TRAINER.NAME.upper()

        def applies(key: str, value: Any) -> bool:
            group = key.split(".")[1] if key.startswith("TRAINER.") else ""
            return self._find(key) == value and group in trainer  # NEMESIS is in COOPNEMESIS

        notes = self.__dict__.get(_NOTES, ())
        return [text for text, key, value in notes if not key or applies(key, value)]

    def add_note(self, text: str, key: str = "") -> None:
        """Add a note, which `notes` contains as long as the setting `key` has its present value."""
        self.__dict__.setdefault(_NOTES, []).append((text, key, self._find(key) if key else None))

    def merge_from_file(self, cfg_filename: str) -> None:
        """Merge a YAML file after the file in its `_BASE_`.

        Raises:
            UserError: the file is missing, not a mapping, in a cycle, or has an invalid entry.
        """
        layers = read_yaml_layers(Path(cfg_filename))
        for number, (path, content) in enumerate(layers):
            self.merge_tree(content, source=str(path))
            if not path.is_file():
                settings = [f"{key} {value!r}" for key, value in content.items()]
                means = ", ".join([short_path(layers[number - 1][0]), *settings])
                self.add_note(f"{short_path(path)} means {means}")

    def merge_from_list(self, cfg_list: Sequence[Any]) -> None:
        """Merge [KEY, VALUE, KEY, VALUE, ...]; values may be strings as typed in a shell.

        Raises:
            UserError: the number of items is odd, a key is unknown or a value has the wrong type.
        """
        if len(cfg_list) % 2:
            raise UserError(
                f"Overrides are pairs KEY VALUE, but {len(cfg_list)} items were passed: "
                + one_line(" ".join(str(item) for item in cfg_list))
            )
        for key, value in zip(cfg_list[::2], cfg_list[1::2], strict=True):
            self.set_value(str(key), value, source="the command line")

    def merge_tree(self, tree: dict[str, Any], source: str, prefix: str = "") -> None:
        """Merge nested dictionaries; `source` is their origin for error messages."""
        for key, value in tree.items():
            path = f"{prefix}{key}"
            known = self._find(path)
            # An unknown group is merged, too, so that the error message states a complete key.
            group = isinstance(known, YacsNode) or known is _MISSING
            if isinstance(value, dict) and value and group:
                self.merge_tree(value, source, prefix=f"{path}.")
            else:
                self.set_value(path, value, source)

    def set_value(self, path: str, value: Any, source: str) -> None:
        """Set one entry by its dotted path.

        Raises:
            UserError: the key is unknown or the value has the wrong type.
        """
        if self.is_frozen():
            raise AttributeError(f"{path} cannot be set: the configuration is frozen")
        old = self._find(path)
        if old is _MISSING:
            raise UserError(f'{source}: the key "{one_line(path)}" is unknown{hint(path, self)}')
        if isinstance(old, YacsNode):
            raise UserError(
                f'{source}: "{path}" is a group of keys ({", ".join(list(old)[:4])}, ...), '
                f"which cannot be set to {short_repr(value)}"
            )
        *parents, last = path.split(".")
        node: Any = self
        for name in parents:
            node = node[name]
        # A default of None allows any type, even after an earlier file has set a value.
        if old is None:
            self.__dict__.setdefault(_UNTYPED, set()).add(path)
        if path in self.__dict__.get(_UNTYPED, ()):
            old = None
        words = WORDS.get(path, ())
        # A path with words has numbers otherwise, even after an earlier file has set a word.
        node[last] = value if value in words else _coerce(value, 0 if words else old, path, source)

    def _find(self, path: str) -> Any:
        node: Any = self
        for name in path.split("."):
            if not isinstance(node, YacsNode) or name not in node:
                return _MISSING
            node = node[name]
        return node


_MISSING = object()
_NOTES = "__notes__"
_UNTYPED = "__untyped__"  # paths whose default is None
WORDS: dict[str, tuple[str, ...]] = {}  # path -> words that it takes besides whole numbers
_VALUE_TYPES = (bool, int, float, str, tuple, list, type(None))  # as in YACS


def _parse(text: str) -> Any:
    """Parse text as true/false or a Python literal; return it unchanged if it is neither."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if len(text) > LONGEST_LITERAL:
        return text
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SyntaxWarnings would confuse users
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return text


def _is_compatible(value: Any, old: Sequence[Any]) -> bool:
    """Return whether `value` is a sequence, and one of numbers if `old` is."""
    if not isinstance(value, tuple | list):
        return False
    numbers = bool(old) and all(isinstance(item, int | float) for item in old)
    return not numbers or all(isinstance(item, int | float) for item in value)


def _coerce(value: Any, old: Any, path: str, source: str) -> Any:
    """Convert `value` to the type of `old`; text is parsed, and int is accepted for float."""
    if type(value) is type(old) and not isinstance(old, tuple | list):
        return value
    # YAML reads 2e-3 and (224, 224) as text, and a shell passes only text.
    parsed = _parse(value) if isinstance(value, str) else value
    if type(parsed) is int and parsed.bit_length() > LONGEST_NUMBER:
        parsed = short_repr(parsed)  # too long for any setting
    if old is None:
        return parsed if isinstance(parsed, _VALUE_TYPES) else value
    if type(parsed) is type(old) and not isinstance(old, tuple | list):
        return parsed
    if isinstance(old, float) and type(parsed) is int:
        with suppress(OverflowError):
            return float(parsed)
    if isinstance(old, tuple | list) and _is_compatible(parsed, old):
        return type(old)(parsed)
    words = "".join(f", or {word!r}" for word in WORDS.get(path, ()))
    raise UserError(
        f'{source}: "{path}" takes a value of type {type(old).__name__} such as {old!r}{words}, '
        f"not {short_repr(value)}"
    )


def read_yaml_layers(path: Path, inner: tuple[Path, ...] = ()) -> list[tuple[Path, dict[str, Any]]]:
    """Read a YAML file and its chain of base files.

    Args:
        path: the file.
        inner: the files whose base this is, to detect cycles.

    Returns:
        (file, content without `_BASE_`), the outermost base first.

    Raises:
        UserError: a file is missing, is not a YAML mapping, or is its own base.
    """
    path = _checked_path(path)
    if path.resolve() in inner:
        raise UserError(f"{path}: the {BASE_KEY} entries form a cycle")
    if len(inner) >= MAX_BASES:
        raise UserError(f"{path}: the chain of {BASE_KEY} entries has more than {MAX_BASES} files")
    content = _read_yaml(path)
    base = content.pop(BASE_KEY, None)
    if base is None:
        return [(path, content)]
    if not isinstance(base, str):
        raise UserError(f"{path}: {BASE_KEY} takes the path of one file, not {short_repr(base)}")
    return [*read_yaml_layers(path.parent / base, (*inner, path.resolve())), (path, content)]


def short_path(path: Path) -> str:
    """Return a path relative to the working folder if it is in it, for messages."""
    here, path = Path.cwd().resolve(), path.resolve()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _checked_path(path: Path) -> Path:
    """Expand a path, which may come from an untrusted file, and refuse invalid ones."""
    try:
        path = path.expanduser()
        path.resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f'"{one_line(str(path))}" is not a valid path: {error}') from error
    return path


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = parse_yaml(read_bounded(path, MAX_BYTES).decode())
    except FileNotFoundError as error:
        for rule in CONFIG_RULES:
            named = rule(path)
            if named is not None:
                return named
        raise UserError(f"The config file {path} does not exist") from error
    except OSError as error:
        raise UserError(f"The config file {path} cannot be read: {error.strerror}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not a YAML file: {one_line(error)}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a YAML mapping of keys to values")
    return {str(key): value for key, value in content.items()}


def to_dict(cfg: Any) -> Any:
    """Convert nodes to dictionaries and tuples to lists, for JSON."""
    if isinstance(cfg, dict):
        return {key: to_dict(value) for key, value in cfg.items()}
    if isinstance(cfg, tuple | list):
        return [to_dict(value) for value in cfg]
    return cfg
