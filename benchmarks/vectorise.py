"""Benchmark K runs trained together as a run group against one by one in the same process.

    python -m benchmarks.vectorise --k 1 5 35
    python -m benchmarks.vectorise --k 5 --settings mini_ctx16/CoOpNemesis --epochs 5

The runs are seeds and Nemesis settings on the bundled benchmark, measured from start to
results.json. Both alternate round by round, after a warm-up round that renders the images and
caches their features, which all runs share. The report shows the fastest round of each, since other
programs can only slow a round down. One by one, at most --alone of the K are run, those with the
first seeds. The last column is the ratio of CPU time, which is more reliable on a busy machine.
"""

import argparse
import contextlib
import io
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

import train
from dassl.utils import Parser, exit_code, package_versions
from safeio.errors import UserError
from safeio.files import write_json
from trainers.core.vectorised import train_together

ROOT = Path(__file__).parent.parent
SETTINGS = tuple(
    f"{config}/{trainer}"
    for config in ("mini_ctx16", "mini")
    for trainer in ("CoOp", "CoOpNemesis")
)
# Settings of the CoOpNemesis runs, which also differ in their seeds: PUN, PAN and both.
PENALTIES = (
    {"BETA": 1.0, "OMEGA": 0.1},
    {"BETA": 0.0, "N": 1, "TAU": 0.5},
    {"BETA": 0.5, "N": 2, "TAU": 0.1},
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--k", nargs="+", type=int, default=[1, 5, 35], help="runs per group")
    add("--settings", nargs="+", default=list(SETTINGS), help=f"some of: {' '.join(SETTINGS)}")
    add("--views", nargs="+", type=int, default=[4, 0], help="INPUT.TRAIN_VIEWS; 0: no cache")
    add("--epochs", type=int, default=3, help="epochs per run (default 3)")
    add("--shots", type=int, default=4, help="images per class (default 4)")
    add("--rounds", type=int, default=2, help="measured rounds (default 2)")
    add("--alone", type=int, default=5, help="maximum runs one by one in a round (default 5)")
    add("--root", default=str(ROOT / "data"), help="data root (default: data)")
    add("--output-dir", type=Path, default=Path("output/vectorise"), help="folder of the report")
    return parser


def check(arguments: argparse.Namespace) -> None:
    """Check the values of the flags.

    Raises:
        UserError: a setting is unknown, or a number is below 1.
    """
    unknown = [name for name in arguments.settings if name not in SETTINGS]
    if unknown:
        raise UserError(
            f"--settings: {unknown[0]!r} is unknown; choose from {', '.join(SETTINGS)}."
        )
    numbers = [*arguments.k, arguments.epochs, arguments.shots, arguments.rounds, arguments.alone]
    if min(numbers) < 1:
        raise UserError("--k, --epochs, --shots, --rounds and --alone must be at least 1.")


Seconds = tuple[float, float]  # wall time and processor time


class Workload:
    """K runs of one setting.

    Args:
        arguments: the command line's arguments.
        setting: configuration file and trainer.
        views: INPUT.TRAIN_VIEWS.
        count: K.
        folder: folder of the runs, with a subfolder for every round.
    """

    def __init__(
        self, arguments: argparse.Namespace, setting: str, views: int, count: int, folder: Path
    ) -> None:
        self.arguments = arguments
        self.config, self.trainer = setting.split("/")
        self.views = views
        self.count = count
        self.folder = folder
        self.rounds = 0

    def command(self, output: Path, number: int) -> list[str]:
        """Return the arguments of `train.py` for one of the runs."""
        options: dict[str, Any] = {
            "DATASET.NUM_SHOTS": self.arguments.shots,
            "OPTIM.MAX_EPOCH": self.arguments.epochs,
            "INPUT.TRAIN_VIEWS": self.views,
        }
        if self.trainer == "CoOpNemesis":
            penalty = PENALTIES[number % len(PENALTIES)]
            options |= {f"TRAINER.NEMESIS.{key}": value for key, value in penalty.items()}
        return [
            *("--root", self.arguments.root, "--trainer", self.trainer),
            *("--dataset-config-file", str(ROOT / "configs/datasets/emoji_activities.yaml")),
            *("--config-file", str(ROOT / f"configs/trainers/{self.trainer}/{self.config}.yaml")),
            *("--output-dir", str(output), "--seed", str(1 + number)),
            *(str(item) for pair in options.items() for item in pair),
        ]

    def _commands(self, count: int) -> list[list[str]]:
        self.rounds += 1
        folder = self.folder / f"round{self.rounds}"
        return [self.command(folder / f"run{number}", number) for number in range(count)]

    def together(self) -> Seconds:
        """Return the seconds per run of K in one group."""
        parser = train.build_parser()
        commands = self._commands(self.count)
        start = _now()
        failed = train_together([train.make_config(parser.parse_args(c)) for c in commands])
        if any(failed):
            raise UserError(f"A run failed ({next(filter(None, failed))}).")
        return _since(start, self.count)

    def alone(self) -> Seconds:
        """Return the seconds per run one by one."""
        commands = self._commands(min(self.count, self.arguments.alone))
        start = _now()
        for command in commands:
            if train.main(command):
                raise UserError("A run failed.")
        return _since(start, len(commands))


def _now() -> Seconds:
    return time.perf_counter(), time.process_time()


def _since(start: Seconds, runs: int) -> Seconds:
    wall, cpu = _now()
    return (wall - start[0]) / runs, (cpu - start[1]) / runs


def measure(workload: Workload, rounds: int) -> dict[str, Any]:
    """Measure the seconds per run of both, alternating, and return the fastest rounds."""
    seconds: dict[str, list[Seconds]] = {"together": [], "alone": []}
    with contextlib.redirect_stdout(io.StringIO()):
        workload.together()
        for _ in range(rounds):
            seconds["together"].append(workload.together())
            seconds["alone"].append(workload.alone())
    together, alone = (min(wall for wall, _ in seconds[key]) for key in ("together", "alone"))
    cpu_together, cpu_alone = (min(cpu for _, cpu in seconds[key]) for key in ("together", "alone"))
    return {
        "setting": f"{workload.config}/{workload.trainer}",
        "views": workload.views,
        "k": workload.count,
        "runs_per_minute_together": 60 / together,
        "runs_per_minute_alone": 60 / alone,
        "ratio": alone / together,
        "cpu_ratio": cpu_alone / cpu_together,
        "wall_and_cpu_seconds_per_run": seconds,
    }


def run(arguments: argparse.Namespace) -> None:
    """Measure all workloads, print the table and write the JSON.

    Raises:
        UserError: see `check`, or a run fails.
    """
    check(arguments)
    rows: list[dict[str, Any]] = []
    report = arguments.output_dir / "vectorise.json"
    load = os.getloadavg()[0]
    for setting in arguments.settings:
        for views in arguments.views:
            for count in arguments.k:
                with tempfile.TemporaryDirectory() as folder:
                    workload = Workload(arguments, setting, views, count, Path(folder))
                    rows.append(measure(workload, arguments.rounds))
                print(table(rows[-1:]), flush=True)
    print(f"\n{table(rows)}")
    environment = {
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load_before": load,
        "load_after": os.getloadavg()[0],
        "versions": package_versions(),
    }
    flags = {key: str(value) for key, value in vars(arguments).items()}
    write_json({"rows": rows, "arguments": flags, "environment": environment}, report)
    print(f"JSON: {report}")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Format the measurements as Markdown."""
    names = (
        *("setting", "views", "k", "runs_per_minute_together", "runs_per_minute_alone"),
        *("ratio", "cpu_ratio"),
    )
    return tabulate(
        [[row[name] for name in names] for row in rows],
        headers=["setting", "views", "K", "runs/min together", "alone", "ratio", "CPU ratio"],
        tablefmt="github",
        floatfmt=".2f",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return exit_code(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
