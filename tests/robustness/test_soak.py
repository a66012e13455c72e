"""Many runs in one process, and many processes on one folder."""

import multiprocessing
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.runs import soak
from nemesis.commands import sweep
from tests.helpers.runs import results
from tests.helpers.sweeps_small import write

AT_ONCE = 8
SECONDS = 300  # the longest wait


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_process_holds_no_more_after_many_runs(tmp_path: Path, data_root: Path) -> None:
    found = soak(20, data_root, tmp_path)
    first = found["warm_up"] - 1
    assert found["handles"][-1] <= found["handles"][first], found["handles"]
    assert found["threads"][-1] == found["threads"][first]
    assert found["slope_mib"] < 2, found["memory"]  # 200 runs give a better estimate


def do_sweep(path: str, log: Path) -> None:
    """Run a sweep in this process, with its output in a file."""
    torch.set_num_threads(1)
    with log.open("w") as file:
        sys.stdout = sys.stderr = file
        sys.exit(sweep.main([path, "--workers", "0"]))


@pytest.mark.slow
def test_many_sweeps_at_once_share_their_data_and_features(tmp_path: Path) -> None:
    """All make the images, sample the shots and compute the features; load changes no result."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.robustness.test_soak"])

    def start(name: str, root: str) -> "multiprocessing.process.BaseProcess":
        path = write(tmp_path / name, tmp_path / root, config="mini_ctx16")
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
