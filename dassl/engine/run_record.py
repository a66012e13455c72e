"""Writing what a run leaves behind for programs: history.jsonl, results.json, config.yaml.

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
from functools import partial
from pathlib import Path
from typing import Any

from safeio.checksums import with_checksum, write_json_with_checksum
from safeio.files import PathLike, prepare_output_dir, write_atomic

from ..config import to_dict
from ..utils import package_versions
from ..utils.checkpoint_folder import DAMAGED
from .folder_check import FolderState, claim_folder, resumes_in_place
from .provenance import provenance
from .run_files import (
    CONFIG,
    HISTORY,
    RESULTS,
    read_history,
    remove_run_files,
    results_fault,
    run_files,
)
from .settings import identity

METRICS = ("accuracy", "macro_f1", "error_rate", "perclass_accuracy", "ece")


def _plain(value: Any) -> Any:
    """Make a value fit for JSON, which knows neither NaN nor tensors."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(with_checksum(entry, "crc32")) + "\n"


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

    def begin(self, cfg: Any, overwrite: bool = False, tests: bool = False) -> bool:
        """Begin the record of a run, unless its folder holds another one; see `claim_folder`.

        Nothing is written or removed before `write_beginning`.

        Returns:
            False where the run is finished already.
        """
        if claim_folder(cfg, overwrite, tests) is FolderState.FINISHED:
            print(f"{self.directory} holds this run, and it is finished")
            return False
        prepare_output_dir(self.directory)
        replaces = overwrite and not resumes_in_place(cfg)
        replaced = run_files(self.directory) if replaces else []
        self.recording = True
        self._history, self.lines = (), 0
        self._unwritten = partial(self._write_beginning, cfg, replaced)
        return True

    @property
    def begun(self) -> bool:
        """Whether the run has taken the folder."""
        return self.recording and self._unwritten is None

    def write_beginning(self) -> None:
        """Let this run take the folder: the first batch, or test, has succeeded.

        Removes the earlier run's files, then writes the configuration and the history up to where
        the run resumes. Does nothing the second time.
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
        """Take over the history of an earlier attempt up to where this one resumes.

        Args:
            start_epoch: lines about this epoch and later ones are dropped.
            lines: how many there were then; None where that is not known.
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

    def finish(
        self,
        cfg: Any,
        results: Mapping[str, Any],
        device: str,
        epochs: int,
        dm: Any,
        extra: Mapping[str, Any],
    ) -> None:
        """Write results.json.

        Args:
            cfg: the configuration.
            results: of the last test; may be empty.
            device: where the run took place.
            epochs: finished training epochs; 0 after an evaluation alone.
            dm: the `DataManager`, if any.
            extra: further entries of the trainer.
        """
        epoch_lines = [e for e in read_history(self.directory) if e.get("event") == "train"]
        seconds = sum(entry["seconds"] for entry in epoch_lines) if epochs else 0.0
        entries: dict[str, Any] = {
            **identity(cfg),
            "split": cfg.TEST.SPLIT,
            **{name: results.get(name) for name in METRICS},
            "num_test": results.get("total"),
            "epochs": epochs,
            "train_seconds": round(seconds, 3),
            "device": device,
            "status": "finished",
            "skipped_images": getattr(dm, "skipped_images", 0),
            "split_check": getattr(dm, "split_check", {}),
            **extra,
            "provenance": provenance(device, getattr(dm, "dataset", None)),
            "config": to_dict(cfg),
            "versions": package_versions(),
        }
        self.write_beginning()
        content = {key: _plain(value) for key, value in entries.items()}
        write_json_with_checksum(content, self.directory / RESULTS)
