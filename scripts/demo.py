"""`make demo`: zero-shot CLIP, CoOp and Nemesis on bundled pictures; a table and a figure.

It ends with one learned prompt whose vectors are corrupted in turn (the Low-Norm Effect).
"""

import argparse
import contextlib
import itertools
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

import corrupt
import train
from analysis.figures import plot_accuracy_over_shots
from analysis.results import accuracy_table, collect_runs, summarise
from dassl.engine import finished_run
from dassl.utils import write_atomic

DATASET_CONFIGS = {
    "EmojiActivities": "configs/datasets/emoji_activities.yaml",
    "EmojiFood": "configs/datasets/emoji_food.yaml",
}
STUDIED = Path("EmojiActivities/CoOp/1shots/seed1")  # a run of every plan
PUN = ("TRAINER.NEMESIS.BETA", "1.0")
PAN = ("TRAINER.NEMESIS.BETA", "0.0")


@dataclass(frozen=True)
class Method:
    """A trainer with the settings that tell it from its siblings."""

    name: str
    trainer: str
    options: tuple[str, ...] = ()


ZERO_SHOT = Method("ZeroshotCLIP", "ZeroshotCLIP")
COOP = (
    Method("CoOp", "CoOp"),
    Method("CoOp+PUN", "CoOpNemesis", PUN),
    Method("CoOp+PAN", "CoOpNemesis", PAN),
)
COCOOP = (Method("CoCoOp", "CoCoOp"), Method("CoCoOp+PAN", "CoCoOpNemesis", PAN))
PLOT = (Method("PLOT", "PLOT"), Method("PLOT+PAN", "PLOTNemesis", PAN))


@dataclass(frozen=True)
class Grid:
    """Every method on every dataset with every number of shots and every seed."""

    methods: tuple[Method, ...] = COOP
    datasets: tuple[str, ...] = ("EmojiActivities", "EmojiFood")
    shots: tuple[int, ...] = (1, 4, 16)
    seeds: tuple[int, ...] = (1,)
    train_views: int = 0

    def commands(self, folder: Path) -> list[list[str]]:
        """The arguments of `train.py` for every run, zero-shot CLIP included.

        Zero-shot runs come first: the test features that they keep serve all others. The longest
        of the others come next.
        """
        zero_shot = [_command(folder, ZERO_SHOT, name, 0, 1) for name in self.datasets]
        tuned = itertools.product(self.methods, self.datasets, self.shots, self.seeds)
        ordered = sorted(tuned, key=lambda run: run[2], reverse=True)
        views = ("INPUT.TRAIN_VIEWS", str(self.train_views))
        return zero_shot + [[*_command(folder, *run), *views] for run in ordered]


def _command(folder: Path, method: Method, dataset: str, shots: int, seed: int) -> list[str]:
    output = folder / dataset / method.name / f"{shots}shots" / f"seed{seed}"
    return [
        *("--trainer", method.trainer),
        *("--dataset-config-file", DATASET_CONFIGS[dataset]),
        *("--config-file", f"configs/trainers/{method.trainer}/mini.yaml"),
        *("--output-dir", str(output)),
        *("--seed", str(seed)),
        "--overwrite",
        *("DATASET.NUM_SHOTS", str(shots)),
        *method.options,
    ]


@dataclass(frozen=True)
class Plan:
    """One or more grids and the folder of their runs."""

    grids: tuple[Grid, ...]
    folder: Path

    @property
    def shots(self) -> tuple[int, ...]:
        """All numbers of shots."""
        return tuple(sorted({count for grid in self.grids for count in grid.shots}))

    @property
    def seeds(self) -> int:
        """How many seeds a cell has at most."""
        return max(len(grid.seeds) for grid in self.grids)

    def commands(self, folder: Path) -> list[list[str]]:
        """The commands of all grids, each once."""
        listed = [tuple(command) for grid in self.grids for command in grid.commands(folder)]
        return [list(command) for command in dict.fromkeys(listed)]


