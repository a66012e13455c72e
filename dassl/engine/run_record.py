"""What a run leaves behind for programs to read: history.jsonl, results.json, config.yaml.

history.jsonl has one JSON object a line. Every epoch gives {"event": "train", "epoch", "seconds",
"lr", and the mean of the loss and of all other metrics}; every evaluation gives {"event": "test",
"epoch", "split", and the results}. Epochs count from 0. results.json exists only when a run has
come to its end. Every line of the history and the whole of results.json have a checksum inside
(`safeio.checksums`).
"""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from safeio.checksums import DamagedFile, read_sealed, sealed, unsealed, write_sealed
from safeio.files import PathLike, write_atomic
from safeio.untrusted import parse_json

from ..config import to_dict
from ..config.node import read_yaml_layers
from ..utils import package_versions
from ..utils.newest_valid import DAMAGED
from .run_files import CONFIG, HISTORY, RESULTS, remove_run_files


def _plain(value: Any) -> Any:
    """Make a value fit for JSON, which knows neither NaN nor tensors."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_history(directory: PathLike) -> list[dict[str, Any]]:
    """Read a run's history.

    A line that is damaged, or that a crash has cut off, is named in a printed warning and left out.
    """
    path = Path(directory) / HISTORY
    if not path.is_file():
        return []
    entries = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = unsealed(parse_json(line))
            if not isinstance(entry, dict):
                raise ValueError("it is no JSON object")
            entries.append(entry)
        except ValueError:
            print(f"Warning: line {number} of {path} is damaged and left out")
    return entries


def finished_run(directory: PathLike) -> dict[str, Any] | None:
    """Return the results of a run that came to its end in this folder, or None.

    Results that are damaged do not count; `results_fault` says what is wrong with them.
    """
    try:
        content = read_sealed(Path(directory) / RESULTS)
    except (OSError, DamagedFile):
        return None
    if isinstance(content, dict) and content.get("status") == "finished":
        return content
    return None


def results_fault(directory: PathLike) -> str:
    """Name a damaged results.json and what is wrong with it; empty where there is none."""
    try:
        read_sealed(Path(directory) / RESULTS)
    except OSError:
        return ""
    except DamagedFile as error:
        return str(error)
    return ""


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that tell a run from others, as they stand in results.json.

    Args:
        config: a run's whole configuration, as a node or as plain dictionaries.
    """
    dataset = config["DATASET"]
    return {
        "trainer": config["TRAINER"]["NAME"],
        "dataset": dataset["NAME"],
        "shots": dataset["NUM_SHOTS"],
        "seed": config["SEED"],
        "backbone": config["MODEL"]["BACKBONE"]["NAME"],
        "subsample_classes": dataset["SUBSAMPLE_CLASSES"],
        "target_domains": list(dataset["TARGET_DOMAINS"]),
    }


def source_entries(model_dir: PathLike) -> dict[str, Any]:
    """Say for results.json which run the tested model comes from.

    Args:
        model_dir: folder of the run that trained it; empty when nothing was loaded.

    Returns:
        "model_dir", the folder as it was given, and "source_run", that run's `identity` and
        "config"; None where no config.yaml of ours says it, as with Dassl's own runs. Nothing at
        all without a folder.

    Raises:
        UserError: the config.yaml is damaged.
    """
    if not model_dir:
        return {}
    path = Path(model_dir) / CONFIG
    source = None
    with suppress(KeyError, TypeError):
        if path.is_file():
            _, config = read_yaml_layers(path)[-1]
            source = {**identity(config), "config": config}
    return {"model_dir": str(model_dir), "source_run": source}


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(sealed(entry, "crc32")) + "\n"


