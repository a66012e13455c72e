"""Whole runs on the bundled benchmark: resuming, batches, precisions, and the golden cases."""

import contextlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from dassl.engine import run_experiment
from dassl.engine.resume_checkpoint import ResumeCheckpoint
from dassl.engine.run_files import RESUME, read_history
from nemesis.sweeps.runs import Run
from safeio.checksums import read_verified_json
from trainers.core.batched import train_together

from ..runs import BETAS, ROOT, sweep_runs
from ..synthetic import precision_settings
from .findings import Findings, Size
from .parity import stored

NODES = ("COOP", "COCOOP", "PLOT")
DIES_AFTER = 2  # saved batches


def make_runs(
    size: Size,
    place: str,
    methods: Sequence[str],
    count: int = 1,
    precision: str = "fp32",
    **keys: Any,
) -> list[Run]:
    """Return runs of three epochs, of 16 generic vectors where the method is CoOp's."""
    config = "mini_ctx16" if set(methods) <= set(BETAS) else "mini"
    keys = {"DEVICE": str(size.device), "OPTIM__MAX_EPOCH": 3, "INPUT__TRAIN_VIEWS": 2} | keys
    for node in NODES:
        pairs = iter(precision_settings(node, precision))
        keys |= {name.replace(".", "__"): value for name, value in zip(pairs, pairs, strict=True)}
    return sweep_runs(size.folder / place, size.data, methods, count, config, **keys)[1]


def train(run: Run, **arguments: Any) -> None:
    """Train and test a run; its log has what it prints."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        run_experiment(run.cfg(), **arguments)


def difference(one: Run, other: Run) -> float:
    """Return the largest difference of two runs' prompts."""
    first, second = (load_file(run.folder / "prompt.safetensors")["ctx"] for run in (one, other))
    return float((first - second).abs().max())


class Dying(ResumeCheckpoint):
    """Saves after every batch, and then ends the run."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.left = DIES_AFTER

    def due(self) -> bool:
        """Return that it is due."""
        return True

    def write(self) -> None:
        """Write, and die after some batches."""
        super().write()
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def resuming(size: Size, findings: Findings) -> None:
    """Compare a run that died within an epoch and was resumed with an uninterrupted one."""
    for method, precision in (("CoOp", "fp32"), ("CoOp+PAN", "amp")):
        findings.measure(f"{method}, {precision}", _resumed, size, method, precision)


def _resumed(size: Size, method: str, precision: str) -> dict[str, Any]:
    name, keys = f"{method}_{precision}", {"DATALOADER__TRAIN_X__BATCH_SIZE": 8}
    whole, broken = (
        make_runs(size, f"{part}_{name}", [method], 1, precision, **keys)[0]
        for part in ("whole", "broken")
    )

    def make_mortal(trainer: Any) -> None:
        trainer.resuming.checkpoint = Dying(broken.folder)

    train(whole)
    with contextlib.suppress(KeyboardInterrupt):
        train(broken, on_trainer=make_mortal)
    saved = (broken.folder / RESUME).is_file()
    train(broken)
    return {"saved": saved, "difference": difference(whole, broken)}


def batches(size: Size, findings: Findings) -> None:
    """Train runs as one batch and one by one: seconds of a run, and equality."""
    for backbone in ("mini",) if size.tiny else ("mini", "RN50"):
        keys: dict[str, Any] = {"INPUT__TRAIN_VIEWS": 1}
        if backbone != "mini":
            found = stored(backbone, size.folder)
            side = found.config.image_resolution
            keys |= {"MODEL__BACKBONE__NAME": found.weights, "INPUT__SIZE": [side, side]}
            keys |= {"INPUT__PIXEL_MEAN": list(found.pixel_mean), "TEST__NO_TEST": True}
            keys |= {"INPUT__PIXEL_STD": list(found.pixel_std)}
        for count in (1, 3) if size.tiny else (1, 5, 35):
            keys["OPTIM__MAX_EPOCH"] = 2 if size.tiny else 10
            findings.measure(f"{backbone}, R = {count}", _batch, size, backbone, count, keys)


def _batch(size: Size, backbone: str, count: int, keys: dict[str, Any]) -> dict[str, Any]:
    first, alone, together = (
        make_runs(size, f"{backbone}_{count}_{part}", list(BETAS), number, **keys)
        for part, number in (("first", 1), ("alone", min(count, 5)), ("together", count))
    )
    train(first[0])  # computes the features
    start = time.perf_counter()
    for run in alone:
        train(run)
    one = (time.perf_counter() - start) / len(alone)
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        ends = train_together([run.cfg() for run in together])
    seconds = (time.perf_counter() - start) / count
    for error in filter(None, ends):
        raise error
    found = {"s a run, alone": one, "s a run, together": seconds, "ratio": one / seconds}
    pairs = zip(alone, together, strict=False)
    return {**found, "difference": max(difference(*pair) for pair in pairs)}


def runs(size: Size, findings: Findings) -> None:
    """Train methods in every precision; compare with a second run, and with the CPU."""
    methods = ("CoOp+PAN", "PLOT", "CoCoOp")
    for method in methods[: 1 if size.tiny else None]:
        for precision in size.precisions:
            findings.measure(f"{method}, {precision}", _twice, size, method, precision)
    findings.measure("CoOp+PAN, fp32, other on the CPU", _twice, size, "CoOp+PAN", "fp32", "cpu")


def _twice(size: Size, method: str, precision: str, device: str = "") -> dict[str, Any]:
    name = f"run_{method}_{precision}{device}"
    keys: dict[str, Any] = {"INPUT__TRAIN_VIEWS": 2 if device else 0}
    (run,) = make_runs(size, f"{name}_1", [method], 1, precision, **keys)
    keys |= {"DEVICE": device} if device else {}
    (other,) = make_runs(size, f"{name}_2", [method], 1, precision, **keys)
    train(run)
    train(other)
    return {**_results(run), "difference of the other": difference(run, other)}


def _results(run: Run) -> dict[str, Any]:
    epochs = [entry for entry in read_history(run.folder) if entry["event"] == "train"]
    accuracy = read_verified_json(run.folder / "results.json")["accuracy"]
    return {"accuracy": accuracy, "loss": epochs[-1]["loss"], "s an epoch": epochs[-1]["seconds"]}


def golden(size: Size, findings: Findings) -> None:
    """Run the golden cases on the device, with the tests of this checkout."""
    words = ["-n", "0", "-q", "-p", "no:cacheprovider", "-p", "tests.helpers.golden_on_device"]
    words += ["tests/golden/test_golden.py", *(["-k", "pun"] if size.tiny else [])]
    findings.measure("all cases", _pytest, size, words, max(5.0, findings.left()))


def _pytest(size: Size, words: Sequence[str], seconds: float) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=ROOT,
        env={**os.environ, "NEMESIS_GOLDEN_DEVICE": str(size.device)},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()[-150:]]
    failed = [line[:150] for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"exit code": done.returncode, "end": lines[-1], "failed": "; ".join(failed[:5])}