DEMO = Plan((Grid(train_views=4),), Path("output/demo"))
QUICK = Plan(
    (Grid(datasets=("EmojiActivities",), shots=(1, 4), train_views=4),), Path("output/demo-quick")
)
TABLE = Plan(
    (
        Grid(seeds=(1, 2, 3)),
        Grid(methods=COCOOP + PLOT, datasets=("EmojiActivities",), seeds=(1, 2, 3)),
    ),
    Path("output/demo-table"),
)


def execute(command: list[str], threads: int) -> int:
    """One run in a process of its own; its output goes to its log.txt alone."""
    torch.set_num_threads(threads)
    with Path(os.devnull).open("w") as sink, contextlib.redirect_stdout(sink):
        return train.main(command)


def output_of(command: Sequence[str]) -> Path:
    """The folder that a command writes to."""
    return Path(command[command.index("--output-dir") + 1])


def execute_all(commands: Sequence[list[str]]) -> list[list[str]]:
    """Run the commands, one per core at a time; returns those that failed."""
    workers = max(1, min(len(commands), os.cpu_count() or 1))
    threads = max(1, (os.cpu_count() or 1) // workers)
    context = multiprocessing.get_context("spawn")
    failed = []
    with (
        ProcessPoolExecutor(workers, mp_context=context) as pool,
        tqdm(total=len(commands), unit="run", disable=None) as bar,
    ):
        futures = {pool.submit(execute, command, threads): command for command in commands}
        for future in as_completed(futures):
            if future.result() != 0:
                failed.append(futures[future])
            bar.update()
    return failed


def write_report(folder: Path, plan: Plan, commands: Sequence[list[str]]) -> str:
    """Draw the figure and write report.md; returns the table."""
    runs = collect_runs(folder)
    cells = summarise(runs)
    table = accuracy_table(cells, plan.shots)
    plot_accuracy_over_shots(cells, plan.shots, folder / "accuracy_over_shots.png")
    views = max(run["train_views"] for run in runs)
    lines = [
        "# Soft prompts learning on the bundled pictures",
        f"Test accuracy in %, mean ± standard deviation over {plan.seeds} seed(s); "
        f"bundled tiny CLIP, PyTorch {torch.__version__} on {platform.machine()}, "
        f"{os.cpu_count()} cores. "
        + (f"Trained on {views} kept views of each picture." if views else ""),
        table,
        "![accuracy over shots](accuracy_over_shots.png)",
        "Each run can be made again alone, for example:",
        f"    python train.py {' '.join(commands[-1])}",
    ]
    write_atomic(
        folder / "report.md",
        lambda path: path.write_text("\n\n".join(lines) + "\n", encoding="utf-8"),
    )
    return table


def main() -> int:
    """Run the demo; exit code 0 when every run finished."""
    parser = argparse.ArgumentParser(description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="one task, 1 and 4 shots")
    size.add_argument(
        "--table",
        action="store_true",
        help="the README's table: three seeds, PLOT and CoCoOp, too; an hour. "
        "Finished runs are kept, so that it goes on where it was stopped",
    )
    parser.add_argument("--output-dir", type=Path, help="where to write")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else TABLE if arguments.table else DEMO
    folder = arguments.output_dir or plan.folder

    commands = plan.commands(folder)
    missing = [c for c in commands if not (arguments.table and finished_run(output_of(c)))]
    print(f"{len(missing)} runs of train.py, then a table and a figure ...", flush=True)
    start = time.perf_counter()
    failed = execute_all(missing)
    for command in failed:
        print(f"failed: python train.py {' '.join(command)}", file=sys.stderr)
    if failed:
        return 1
    print(write_report(folder, plan, commands))
    print(f"\n{len(missing)} runs in {time.perf_counter() - start:.0f} s")
    print(f"Report and figure: {folder / 'report.md'}, {folder / 'accuracy_over_shots.png'}\n")
    print(f"Each vector of the prompt in {folder / STUDIED} replaced or rescaled in turn ...")
    return corrupt.main([str(folder / STUDIED), "--output", str(folder / "low_norm")])


if __name__ == "__main__":
    sys.exit(main())
