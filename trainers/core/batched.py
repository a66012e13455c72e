"""Train many runs as one batch: the prompts of R runs are one tensor (`batched_step`).

Runs of one batch share the classes, the frozen CLIP, the layout of the prompts, the shots and the
length of the schedule, and train on cached image features (INPUT.TRAIN_VIEWS). Seeds and the
settings of Nemesis and SGD may differ. Each run is an ordinary trainer with its own loader, random
generators, log and folder: it draws an epoch's batches and positions as it would alone, pauses
while the steps of all runs are computed, and then records its own numbers. So its files are those
of a run alone, and killed runs resume together or one by one.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dassl.engine import Interrupted, run_experiment
from dassl.engine.folder_check import claim_folder
from dassl.engine.interruption import stopping_on_signals
from dassl.utils import generator_states, reuse_loaded, set_generator_states
from safeio.errors import UserError
from safeio.files import prepare_output_dir
from safeio.untrusted import printable

from .batch_key import batch_key, difference
from .batched_epochs import BatchedEpochs
from .batched_run import BatchedRun


def train_together(cfgs: Sequence[Any], overwrite: bool = False) -> list[Exception | None]:
    """Train and test several runs; each writes the same files as a single run.

    Those that fit into one batch are trained as one. Others are named with what differs and
    trained one by one. If a run fails (for example, if its training diverges), the others continue.
    After an interruption, the same call resumes each run, and `train.py` can resume any single one.

    Args:
        cfgs: the runs' configurations, with different folders.
        overwrite: replace finished runs in these folders.

    Returns:
        For each run, the exception that ended it, or None.

    Raises:
        UserError: a folder contains another run, or two runs have the same one.
        Interrupted: Ctrl-C or SIGTERM; every run is saved.
    """
    _check_folders(cfgs, overwrite)
    keys = [batch_key(cfg) for cfg in cfgs]
    batches: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        batches.setdefault(key.text or key.why, []).append(index)
    first = max(batches.values(), key=len, default=[])
    ends: list[Exception | None] = [None] * len(cfgs)
    with stopping_on_signals(), reuse_loaded():
        for indices in batches.values():
            if indices is not first:
                why = difference(keys[first[0]], keys[indices[0]])
                for index in indices:
                    print(printable(f"{cfgs[index].OUTPUT_DIR} is not in the first batch: {why}"))
            part = [cfgs[index] for index in indices]
            train = _train if keys[indices[0]].text else _train_one_by_one
            found = train(part, overwrite)
            for index, end in zip(indices, found, strict=True):
                ends[index] = end
    return ends


def _check_folders(cfgs: Sequence[Any], overwrite: bool) -> None:
    folders = set()
    for cfg in cfgs:
        output = Path(prepare_output_dir(cfg.OUTPUT_DIR)).resolve()
        if output in folders:
            raise UserError(f"Two of the runs would write into {output}; give each its own folder")
        folders.add(output)
        claim_folder(cfg, overwrite)


def _train_one_by_one(cfgs: Sequence[Any], overwrite: bool) -> list[Exception | None]:
    ends: list[Exception | None] = []
    for cfg in cfgs:
        try:
            run_experiment(cfg, overwrite=overwrite)
            ends.append(None)
        except Exception as error:
            print(printable(f"{cfg.OUTPUT_DIR}: {error}"))
            ends.append(error)
    return ends


def _train(cfgs: Sequence[Any], overwrite: bool) -> list[Exception | None]:
    """Train runs with one key, epoch by epoch."""
    epochs = BatchedEpochs(len(cfgs))
    outside = generator_states()
    with ExitStack() as stack:
        stack.callback(set_generator_states, outside)
        nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        runs = [BatchedRun(cfg, overwrite, nowhere, epochs.add) for cfg in cfgs]
        try:
            for run in runs:
                run.proceed()
            while live := [run for run in runs if run.live]:
                epochs.run(live)
                for run in live:
                    run.proceed()
        except Interrupted as stop:
            for run in runs:
                run.stop(signal := Interrupted(stop.number, stop.repeated))
                stop.saved = stop.saved or signal.saved
            raise
    return [run.end for run in runs]
