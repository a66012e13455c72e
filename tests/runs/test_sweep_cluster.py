"""A sweep on Ray: two nodes on this machine, one worker killed in the middle."""

import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nemesis.commands import sweep
from nemesis.sweeps.cluster import RayExecutor
from safeio.errors import UserError
from tests.helpers.runs import results, wait_for
from tests.helpers.sweeps_small import HERE, learned, runs_in, write

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is an extra: pip install '.[cluster]'"
)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of two nodes with one core each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster.address
    cluster.shutdown()


def ray_workers() -> list[int]:
    """Processes that are doing a task of ours."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_text().startswith("ray::_do"):
                found.append(int(path.parent.name))
    return found


@pytest.mark.slow
@needs_ray
@pytest.mark.filterwarnings("ignore")
def test_groups_on_a_cluster_give_the_table_of_this_machine_though_a_worker_is_killed(
    tmp_path: Path, data_root: Path, address: str
) -> None:
    settings = {"OPTIM.MAX_EPOCH": 4, "TRAIN.CHECKPOINT_FREQ": 1}
    here = write(tmp_path / "here", data_root, settings, seeds=list(range(6)))
    there = write(tmp_path / "there", data_root, settings, seeds=list(range(6)))
    assert sweep.main([here, *HERE]) == 0
    killed: list[int] = []
    codes: list[str] = []

    def kill() -> None:
        first = runs_in(there)[0]
        wait_for(first.folder / "prompt_learner/checkpoint", lambda: codes)
        killed.extend(ray_workers()[:1])
        for pid in killed:
            os.kill(pid, signal.SIGKILL)

    murderer = threading.Thread(target=kill)
    murderer.start()
    codes.append(f"exit code {sweep.main([there, '--cluster', address, '--batch', '2'])}")
    murderer.join(60)
    assert codes == ["exit code 0"]
    assert killed
    batched = [results(run.folder).get("batched", 1) for run in runs_in(there)]
    assert batched.count(2) >= 4  # the two runs of the killed group may stand at other epochs
    for one, other in zip(runs_in(here), runs_in(there), strict=True):
        assert one.digest == other.digest
        assert (learned(one)[0] - learned(other)[0]).abs().max() <= 1e-5
        assert learned(one)[1] == learned(other)[1]


def test_without_ray_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install '\.\[cluster\]'"):
        RayExecutor("auto")
