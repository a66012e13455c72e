"""`make demo`: zero-shot CLIP and CoOp on bundled pictures; a table and a figure in minutes."""

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

import train
from analysis.figures import plot_accuracy_over_shots
from analysis.results import accuracy_table, collect_runs, summarise

DATASET_CONFIGS = {
    "EmojiActivities": "configs/datasets/emoji_activities.yaml",
    "EmojiFood": "configs/datasets/emoji_food.yaml",
}


@dataclass(frozen=True)
class Plan:
    """What the demo runs: every dataset with every number of shots and every seed."""

    datasets: tuple[str, ...] = ("EmojiActivities", "EmojiFood")
    shots: tuple[int, ...] = (1, 4, 16)
    seeds: tuple[int, ...] = (1, 2)

    def commands(self, folder: Path) -> list[list[str]]:
        """The arguments of `train.py` for every run, the longest runs first."""
        zero_shot = [self._command(folder, "ZeroshotCLIP", name, 0, 1) for name in self.datasets]
        tuned = [
            self._command(folder, "CoOp", name, shots, seed)
            for shots, name, seed in itertools.product(
                sorted(self.shots, reverse=True), self.datasets, self.seeds
            )
        ]
        return tuned + zero_shot

    def _command(
        self, folder: Path, trainer: str, dataset: str, shots: int, seed: int
    ) -> list[str]:
        output = folder / dataset / trainer / f"{shots}shots" / f"seed{seed}"
        return [
            *("--trainer", trainer),
            *("--dataset-config-file", DATASET_CONFIGS[dataset]),
            *("--config-file", f"configs/trainers/{trainer}/mini.yaml"),
            *("--output-dir", str(output)),
            *("--seed", str(seed)),
            "--overwrite",
            *("DATASET.NUM_SHOTS", str(shots)),
        ]


QUICK = Plan(datasets=("EmojiActivities",), shots=(1, 4), seeds=(1,))


def execute(command: list[str], threads: int) -> int:
    """One run in a process of its own; its output goes to its log.txt alone."""
    torch.set_num_threads(threads)
    with Path(os.devnull).open("w") as sink, contextlib.redirect_stdout(sink):
        return train.main(command)


def execute_all(commands: Sequence[list[str]]) -> list[list[str]]:
    """Run the commands, one per core at a time; returns those that failed."""
    workers = min(len(commands), os.cpu_count() or 1)
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


def write_report(folder: Path, plan: Plan, commands: Sequence[list[str]], seconds: float) -> str:
    """Draw the figure and write report.md; returns the table."""
    cells = summarise(collect_runs(folder))
    table = accuracy_table(cells, plan.shots)
    plot_accuracy_over_shots(cells, plan.shots, folder / "accuracy_over_shots.png")
    lines = [
        "# Soft prompts learning on the bundled pictures",
        f"Test accuracy in %, mean ± standard deviation over {len(plan.seeds)} seed(s); "
        f"bundled tiny CLIP, PyTorch {torch.__version__} on {platform.machine()}, "
        f"{os.cpu_count()} cores, {seconds:.0f} s for {len(commands)} runs.",
        table,
        "![accuracy over shots](accuracy_over_shots.png)",
        "Each run can be made again alone, for example:",
        f"    python train.py {' '.join(commands[0])}",
    ]
    (folder / "report.md").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return table


def main() -> int:
    """Run the demo; exit code 0 when every run finished."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one task, 1 and 4 shots, one seed")
    parser.add_argument("--output-dir", type=Path, help="where to write; default output/demo")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else Plan()
    folder = arguments.output_dir or Path("output/demo-quick" if arguments.quick else "output/demo")

    commands = plan.commands(folder)
    print(f"{len(commands)} runs of train.py, then a table and a figure ...", flush=True)
    start = time.perf_counter()
    failed = execute_all(commands)
    for command in failed:
        print(f"failed: python train.py {' '.join(command)}", file=sys.stderr)
    if failed:
        return 1
    print(write_report(folder, plan, commands, time.perf_counter() - start))
    print(f"\nReport and figure: {folder / 'report.md'}, {folder / 'accuracy_over_shots.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