class RunRecord:
    """Writes the record of one run.

    Args:
        directory: the run's output folder.
    """

    def __init__(self, directory: PathLike) -> None:
        self.directory = Path(directory)
        self.lines = 0  # of the history so far
        self.recording = False  # from `begin` on
        self._history: Sequence[Mapping[str, Any]] = ()  # of the earlier attempt that is resumed
        self._unwritten: Callable[[], None] | None = None

    def begin(self, cfg: Any, replaced: Sequence[Path] = ()) -> None:
        """Begin the record of a run; nothing is written or removed before `write_beginning`.

        Args:
            cfg: the configuration.
            replaced: files of an earlier run, to be removed then.
        """
        self.recording = True
        self._history, self.lines = (), 0
        self._unwritten = partial(self._write_beginning, cfg, replaced)

    @property
    def begun(self) -> bool:
        """Whether the run has taken the folder."""
        return self.recording and self._unwritten is None

    def write_beginning(self) -> None:
        """Let this run take the folder: the first batch, or test, has succeeded.

        Removes the earlier run's files, then writes the configuration and the history up to the
        point that is resumed. Does nothing the second time.
        """
        unwritten, self._unwritten = self._unwritten, None
        if unwritten is not None:
            unwritten()

    def _write_beginning(self, cfg: Any, replaced: Sequence[Path]) -> None:
        remove_run_files(self.directory, replaced)
        if fault := results_fault(self.directory):
            aside = RESULTS + DAMAGED
            (self.directory / RESULTS).replace(self.directory / aside)
            print(f"Warning: {fault}; it is now {aside}, and this run writes it anew")
        self._write(CONFIG, cfg.dump())
        self._write(HISTORY, "".join(_line(entry) for entry in self._history))

    def _write(self, name: str, text: str) -> None:
        write_atomic(self.directory / name, lambda path: path.write_text(text, encoding="utf-8"))

    def resume(self, start_epoch: int, lines: int | None = None) -> None:
        """Keep the history of an earlier attempt up to the point from which this one resumes.

        Args:
            start_epoch: lines about this epoch and later ones are dropped.
            lines: how many there were at that point; None where that is not known.
        """
        entries = read_history(self.directory)
        early = [entry for entry in entries if entry.get("epoch", 0) < start_epoch]
        self._history = entries[:lines] if isinstance(lines, int) else early
        self.lines = len(self._history)

    def _append(self, entry: Mapping[str, Any]) -> None:
        self.write_beginning()
        line = _line({key: _plain(value) for key, value in entry.items()})
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / HISTORY).open("a", encoding="utf-8") as file:
            file.write(line)
            # On the disk before a checkpoint that counts on it.
            file.flush()
            os.fsync(file.fileno())
        self.lines += 1

    def epoch(self, epoch: int, seconds: float, lr: float | None, means: Mapping[str, Any]) -> None:
        """Add a training epoch.

        Args:
            epoch: from 0.
            seconds: wall time of the epoch, evaluation not included.
            lr: learning rate during the epoch; None without an optimiser.
            means: the epoch's mean of each metric.
        """
        self._append({"event": "train", "epoch": epoch, "seconds": seconds, "lr": lr, **means})

    def evaluation(self, epoch: int, split: str, results: Mapping[str, Any]) -> None:
        """Add an evaluation on a split."""
        self._append({"event": "test", "epoch": epoch, "split": split, **results})

    def train_seconds(self) -> float:
        """Return the time of all recorded epochs, those before a resume included."""
        history = read_history(self.directory)
        return sum(e["seconds"] for e in history if e.get("event") == "train")

    def finish(
        self,
        cfg: Any,
        results: Mapping[str, Any],
        device: str,
        epochs: int,
        extra: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Write results.json.

        Args:
            cfg: the configuration.
            results: of the last test; may be empty.
            device: where the run took place.
            epochs: finished training epochs.
            extra: further entries of the trainer.

        Returns:
            What was written.
        """
        entries: dict[str, Any] = {
            **identity(cfg),
            "split": cfg.TEST.SPLIT,
            "accuracy": results.get("accuracy"),
            "macro_f1": results.get("macro_f1"),
            "error_rate": results.get("error_rate"),
            "perclass_accuracy": results.get("perclass_accuracy"),
            "ece": results.get("ece"),
            "num_test": results.get("total"),
            "epochs": epochs,
            "train_seconds": round(self.train_seconds(), 3) if epochs else 0.0,
            "device": device,
            "status": "finished",
            **extra,
        }
        self.write_beginning()
        content = {key: _plain(value) for key, value in entries.items()}
        content["config"] = to_dict(cfg)
        content["versions"] = package_versions()
        write_sealed(content, self.directory / RESULTS)
        return content
