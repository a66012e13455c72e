"""Train from Python: `train` and the finished `Run` that it returns."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dassl.engine import finished_run, run_experiment
from dassl.engine.run_files import read_history
from safeio.errors import UserError

from .image_list import ImageList
from .inference.classifier import Classifier, load
from .logs import hides_progress, logged
from .run_config import Name, build_config


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: the run's folder.
    """

    folder: Path

    @cached_property
    def results(self) -> dict[str, Any]:
        """The content of results.json: measures in percent, settings, provenance.

        Raises:
            UserError: the run is not finished, or its results are damaged.
        """
        found = finished_run(self.folder)
        if found is None:
            raise UserError(
                f"{self.folder} holds no finished run: results.json is missing or damaged"
            )
        return found

    @property
    def accuracy(self) -> float | None:
        """Test accuracy in percent; None if the run was not tested."""
        return self.results["accuracy"]

    @property
    def history(self) -> list[dict[str, Any]]:
        """The lines of history.jsonl: {"event": "train" or "test", "epoch" from 0, measures}."""
        with logged():
            return read_history(self.folder)

    def load(self, **options: Any) -> Classifier:
        """Return `nemesis.load(run.folder, **options)`."""
        return load(self.folder, **options)


def train(
    method: str,
    dataset: Name | ImageList,
    config: Name | None = None,
    *,
    shots: int | None = None,
    seed: int = 1,
    output_dir: str | os.PathLike[str] = "output",
    root: str | os.PathLike[str] = "data",
    device: str | None = None,
    source_domains: Sequence[str] = (),
    target_domains: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    verbose: bool = False,
) -> Run:
    """Train a method on a dataset, test it and write the run to a folder, as train.py does.

    Args:
        method: a name of `nemesis.methods`.
        dataset: a name of `nemesis.datasets`, a YAML file or a `nemesis.ImageList`.
        config: a name such as mini or rn50_ep50, or a YAML file; None for the defaults.
        shots: training images of each class; None for the configuration's, which is all by default.
        seed: of the few-shot sample, initialisation and batches; a negative one is random.
        output_dir: folder of the run.
        root: folder of the datasets; created for images that are generated or passed.
        device: "cpu", "cuda", "cuda:N", "mps"; None for an accelerator if there is one.
        source_domains: domains to train on; default: the dataset's.
        target_domains: domains to test on.
        settings: {"KEY": value}; they override everything else.
        resume: continue the run in `output_dir`; if it is finished, return it.
        overwrite: replace the run in `output_dir`.
        verbose: print the lines of log.txt instead of a progress bar.

    Raises:
        UserError: an argument is wrong, weights or images are missing, or `output_dir` contains
            another run.
        FloatingPointError: the training diverged.
        KeyboardInterrupt: Ctrl-C; the run is saved, and `resume` continues it.
    """
    if shots is not None and not (isinstance(shots, int) and shots > 0):
        raise UserError(f"shots is {shots!r}, but must be a whole number above 0, or None for all")
    output = os.fspath(output_dir)
    flags = {
        "DATASET.ROOT": os.fspath(root),
        "DATASET.NUM_SHOTS": shots,
        "DATASET.SOURCE_DOMAINS": tuple(source_domains) or None,
        "DATASET.TARGET_DOMAINS": tuple(target_domains) or None,
        "DEVICE": device,
        "OUTPUT_DIR": output,
        "RESUME": output if resume and Path(output).is_dir() else None,
        "SEED": seed,
    }
    given = {key: value for key, value in flags.items() if value is not None}
    with logged(verbose), _progress(verbose) as bar:
        cfg = build_config(dataset, method, config, given, settings)

        def show_epochs(trainer: Any) -> None:
            bar.reset(trainer.max_epoch)
            trainer.on_epoch_end = lambda epoch: bar.update(epoch + 1 - bar.n)

        run_experiment(cfg, overwrite=overwrite, on_trainer=show_epochs)
    return Run(Path(cfg.OUTPUT_DIR))


def _progress(verbose: bool) -> Any:
    disable = True if verbose else hides_progress()
    return tqdm(desc="training", unit="epoch", disable=disable, leave=False)
