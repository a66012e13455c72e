"""Make the runs of a sweep file, each with its whole configuration, and check all of them."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from dassl.config import CfgNode, to_dict
from dassl.config.checks import check_values
from dassl.config.loading import merge_files, reset_unread
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY, check_trainer
from dassl.utils import check_availability
from dassl.utils.registry import skipped_plugins
from safeio.errors import UserError
from trainers.config_names import config_file

from .runs import Run, digest_of
from .sweep_file import RESERVED, Case, Evaluation, Method, Settings, SweepFile

MOST_RUNS = 20_000
ROOT = Path(__file__).parents[2]


def make_runs(
    sweep: SweepFile,
    output: Path | None = None,
    root: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> list[Run]:
    """Return a sweep's runs in their order of execution.

    Zero-shot runs come first, since they cache the test features that all others use, then those
    with the most shots. Each evaluation follows the run whose model it tests.

    Args:
        sweep: the sweep file.
        output: overrides the file's output folder.
        root: overrides DATASET.ROOT.
        settings: values by key for every run, which override all others.

    Raises:
        UserError: a name, a key or a value is invalid, or two methods describe the same run.
    """
    overrides = {**({"DATASET.ROOT": root} if root is not None else {}), **(settings or {})}
    for key in set(overrides) & set(RESERVED):
        raise UserError(f'{key} cannot be set here; use the sweep\'s key "{RESERVED[key]}"')
    _check_number(sweep)
    grid = _Grid(sweep, output or sweep.output, overrides)
    groups = [group for method in sweep.methods for group in grid.of_method(method)]
    groups.sort(key=lambda group: (group[0].shots > 0, -group[0].shots))
    runs: dict[str, Run] = {}
    for run in itertools.chain(*groups):
        other = runs.setdefault(run.digest, run)
        if other is not run:
            raise UserError(
                f"{other.name} and {run.name} are the same run; change a setting or leave one of "
                "them out"
            )
    return list(runs.values())


def _check_number(sweep: SweepFile) -> None:
    """Raise an error if the grid has too many runs to list; short lists multiply quickly."""
    count = 0
    for method in sweep.methods:
        points = math.prod(len(values) for values in method.grid.values())
        tests = sum(len(item.datasets) or 1 for item in sweep.evaluations)
        trainings = len(method.datasets) * len(method.shots) * len(method.seeds) * points
        count += trainings * (1 + tests)
    if count > MOST_RUNS:
        raise UserError(
            f"{sweep.path} describes {count:,} runs, but a sweep has at most {MOST_RUNS:,}; split "
            "it into several"
        )


@dataclass(frozen=True)
class _Grid:
    """Makes the runs of one sweep, in the folder `output`; `overrides` override all settings."""

    sweep: SweepFile
    output: Path
    overrides: Mapping[str, Any]

    def of_method(self, method: Method) -> Iterator[list[Run]]:
        """Yield every run of a method, followed by its evaluations."""
        where = f"{self.sweep.path}: methods.{method.label}"
        with _error_prefix(f"{where}: trainer"):
            if skipped_plugins:
                TRAINER_REGISTRY.get(method.trainer)
            check_availability(method.trainer, TRAINER_REGISTRY.registered_names())
        points = [
            dict(zip(method.grid, values, strict=True))
            for values in itertools.product(*method.grid.values())
        ]
        cells = itertools.product(method.datasets, method.shots, method.seeds, points)
        for dataset, shots, seed, point in cells:
            make = partial(self._run, method, dataset, shots, seed, point)
            run = make()
            tests = [
                make((item, target, run))
                for item in self.sweep.evaluations
                for target in item.datasets or (dataset,)
            ]
            yield [run, *tests]

    def _run(
        self,
        method: Method,
        dataset: str,
        shots: int,
        seed: int,
        point: Settings,
        test: tuple[Evaluation, str, Run] | None = None,
    ) -> Run:
        path = self.sweep.path
        target = test[1] if test else dataset
        with _error_prefix(f"{path}: datasets"):
            dataset_file = config_file("datasets", target)
        with _error_prefix(f"{path}: methods.{method.label}"):
            method_file = config_file(f"trainers/{method.trainer}", method.config)
            cfg = _layers(dataset_file, method_file).clone()
        identity = {"TRAINER.NAME": method.trainer, "SEED": seed, "DATASET.NUM_SHOTS": shots}
        layers = [identity, self.sweep.settings, *_applying(self.sweep.cases, dataset, shots)]
        layers += [method.settings, *_applying(method.cases, dataset, shots), point]
        for settings in (*layers, test[0].settings if test else {}):
            _set(cfg, settings, str(path))
        _set(cfg, self.overrides, "the command line")
        reset_unread(cfg)
        _check_run(cfg, path)
        config = to_dict(cfg)
        digest = digest_of(config, test[2].digest if test else None)
        parts = [_stem(dataset), _slug(method.label), f"shots_{shots}"]
        if test:
            parts.append(f"test_{_slug(_test_name(*test[:2]))}")
        parts.append("-".join([f"seed{seed}", *_point_names(point), digest[:10]]))
        return Run(
            name="/".join(parts),
            output=self.output,
            method=method.label,
            dataset=_stem(dataset),
            shots=shots,
            config=config,
            digest=digest,
            source=test[2] if test else None,
            point=point,
            notes=tuple(cfg.notes),
        )


def _applying(cases: Sequence[Case], dataset: str, shots: int) -> list[Settings]:
    return [case.settings for case in cases if case.applies(dataset, shots)]


@lru_cache(maxsize=256)
def _layers(dataset_file: str, method_file: str) -> CfgNode:
    """Return the configuration of two files; clone it before changing it."""
    return merge_files(dataset_file, method_file)


def _set(cfg: CfgNode, settings: Mapping[str, Any], source: str) -> None:
    for key, value in settings.items():
        cfg.set_value(key, value, source=source)


@contextmanager
def _error_prefix(where: str) -> Iterator[None]:
    """Prefix the messages of UserErrors."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _check_run(cfg: CfgNode, path: Path) -> None:
    """Raise the errors that a run would raise, as far as possible without loading anything."""
    with _error_prefix(str(path)):
        check_values(cfg)
        DATASET_REGISTRY.get(cfg.DATASET.NAME)
        check_trainer(cfg)


def _stem(name: str) -> str:
    return _slug(Path(name).stem if name.endswith((".yaml", ".yml")) else name)


def _slug(text: str) -> str:
    """Return a text as a part of a file name."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", text)[:60]


def _test_name(item: Evaluation, target: str) -> str:
    if not item.name:
        return _stem(target)
    return f"{item.name}_{_stem(target)}" if len(item.datasets) > 1 else item.name


def _point_names(point: Mapping[str, Any]) -> list[str]:
    """Return KEY_VALUE of each grid axis; KEY is the key's last part if that is unique."""
    count = Counter(_last_name(key) for key in point)
    short = {key: _last_name(key) if count[_last_name(key)] == 1 else key for key in point}
    return [f"{short[key]}_{_slug(str(value))}" for key, value in point.items()]


def _last_name(key: str) -> str:
    return key.rpartition(".")[2]
