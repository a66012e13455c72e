"""Runs as Ray tasks, on as many machines as a Ray cluster has.

All machines need this project, its data and the output folder under the same paths (a shared file
system). A node's processes serve task after task, so that CLIP and data stay loaded in them.
"""

import functools
import os
from pathlib import Path
from typing import Any

from dassl.utils import reuse_loaded
from safeio.errors import UserError

from .grid import HOUSE
from .runs import Task
from .worker import LOST, CleanState, Outcome, work

AHEAD = 2  # tasks for every one that can run: a node never waits for its next


class RayExecutor:
    """Gives tasks to a Ray cluster.

    Args:
        address: of the cluster, such as `auto` or `ray://host:10001`.
        cpus: cores of a task; its PyTorch threads, too.
        gpus: GPUs of a task, such as 0.25; 0 for the CPU.

    Raises:
        UserError: Ray is not installed, or there is no cluster.
    """

    def __init__(self, address: str, cpus: int = 1, gpus: float = 0.0) -> None:
        self._ray = _import_ray()
        try:
            self._ray.init(
                address=address,
                ignore_reinit_error=True,
                log_to_driver=False,
                runtime_env={"env_vars": {"PYTHONPATH": _python_path()}},
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            said = " ".join(str(error).split())[:200]
            raise UserError(f"There is no Ray cluster at {address}: {said}") from error
        # What dies with its node is given out again by Ray; a run resumes from its checkpoint.
        self._task = self._ray.remote(
            num_cpus=cpus, num_gpus=gpus, max_retries=3, scheduling_strategy="SPREAD"
        )(_do)
        self._cpus, self._gpus = cpus, gpus
        self._given: dict[Any, Task] = {}
        self.device = "cuda" if gpus else "cpu"

    @property
    def width(self) -> int:
        """How many tasks the cluster can do at a time, now that it is as large as it is."""
        resources = self._ray.cluster_resources()
        slots = resources.get("CPU", 0) / self._cpus
        if self._gpus:
            slots = min(slots, resources.get("GPU", 0) / self._gpus)
        return int(slots)

    def free(self) -> int:
        """How many more tasks the cluster can take; one waits even without a machine for it."""
        return max(0, max(1, AHEAD * self.width) - len(self._given))

    def submit(self, task: Task) -> None:
        """Give out a task."""
        self._given[self._task.remote(task, self._cpus, str(Path.cwd()))] = task

    def collect(self, seconds: float) -> list[Outcome]:
        """Wait for outcomes, so long at most."""
        ready, _ = self._ray.wait(list(self._given), timeout=seconds)
        return [outcome for reference in ready for outcome in self._outcomes(reference)]

    def _outcomes(self, reference: Any) -> list[Outcome]:
        task = self._given.pop(reference)
        try:
            outcomes: list[Outcome] = self._ray.get(reference)
            return outcomes
        except self._ray.exceptions.RayError as error:
            return [Outcome(run, LOST, " ".join(str(error).split())[:200]) for run in task]

    def close(self) -> None:
        """Cancel what is running, and leave the cluster."""
        for task in self._given:
            self._ray.cancel(task, force=True)
        self._given.clear()
        self._ray.shutdown()


def _python_path() -> str:
    """Where the cluster's processes find this project, too."""
    return os.pathsep.join(filter(None, [str(HOUSE), os.environ.get("PYTHONPATH", "")]))


def _import_ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise UserError(
            "--cluster needs Ray, which is not installed; pip install '.[cluster]'"
        ) from error
    return ray


@functools.cache
def _keep_loaded() -> None:
    """Let what is loaded stay until this process ends."""
    reuse_loaded().__enter__()


def _do(task: Task, threads: int, folder: str) -> list[Outcome]:
    """Runs whose paths are relative to the folder of whoever gave them out."""
    os.chdir(folder)
    _keep_loaded()
    return work(task, CleanState(threads))
