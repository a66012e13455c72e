"""Execute runs as Ray tasks on the machines of a Ray cluster.

All machines need this project, its data and the output folder under the same paths (a shared file
system). Ray reuses its processes for many tasks, so they cache CLIP and data.
"""

import functools
import os
from pathlib import Path
from typing import Any

from dassl.utils import reuse_loaded
from safeio.errors import UserError

from .grid import ROOT
from .runs import Task
from .worker import LOST, CleanState, Outcome, work

TASKS_PER_SLOT = 2  # one runs, one waits, so that a node is never idle


class RayExecutor:
    """Executor on a Ray cluster.

    Args:
        address: of the cluster, such as `auto` or `ray://host:10001`.
        cpus: cores and PyTorch threads per task.
        gpus: GPUs per task, such as 0.25; 0 for the CPU.

    Raises:
        UserError: Ray is not installed, or no cluster is found.
    """

    def __init__(self, address: str, cpus: int = 1, gpus: float = 0.0) -> None:
        self._ray = _import_ray()
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        try:
            self._ray.init(
                address=address,
                ignore_reinit_error=True,
                log_to_driver=False,
                runtime_env={"env_vars": {"PYTHONPATH": path}},
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"No Ray cluster found at {address}: {reason}") from error
        # Ray retries the tasks of a lost node; their runs resume from their checkpoints.
        self._task = self._ray.remote(
            num_cpus=cpus, num_gpus=gpus, max_retries=3, scheduling_strategy="SPREAD"
        )(_do)
        self._cpus, self._gpus = cpus, gpus
        self._tasks: dict[Any, Task] = {}
        self.device = "cuda" if gpus else "cpu"

    @property
    def width(self) -> int:
        """The number of tasks that the cluster, at its current size, can run at a time."""
        resources = self._ray.cluster_resources()
        slots = resources.get("CPU", 0) / self._cpus
        if self._gpus:
            slots = min(slots, resources.get("GPU", 0) / self._gpus)
        return int(slots)

    def free(self) -> int:
        """Return how many tasks can be submitted now: at least one in total, to trigger scaling."""
        return max(0, max(1, TASKS_PER_SLOT * self.width) - len(self._tasks))

    def submit(self, task: Task) -> None:
        """Submit a task."""
        self._tasks[self._task.remote(task, self._cpus, str(Path.cwd()))] = task

    def collect(self, seconds: float) -> list[Outcome]:
        """Wait for outcomes, at most so many seconds."""
        ready, _ = self._ray.wait(list(self._tasks), timeout=seconds)
        return [outcome for reference in ready for outcome in self._outcomes(reference)]

    def _outcomes(self, reference: Any) -> list[Outcome]:
        task = self._tasks.pop(reference)
        try:
            outcomes: list[Outcome] = self._ray.get(reference)
            return outcomes
        except self._ray.exceptions.RayError as error:
            return [Outcome(run, LOST, " ".join(str(error).split())[:200]) for run in task]

    def close(self) -> None:
        """Cancel all tasks and disconnect from the cluster."""
        for reference in self._tasks:
            self._ray.cancel(reference, force=True)
        self._tasks.clear()
        self._ray.shutdown()


def _import_ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise UserError(
            "--cluster needs Ray, which is not installed; pip install '.[cluster]'"
        ) from error
    return ray


@functools.cache
def _enable_cache() -> None:
    """Cache CLIP and data until this process ends."""
    reuse_loaded().__enter__()


def _do(task: Task, threads: int, folder: str) -> list[Outcome]:
    """Execute runs whose paths are relative to the folder of the submitting process."""
    os.chdir(folder)
    _enable_cache()
    return work(task, CleanState(threads))
