r"""Check a process for leaks of memory and open files over many runs.

    python -m benchmarks.soak --runs 200

runs tiny experiments on the bundled benchmark one after the other, as a sweep's worker does, and
prints the memory and the open files of the process. The slope is that of a linear regression over
the runs after the warm-up (a quarter of the runs, at least five).

Exit codes: 0 done, 1 a run failed, 2 an error in the command.
"""

import argparse
import gc
import shutil
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dassl.utils import Parser, exit_code, reuse_loaded
from nemesis.sweeps.command import resolve_sweep
from nemesis.sweeps.worker import DONE, CleanState, work
from safeio.errors import UserError
from safeio.files import write_json

SWEEP = """
output: {output}
datasets: [emoji_activities]
shots: [1]
seeds: {seeds}
config: mini_ctx16
methods: {{CoOp: null, CoOp+PAN: {{trainer: CoOpNemesis, set: {{TRAINER.NEMESIS.BETA: 0.0}}}}}}
set: {{DATASET.ROOT: {root}, OPTIM.MAX_EPOCH: 1, INPUT.TRAIN_VIEWS: 1}}
"""


@dataclass(frozen=True)
class Soak:
    """Measurements after each run.

    Attributes:
        memory: resident memory of the process, in MiB.
        handles: open files of the process.
        threads: Python threads of the process.
    """

    memory: list[float]
    handles: list[int]
    threads: list[int]

    @property
    def warm_up(self) -> int:
        """Number of runs that are ignored."""
        return max(5, len(self.memory) // 4)

    @property
    def slope(self) -> float:
        """MiB per run after the warm-up."""
        values = self.memory[self.warm_up :]
        return statistics.linear_regression(range(len(values)), values).slope

    @property
    def handles_grown(self) -> int:
        """Open files after the last run minus those after the warm-up."""
        return self.handles[-1] - self.handles[self.warm_up - 1]


def resident() -> float:
    """Return the resident memory of this process, in MiB (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise UserError("This system does not report a process's memory; use Linux")


def open_files() -> int:
    """Count the open files of this process (Linux)."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def soak(runs: int, root: Path, folder: Path) -> Iterator[tuple[float, int, int]]:
    """Run as a worker does, and yield memory, open files and threads after each run.

    Args:
        runs: number of runs.
        root: data root.
        folder: folder for the runs, which are removed after measuring.

    Raises:
        UserError: a run failed.
    """
    seeds = list(range(1, (runs + 1) // 2 + 1))
    sweep = folder / "soak.yaml"
    sweep.write_text(SWEEP.format(output=folder / "runs", seeds=seeds, root=root.absolute()))
    state = CleanState(torch.get_num_threads())
    with reuse_loaded():
        for run in resolve_sweep(str(sweep)).runs[:runs]:
            (outcome,) = work((run,), state)
            if outcome.status != DONE:
                raise UserError(f"{run.name}: {outcome.status} {outcome.reason}")
            shutil.rmtree(run.folder)
            gc.collect()
            yield resident(), open_files(), threading.active_count()


def measure(runs: int, root: Path, folder: Path) -> Soak:
    """Measure all runs; see `soak`."""
    memory, handles, threads = zip(*soak(runs, root, folder), strict=True)
    return Soak(list(memory), list(handles), list(threads))


def run(arguments: argparse.Namespace) -> int:
    """Measure and print the results.

    Raises:
        UserError: there are too few runs, or a run failed.
    """
    if arguments.runs < 10:
        raise UserError(f"--runs is {arguments.runs}, but must be at least 10 for a slope")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(arguments.runs, arguments.root, Path(folder))
    first, last = found.warm_up - 1, len(found.memory) - 1
    print(f"{arguments.runs} runs in one process, {found.warm_up} of them warm-up")
    for name, values in (("memory, MiB", found.memory), ("open files", found.handles)):
        print(f"{name}: {values[first]:.0f} after run {first + 1}, {values[last]:.0f} at the end")
    print(f"threads: {found.threads[first]}, {found.threads[last]} at the end")
    print(f"slope: {1024 * found.slope:+.1f} KiB per run")
    if arguments.json:
        write_json({**vars(found), "slope_mib": found.slope}, arguments.json)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = Parser(__doc__)
    parser.add_argument("--runs", type=int, default=200, help="default 200")
    parser.add_argument("--root", type=Path, default=Path("data"), help="data root")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements to FILE")
    return exit_code(run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
