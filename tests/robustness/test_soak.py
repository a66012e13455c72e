"""Many runs in one process, and many processes on one folder."""

import multiprocessing
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.soak import measure
from nemesis.commands import sweep
from tests.helpers.runs import results
from tests.helpers.sweeps_small import write

AT_ONCE = 8
SECONDS = 300  # after which a test ends that waits for nothing


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a process holds")
def test_a_process_holds_no_more_after_many_runs(tmp_path: Path, data_root: Path) -> None:
    found = measure(20, data_root, tmp_path)
    assert found.handles_grown <= 0, found.handles
    assert found.threads[-1] == found.threads[found.warm_up - 1]
    assert found.slope < 2, found.memory  # MiB a run; 200 runs say it better


def do_sweep(path: str, log: Path) -> None:
    """A process of its own."""
    torch.set_num_threads(1)
    with log.open("w") as file:
        sys.stdout = sys.stderr = file
        sys.exit(sweep.main([path, "--workers", "0"]))


def test_many_sweeps_at_once_share_their_data_and_features(tmp_path: Path) -> None:
    """From nothing: all make the images, draw the shots and compute the features, at once.

    Their results are those of a sweep that is alone, so load changes none either.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.robustness.test_soak"])

    def start(name: str, root: str) -> "multiprocessing.process.BaseProcess":
        few = {"TEST.SPLIT": "val"}
        path = write(tmp_path / name, tmp_path / root, few, config="mini_ctx16")
        process = context.Process(target=do_sweep, args=(path, tmp_path / name / "log"))
        process.start()
        return process

    together = {f"sweep{number}": start(f"sweep{number}", "shared") for number in range(AT_ONCE)}
    for process in together.values():
        process.join(SECONDS)
    alone = start("alone", "own")
    alone.join(SECONDS)
    for name, process in {**together, "alone": alone}.items():
        if process.is_alive():
            process.kill()
        assert process.exitcode == 0, (tmp_path / name / "log").read_text()

    (whole,) = (tmp_path / "alone").rglob("results.json")
    for name in together:
        (found,) = (tmp_path / name).rglob("results.json")
        prompts = [load_file(p.parent / "prompt.safetensors")["ctx"] for p in (whole, found)]
        assert torch.equal(*prompts)
        one, other = results(whole.parent), results(found.parent)
        different = {key for key in one if one[key] != other.get(key)}
        assert different <= {"config", "train_seconds", "checksum"}
        assert "damaged" not in (found.parent / "log.txt").read_text()
    assert not list((tmp_path / "shared").rglob("*.tmp"))
    features = [list((tmp_path / root / "features").glob("*.npy")) for root in ("shared", "own")]
    assert len(features[0]) == len(features[1])
