"""Write the machine-readable record of a run: history.jsonl, results.json and config.yaml.

history.jsonl has one JSON object per line: {"event": "train", "epoch", "seconds", "lr", and the
mean of each metric} for an epoch, {"event": "test", "epoch", "split", and the results} for an
evaluation. Epochs count from 0. results.json is written at the end of a run. Each line of the
history and results.json contain a checksum (`safeio.checksums`).
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from safeio.checksums import with_checksum, write_json_with_checksum
from safeio.files import PathLike, flush_to_disk, prepare_output_dir, write_text

from ..config import Config, to_dict
from ..utils import package_versions
from ..utils.checkpoint_folder import DAMAGED_SUFFIX
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
    """Convert a value for JSON: a scalar tensor to a number, NaN and infinity to None."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(with_checksum(entry, "crc32")) + "\n"


class RunRecord:
    """Writes the record of one run."""

    def __init__(self, directory: PathLike) -> None:
        self.directory = Path(directory)
        self.lines = 0  # number of lines in the history
        self.recording = False  # True after `start`
        self._flushed = True
        self._history: Sequence[Mapping[str, Any]] = ()  # of the resumed attempt
        self._deferred_write: Callable[[], None] | None = None

    def start(self, cfg: Config, overwrite: bool = False, tests: bool = False) -> bool:
        """Check the folder and prepare the record; `ensure_started` writes the first files.

        Returns:
            False if the run is already finished.

        Raises:
            UserError: the folder contains another run; see `claim_folder`.
        """
        if claim_folder(cfg, overwrite, tests) is FolderState.FINISHED:
            print(f"This run is already finished: {self.directory}")
            return False
        prepare_output_dir(self.directory)
        replaces = overwrite and not resumes_in_place(cfg)
        replaced = run_files(self.directory) if replaces else []
        self.recording = True
        self._history, self.lines = (), 0
        self._deferred_write = partial(self._write_first_files, cfg, replaced)
        return True

    @property
    def started(self) -> bool:
        """Whether the run has written its first files."""
        return self.recording and self._deferred_write is None

    def ensure_started(self) -> None:
        """Write the first files of the run; called when the first batch or test has succeeded.

        The first call removes the files of a replaced run and writes the configuration and the
        history of the resumed attempt. Later calls do nothing.
        """
        deferred_write, self._deferred_write = self._deferred_write, None
        if deferred_write is not None:
            deferred_write()

    def _write_first_files(self, cfg: Config, replaced: Sequence[Path]) -> None:
        remove_run_files(self.directory, replaced)
        if fault := results_fault(self.directory):
            renamed = RESULTS + DAMAGED_SUFFIX
            (self.directory / RESULTS).replace(self.directory / renamed)
            print(f"Warning: {fault}; it was renamed to {renamed}, and this run writes a new one")
        write_text(cfg.dump(), self.directory / CONFIG)
        write_text("".join(_line(entry) for entry in self._history), self.directory / HISTORY)

    def resume(self, start_epoch: int, lines: int | None = None) -> None:
        """Copy the resumed history: its first `lines`, or epochs before `start_epoch`."""
        entries = read_history(self.directory)
        early = [entry for entry in entries if entry.get("epoch", 0) < start_epoch]
        self._history = entries[:lines] if isinstance(lines, int) else early
        self.lines = len(self._history)

    def _append(self, entry: Mapping[str, Any]) -> None:
        self.ensure_started()
        line = _line({key: _plain(value) for key, value in entry.items()})
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / HISTORY).open("a", encoding="utf-8") as file:
            file.write(line)
        self.lines += 1
        self._flushed = False

    def flush(self) -> None:
        """Flush the history to the disk, before a checkpoint that counts its lines is written."""
        if not self._flushed:
            with suppress(FileNotFoundError):  # a user has moved it away
                flush_to_disk(self.directory / HISTORY)
        self._flushed = True

    def epoch(self, epoch: int, seconds: float, lr: float | None, means: Mapping[str, Any]) -> None:
        """Add a training epoch: seconds without evaluation, learning rate, mean of each metric."""
        self._append({"event": "train", "epoch": epoch, "seconds": seconds, "lr": lr, **means})

    def evaluation(self, epoch: int, split: str, results: Mapping[str, Any]) -> None:
        """Add an evaluation on a split."""
        self._append({"event": "test", "epoch": epoch, "split": split, **results})

    def finish(
        self,
        cfg: Config,
        results: Mapping[str, Any],
        device: str,
        epochs: int,
        dm: Any,
        data: Mapping[str, str] | None,
        extra: Mapping[str, Any],
    ) -> None:
        """Write results.json; `epochs` is 0 for an evaluation without training."""
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
            "provenance": provenance(device, data),
            "config": to_dict(cfg),
            "versions": package_versions(),
        }
        self.ensure_started()
        self.flush()
        content = {key: _plain(value) for key, value in entries.items()}
        write_json_with_checksum(content, self.directory / RESULTS)
