"""Read and validate a sweep file, for one of its profiles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dassl.config.node import read_yaml_layers
from dassl.utils.tools import get_most_similar_str_to_a_from_b
from safeio.errors import UserError
from safeio.files import PathLike
from safeio.untrusted import one_line, short_repr

PAPER = "paper"
KEYS = (
    *("output", "datasets", "shots", "seeds", "config", "methods"),
    *("grid", "set", "cases", "evaluate", "bench"),
)
REQUIRED = ("output", "datasets", "shots", "seeds", "methods")
METHOD_KEYS = ("trainer", "config", "set", "grid", "datasets", "shots", "seeds")
CASE_KEYS = ("datasets", "shots", "methods", "set")
EVALUATE_KEYS = ("name", "datasets", "set")
# Settings that a key of the sweep file determines, so that `set` and `grid` must not.
RESERVED = {
    "OUTPUT_DIR": "output",
    "RESUME": "output",
    "SEED": "seeds",
    "DATASET.NUM_SHOTS": "shots",
    "TRAINER.NAME": "methods",
}

Settings = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """Settings for the runs whose dataset, shots and method are all listed; empty means all."""

    datasets: tuple[str, ...]
    shots: tuple[int, ...]
    methods: tuple[str, ...]
    settings: Settings

    def applies(self, dataset: str, shots: int, method: str) -> bool:
        """Return whether the case includes a run."""
        pairs: tuple[tuple[Any, Sequence[Any]], ...] = (
            (dataset, self.datasets),
            (shots, self.shots),
            (method, self.methods),
        )
        return all(not listed or value in listed for value, listed in pairs)


@dataclass(frozen=True)
class Method:
    """A row of the table: a trainer, its configuration file, settings and lists."""

    label: str
    trainer: str
    config: str
    settings: Settings
    grid: dict[str, tuple[Any, ...]]
    datasets: tuple[str, ...]
    shots: tuple[int, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Evaluation:
    """A test of every trained run with other datasets or settings; no datasets means its own."""

    name: str
    datasets: tuple[str, ...]
    settings: Settings


@dataclass(frozen=True)
class SweepFile:
    """Content of a sweep file for one profile."""

    path: Path
    output: Path
    methods: tuple[Method, ...]
    settings: Settings
    cases: tuple[Case, ...] = ()
    evaluations: tuple[Evaluation, ...] = field(default=())


def read_sweep(path: PathLike, bench: str = PAPER) -> SweepFile:
    """Read a sweep file.

    Args:
        path: the YAML file; its keys override those of its `_BASE_` file, and the keys of each
            profile override those of the same profile there.
        bench: `paper`, or a profile under the file's `bench`, whose keys override the file's.

    Raises:
        UserError: the file cannot be read, a key is unknown or missing, or a list is empty.
    """
    source = Path(path)
    content: dict[str, Any] = {}
    profiles: dict[str, dict[str, Any]] = {}
    for layer_path, layer in read_yaml_layers(source):
        _known(layer, KEYS, str(layer_path))
        for name, keys in _mapping(layer.pop("bench", {}), f"{layer_path}: bench").items():
            where = f"{layer_path}: bench.{name}"
            own = _mapping(keys, where)
            _known(own, [key for key in KEYS if key != "bench"], where)
            profiles[name] = {**profiles.get(name, {}), **own}
        content.update(layer)
    if bench != PAPER:
        if bench not in profiles:
            names = ", ".join([PAPER, *profiles])
            raise UserError(f'{source} has no profile "{bench}" under bench; it has {names}')
        content.update(profiles[bench])
    for key in REQUIRED:
        if key not in content:
            raise UserError(f'{source}: the key "{key}" is missing; it needs {", ".join(REQUIRED)}')
    return _Reader(source, content).read()


class _Reader:
    """Turns the content of a file into a `SweepFile`."""

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self.path = path
        self.content = content

    def read(self) -> SweepFile:
        content, path = self.content, self.path
        if not isinstance(content["output"], str) or not content["output"]:
            raise UserError(f"{path}: output takes a folder, not {short_repr(content['output'])}")
        methods = _mapping(content["methods"], f"{path}: methods")
        if not methods:
            raise UserError(f"{path}: methods is empty; name at least one")
        return SweepFile(
            path,
            Path(content["output"]).expanduser(),
            tuple(self._method(str(label), entry) for label, entry in methods.items()),
            _settings(content.get("set"), f"{path}: set"),
            tuple(self._case(*item) for item in self._entries("cases")),
            tuple(self._evaluation(*item) for item in self._entries("evaluate")),
        )

    def _entries(self, key: str) -> list[tuple[str, Any]]:
        entries = self.content.get(key) or []
        if not isinstance(entries, list):
            raise UserError(f"{self.path}: {key} takes a list, not {short_repr(entries)}")
        return [(f"{self.path}: {key}[{number}]", entry) for number, entry in enumerate(entries)]

    def _method(self, label: str, entry: Any) -> Method:
        where = f"{self.path}: methods.{label}"
        own = _mapping(entry or {}, where)
        _known(own, METHOD_KEYS, where)
        merged = {**self.content, **own}
        places = {key: where if key in own else str(self.path) for key in KEYS}
        if "config" not in merged:
            raise UserError(
                f"{where}: the key config is missing; it takes a file of configs/trainers/TRAINER/"
            )
        return Method(
            label,
            str(own.get("trainer", label)),
            str(merged["config"]),
            _settings(own.get("set"), f"{where}: set"),
            _grid(merged.get("grid"), f"{places['grid']}: grid"),
            _texts(merged["datasets"], f"{places['datasets']}: datasets"),
            _numbers(merged["shots"], f"{places['shots']}: shots"),
            _numbers(merged["seeds"], f"{places['seeds']}: seeds"),
        )

    def _case(self, where: str, entry: Any) -> Case:
        own = _mapping(entry, where)
        _known(own, CASE_KEYS, where)
        return Case(
            _texts(own["datasets"], f"{where}: datasets") if "datasets" in own else (),
            _numbers(own["shots"], f"{where}: shots") if "shots" in own else (),
            _texts(own["methods"], f"{where}: methods") if "methods" in own else (),
            _settings(own.get("set"), f"{where}: set"),
        )

    def _evaluation(self, where: str, entry: Any) -> Evaluation:
        own = _mapping(entry, where)
        _known(own, EVALUATE_KEYS, where)
        if "name" not in own and "datasets" not in own:
            raise UserError(f"{where} needs a name, datasets, or both")
        return Evaluation(
            str(own.get("name", "")),
            _texts(own["datasets"], f"{where}: datasets") if "datasets" in own else (),
            _settings(own.get("set"), f"{where}: set"),
        )


def _known(entry: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    for key in entry:
        if key not in keys:
            nearest = get_most_similar_str_to_a_from_b(str(key), keys)
            raise UserError(
                f'{where}: the key "{one_line(str(key))}" is unknown; did you mean "{nearest}"? '
                f"Known keys: {', '.join(keys)}"
            )


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where} takes a mapping of keys to values, not {short_repr(value)}")
    return dict(value)


def _settings(value: Any, where: str) -> Settings:
    settings = _mapping(value or {}, where)
    for key in settings:
        if key in RESERVED:
            raise UserError(
                f'{where}: {key} cannot be set here; use the sweep\'s key "{RESERVED[key]}"'
            )
    return {str(key): entry for key, entry in settings.items()}


def _grid(value: Any, where: str) -> dict[str, tuple[Any, ...]]:
    axes = _settings(value, where)
    for key, values in axes.items():
        if not isinstance(values, list) or not values:
            raise UserError(
                f"{where}: {key} takes a list of at least one value, not {short_repr(values)}"
            )
    return {key: tuple(values) for key, values in axes.items()}


def _list(value: Any, where: str, example: str) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    if not values or value is None:
        raise UserError(f"{where} is empty; write a list such as {example}")
    return values


def _texts(value: Any, where: str) -> tuple[str, ...]:
    return tuple(str(item) for item in _list(value, where, "[emoji_food]"))


def _numbers(value: Any, where: str) -> tuple[int, ...]:
    values = _list(value, where, "[1, 2, 3]")
    for item in values:
        if type(item) is not int or item < 0:
            raise UserError(f"{where} takes whole numbers from 0 on, not {short_repr(item)}")
    return tuple(values)
