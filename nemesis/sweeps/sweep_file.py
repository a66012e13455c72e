"""Read and validate a sweep file, for one of its profiles."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dassl.config.node import read_yaml_layers
from dassl.utils.names import check_availability, choices
from safeio.errors import UserError
from safeio.files import PathLike
from safeio.untrusted import one_line, short_repr

from .selection import Selection

SWEEPS = Path(__file__).parents[2] / "configs/sweeps"
PAPER = "paper"
LISTS = ("datasets", "shots", "seeds")
KEYS = (
    *("title", "baseline", "paper", "over_shots", "output", *LISTS, "config"),
    *("methods", "grid", "set", "cases", "evaluate", "profiles"),
)
REQUIRED = ("output", *LISTS, "methods")
METHOD_KEYS = ("trainer", "config", "set", "cases", "grid", *LISTS)
CASE_KEYS = ("datasets", "shots", "set")
EVALUATE_KEYS = ("name", "datasets", "set")
INHERITED = ("config", "grid", *LISTS)  # keys of the file that a method may override
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
    """Settings for the runs whose dataset and shots are listed; an empty list means all."""

    datasets: tuple[str, ...]
    shots: tuple[int, ...]
    settings: Settings

    def applies(self, dataset: str, shots: int) -> bool:
        """Return whether the case includes a run."""
        return (not self.datasets or dataset in self.datasets) and (
            not self.shots or shots in self.shots
        )


@dataclass(frozen=True)
class Method:
    """A row of the table: a trainer, its configuration file, settings and lists."""

    label: str
    trainer: str
    config: str
    settings: Settings
    cases: tuple[Case, ...]
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
    """Content of a sweep file for one profile.

    Attributes:
        path: the file.
        output: folder of all runs.
        methods: the rows.
        settings: of all runs.
        cases: settings of some runs, which override `settings`.
        evaluations: tests of every trained run.
        title: heading of the sweep's report.
        baseline: the row that the report compares with; "" for its default.
        paper: tables of the paper that the report shows, such as a5.
        over_shots: whether the report shows the mean over the shots.
    """

    path: Path
    output: Path
    methods: tuple[Method, ...]
    settings: Settings
    cases: tuple[Case, ...]
    evaluations: tuple[Evaluation, ...]
    title: str
    baseline: str
    paper: tuple[str, ...]
    over_shots: bool

    @property
    def name(self) -> str:
        """The argument of `nemesis sweep` for this file."""
        return self.path.stem if self.path.parent == SWEEPS else str(self.path)


def sweep_path(name: PathLike) -> Path:
    """Return the file of a sweep, given its path or its name in configs/sweeps without .yaml.

    Raises:
        UserError: `name` is neither.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    check_availability(str(name), sorted(file.stem for file in SWEEPS.glob("*.yaml")))
    return SWEEPS / f"{name}.yaml"


def read_sweep(
    path: PathLike, profile: str = PAPER, selection: Selection | None = None
) -> SweepFile:
    """Read a sweep file.

    Args:
        path: the YAML file; its keys override those of its `_BASE_` file, and the keys of each
            profile override those of the same profile there.
        profile: `paper`, or one of the file's `profiles`, whose keys override the file's.
        selection: overrides the file's and the profile's keys.

    Raises:
        UserError: the file cannot be read, a key is unknown or missing, or a list is empty.
    """
    source = Path(path)
    content: dict[str, Any] = {}
    profiles: dict[str, dict[str, Any]] = {}
    for layer_path, layer in read_yaml_layers(source):
        own = _Section(layer, KEYS, str(layer_path)).values
        where = f"{layer_path}: profiles"
        for name, keys in _mapping(own.pop("profiles", {}), where).items():
            section = _Section(keys, KEYS[:-1], f"{where}.{name}")
            profiles[name] = profiles.get(name, {}) | section.values
        content.update(own)
    if profile != PAPER:
        if profile not in profiles:
            names = ", ".join([PAPER, *profiles])
            raise UserError(f'{source} has no profile "{one_line(profile)}"; it has {names}')
        content.update(profiles[profile])
    if selection is not None:
        content = selection.apply(content)
    for key in REQUIRED:
        if key not in content:
            raise UserError(f'{source}: the key "{key}" is missing; it needs {", ".join(REQUIRED)}')
    return _read(_Section(content, KEYS, str(source)), source)


