"""Name rows by the settings that differ between runs: `CoOp+PAN (omega 10, tau 0.9)`."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .results import Run, is_zero_shot, method_of, trained, trained_on

# Paths and devices, keys of the cell, and settings that `TRAITS` covers.
NO_SETTINGS = (
    *("VERSION", "OUTPUT_DIR", "RESUME", "SEED", "DEVICE", "USE_CUDA", "VERBOSE"),
    *("DATASET.ROOT", "DATASET.NAME", "DATASET.NUM_SHOTS", "DATASET.SUBSAMPLE_CLASSES"),
    *("DATASET.TARGET_DOMAINS", "DATALOADER.NUM_WORKERS", "DATALOADER.CACHE_MB"),
    *("DATALOADER.TEST", "TRAIN", "TEST", "TRAINER.NAME", "MODEL.COMPILE"),
    *("MODEL.CLIP.TEXT_MEMORY", "MODEL.CLIP.DOWNLOAD_ROOT", "MODEL.BACKBONE.NAME"),
    *("INPUT.TRAIN_VIEWS", "INPUT.SIZE"),
)
EXCEPTIONS = ("TEST.FINAL_MODEL",)  # settings below a prefix of NO_SETTINGS
NEMESIS = "TRAINER.NEMESIS."
BETA = NEMESIS + "BETA"

Settings = dict[str, Any]


def flat(config: Mapping[str, Any], prefix: str = "") -> Settings:
    """Flatten a configuration to dotted keys."""
    settings: Settings = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            settings |= flat(value, f"{prefix}{name}.")
        else:
            settings[prefix + name] = value
    return settings


def settings_of(run: Run) -> Settings:
    """Return the settings of a run's training that can distinguish rows, by dotted key."""
    source = trained(run)
    nemesis = source["trainer"].endswith("Nemesis")
    return {
        key: value
        for key, value in flat(source["config"]).items()
        if _is_setting(key) and (nemesis or not key.startswith(NEMESIS))
    }


def _is_setting(key: str) -> bool:
    below = any(f"{key}.".startswith(f"{prefix}.") for prefix in NO_SETTINGS)
    return not below or key in EXCEPTIONS


def _views(run: Run) -> int | None:
    source = trained(run)
    if is_zero_shot(source):
        return None  # it has no training
    return source.get("train_views", source["config"].get("INPUT", {}).get("TRAIN_VIEWS"))


def _size(run: Run) -> str | None:
    size = run["config"].get("INPUT", {}).get("SIZE")
    return "x".join(map(str, size)) if isinstance(size, list) else None


def _torch(run: Run) -> str | None:
    version = run.get("versions", {}).get("torch")
    return str(version).partition(".")[0] if version else None


def _precision(run: Run) -> str | None:
    node = run["trainer"].removesuffix("Nemesis").upper()
    return run["config"].get("TRAINER", {}).get(node, {}).get("PREC")


def _data(run: Run, part: str) -> str | None:
    """Return the first digits of a data part's hash; see dassl/engine/provenance.py."""
    hashes = (run.get("provenance") or {}).get("data") or {}
    return (hashes.get(part) or "")[:8] or None


def _train_data(run: Run) -> str | None:
    learned_here = run.get("epochs") and not is_zero_shot(run)
    return _data(run, "train_x") if learned_here else None


# Traits that all runs of a row must share, or their mean would be meaningless.
TRAITS = {
    "backbone": lambda run: run.get("backbone"),
    "weights": lambda run: (run.get("weights_sha256") or "")[:8] or None,
    "train_views": _views,
    "size": _size,
    "split": lambda run: run["split"],
    "torch": _torch,
    "precision": _precision,
    "num_test": lambda run: run.get("num_test"),
    "test_data": lambda run: _data(run, run["split"]),
    "train_data": _train_data,
}
TRAIT_NAMES = {
    "weights": "weights (SHA-256)",
    "size": "image size",
    "torch": "major version of torch",
    "num_test": "number of test images",
    "test_data": "test data (SHA-256)",
    "train_data": "training data (SHA-256)",
}


@dataclass(frozen=True)
class Rows:
    """Runs with their row names.

    Attributes:
        runs: (row name, run).
        implied: for each method, differing settings that those in the row names determine.
    """

    runs: list[tuple[str, Run]]
    implied: dict[str, list[str]]


def name_rows(runs: Sequence[Run], by: Sequence[str] = ()) -> Rows:
    """Name the row of each run by its method and the settings that distinguish the method's rows.

    A setting is part of the name if runs of one method on the same data differ in it. Settings that
    differ only between datasets or shots, such as the papers' epochs, are not.

    Args:
        runs: finished runs.
        by: traits (of `TRAITS`) to add to the names.
    """
    methods: defaultdict[str, list[tuple[Run, Settings]]] = defaultdict(list)
    for run in runs:
        methods[method_of(trained(run))].append((run, settings_of(run)))
    implied: dict[str, list[str]] = {}
    labels: dict[int, str] = {}
    for method, members in methods.items():
        differing = sorted(_differing(members), key=_importance)
        keys, implied[method] = _without_implied(differing, [s for _, s in members])
        names = short_names(keys)
        for run, settings in members:
            named = {names[key]: settings[key] for key in keys if key in settings}
            traits = {name: TRAITS[name](run) for name in by}
            known = {name: value for name, value in traits.items() if value is not None}
            labels[id(run)] = row_name(method, {**named, **known})
    return Rows([(labels[id(run)], run) for run in runs], implied)


def _differing(members: Iterable[tuple[Run, Settings]]) -> set[str]:
    """Return the settings in which runs of one method on the same data differ.

    A setting that an older run does not record is not counted as different.
    """
    seen: dict[Any, Any] = {}
    found = set()
    for run, settings in members:
        data = (*trained_on(run), trained(run)["subsample_classes"])
        for key, value in settings.items():
            if seen.setdefault((data, key), value) != value:
                found.add(key)
    return found


def _importance(key: str) -> tuple[int, str]:
    """Sort Nemesis settings first, then the methods' own, then the others."""
    return (0 if key.startswith(NEMESIS) else 1 if key.startswith("TRAINER.") else 2, key)


def _without_implied(keys: list[str], all_settings: list[Settings]) -> tuple[list[str], list[str]]:
    """Split off the keys whose values are determined by earlier keys."""
    independent: list[str] = []
    implied: list[str] = []
    for key in keys:
        values: dict[Any, Any] = {}
        known = [settings for settings in all_settings if key in settings]
        follows = independent and all(
            values.setdefault(repr([settings.get(name) for name in independent]), settings[key])
            == settings[key]
            for settings in known
        )
        (implied if follows else independent).append(key)
    return independent, implied


def row_name(method: str, settings: Mapping[str, Any]) -> str:
    """Return a row name: the method and its settings, such as `CoOp+PAN (omega 10, N 2)`."""
    parts = [f"{name} {show(value)}" for name, value in settings.items()]
    return f"{method} ({', '.join(parts)})" if parts else method


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the last part of each key, or the last two parts if it is ambiguous."""
    last = [key.rpartition(".")[2] for key in keys]
    return {
        key: _spelt(name) if last.count(name) == 1 else ".".join(key.split(".")[-2:]).lower()
        for key, name in zip(keys, last, strict=True)
    }


def _spelt(name: str) -> str:
    return name if len(name) == 1 else name.lower()


def show(value: Any) -> str:
    """Format a setting's value."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return " ".join(map(show, value)) or "none"
    return str(value) if value != "" else "none"