def _read(file: "_Section", path: Path) -> SweepFile:
    methods = _mapping(file.values["methods"], f"{path}: methods")
    if not methods:
        raise UserError(f"{path}: methods is empty; name at least one")
    return SweepFile(
        path,
        Path(file.text("output")).expanduser(),
        tuple(_method(str(label), entry, file) for label, entry in methods.items()),
        file.settings("set"),
        file.cases(),
        tuple(map(_evaluation, file.entries("evaluate", EVALUATE_KEYS))),
        file.text("title", path.stem),
        file.text("baseline", ""),
        file.texts("paper"),
        file.values.get("over_shots") is True,
    )


def _method(label: str, entry: Any, file: "_Section") -> Method:
    own = _Section(entry or {}, METHOD_KEYS, f"{file.where}: methods.{label}", file)
    if "config" not in own.values and "config" not in file.values:
        raise UserError(f"{own.where}: the key config is missing; it takes a name, such as rn50")
    return Method(
        label,
        own.text("trainer", label),
        own.text("config"),
        own.settings("set"),
        own.cases(),
        own.grid(),
        own.texts("datasets"),
        own.numbers("shots"),
        own.numbers("seeds"),
    )


def _evaluation(own: "_Section") -> Evaluation:
    if not own.values.keys() & {"name", "datasets"}:
        raise UserError(f"{own.where} needs a name, datasets, or both")
    return Evaluation(own.text("name", ""), own.texts("datasets"), own.settings("set"))


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where} takes a mapping of keys to values, not {short_repr(value)}")
    return dict(value)


class _Section:
    """A mapping of a sweep file, which checks its keys, and its values when they are read.

    Args:
        value: the mapping.
        keys: the accepted keys.
        where: its place, for error messages.
        file: the whole file; a method inherits some of its keys.
    """

    def __init__(
        self, value: Any, keys: Sequence[str], where: str, file: "_Section | None" = None
    ) -> None:
        self.values = _mapping(value, where)
        self.where = where
        self.file = file
        for key in map(str, self.values):
            if key not in keys:
                raise UserError(
                    f'{where}: the key "{one_line(key)}" is unknown{choices(key, keys)}'
                )

    def _get(self, key: str, default: Any = None) -> tuple[Any, str]:
        """Return a value and its place."""
        if self.file and key in INHERITED and key not in self.values:
            return self.file._get(key, default)
        return self.values.get(key, default), f"{self.where}: {key}"

    def text(self, key: str, default: str | None = None) -> str:
        value, where = self._get(key, default)
        if value is not default and (not isinstance(value, str) or not value):
            raise UserError(f"{where} takes a text, not {short_repr(value)}")
        return str(value)

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(map(str, self._list(key, "[emoji_food]")[0]))

    def numbers(self, key: str) -> tuple[int, ...]:
        values, where = self._list(key, "[1, 2, 3]")
        for item in values:
            if type(item) is not int or item < 0:
                raise UserError(f"{where} takes whole numbers from 0 on, not {short_repr(item)}")
        return tuple(values)

    def _list(self, key: str, example: str) -> tuple[Sequence[Any], str]:
        value, where = self._get(key, ())
        if value is None or value == []:
            raise UserError(f"{where} is empty; write a list such as {example}")
        return value if isinstance(value, list | tuple) else [value], where

    def settings(self, key: str) -> Settings:
        value, where = self._get(key)
        settings = _mapping(value or {}, where)
        for name in set(settings) & set(RESERVED):
            raise UserError(
                f'{where}: {name} cannot be set here; use the sweep\'s key "{RESERVED[name]}"'
            )
        return {str(name): entry for name, entry in settings.items()}

    def grid(self) -> dict[str, tuple[Any, ...]]:
        axes = self.settings("grid")
        for name, values in axes.items():
            if not isinstance(values, list) or not values:
                raise UserError(
                    f"{self._get('grid')[1]}: {name} takes a list of at least one value, not "
                    f"{short_repr(values)}"
                )
        return {name: tuple(values) for name, values in axes.items()}

    def entries(self, key: str, keys: Sequence[str]) -> "list[_Section]":
        value, where = self._get(key)
        if not isinstance(value or [], list):
            raise UserError(f"{where} takes a list, not {short_repr(value)}")
        return [_Section(e, keys, f"{where}[{number}]") for number, e in enumerate(value or [])]

    def cases(self) -> tuple[Case, ...]:
        entries = self.entries("cases", CASE_KEYS)
        return tuple(
            Case(e.texts("datasets"), e.numbers("shots"), e.settings("set")) for e in entries
        )
