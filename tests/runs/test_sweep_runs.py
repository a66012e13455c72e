"""What a sweep does with its runs: once, in any order, whatever it finds in their folders."""

import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from filelock import FileLock

import train
from dassl.utils import reuse_loaded
from nemesis.commands import sweep
from nemesis.sweeps.runs import LOCKS, Run, State, digest_of, state_of
from nemesis.sweeps.worker import SKIPPED, CleanState, Outcome, work
from tests.helpers.runs import command, results
from tests.helpers.small_disk import small_disk
from tests.helpers.sweeps_small import HERE, PUN, SETTINGS, learned, runs_in, write


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> str:
    """Several methods, done one after the other in this process."""
    methods = {"CoOp": None, "CoOp+PUN": PUN, "PLOT": None, "CoCoOp": None}
    path = write(tmp_path_factory.mktemp("sweep"), data_root, methods=methods)
    assert sweep.main([path, *HERE]) == 0
    return path


@pytest.fixture
def copied(finished: str, tmp_path: Path) -> Run:
    """A finished CoOp run in an output folder of its own."""
    run = runs_in(finished)[0]
    shutil.copytree(run.folder, tmp_path / "runs" / run.name)
    return Run(**{**run.__dict__, "output": tmp_path / "runs"})


def do(run: Run, state: CleanState | None = None) -> Outcome:
    (outcome,) = work((run,), state or CleanState(torch.get_num_threads()))
    return outcome


def same(one: Run, other: Run) -> bool:
    (prompt, accuracy), (prompt_2, accuracy_2) = learned(one), learned(other)
    return torch.equal(prompt, prompt_2) and accuracy == accuracy_2


def test_a_worker_gives_the_same_bits_as_train_in_a_process_of_its_own(
    finished: str, tmp_path: Path, data_root: Path
) -> None:
    run = runs_in(finished)[0]
    options = [str(item) for setting in SETTINGS.items() for item in setting]
    options += ["DATASET.NUM_SHOTS", "1"]
    arguments = command(tmp_path / "alone", data_root, *options, config="mini")
    threads = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, train.__file__, *arguments], env=threads, check=True)
    alone = Run(**{**run.__dict__, "output": tmp_path, "name": "alone"})
    assert same(run, alone)
    # So it is the same run, wherever it came from.
    assert state_of(alone) is State.DONE


def test_no_run_depends_on_those_before_it(finished: str, tmp_path: Path) -> None:
    runs, state = runs_in(finished), CleanState(torch.get_num_threads())
    with reuse_loaded():
        for run in reversed(runs):
            again = Run(**{**run.__dict__, "output": tmp_path})
            torch.set_default_dtype(torch.float64)  # as a careless run might
            outcome = do(again, state)
            assert outcome.status == "done", outcome.reason
            assert same(run, again), run.name


def test_the_dry_run_lists_and_estimates(
    finished: str, tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs_in(finished)[0]

    def shown(*arguments: str) -> list[str]:
        assert sweep.main([*arguments, "--dry-run", "--workers", "1"]) == 0
        return capsys.readouterr().out.splitlines()

    line, total = shown(finished, "--only", "*/CoOp/")
    assert line.startswith("done       emoji_activities/CoOp/shots_1/seed1-")
    assert total == "1 runs: 1 done, 0 to resume, 0 to do; estimated time with 1 at a time: 0:00:00"
    lines = shown(finished, "--set", "OPTIM.LR", "0.1")
    assert all(line.startswith("to do") for line in lines[:-1])
    assert lines[-1].endswith("estimated time with 1 at a time: unknown")
    assert sweep.main([finished, *HERE]) == 0
    assert "All 4 runs are done" in capsys.readouterr().out
    folders = [str(run.folder) for run in runs_in(finished)]
    assert sweep.main([finished, "--folders", "--seeds", "1", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == folders
    # Another seed takes as long as the one that is done.
    more = write(tmp_path, data_root, shots=[1, 2], seeds=[1, 2], output=str(run.output))
    estimate = r"1 at a time: 0:0\d:\d\d and 2 runs of unknown length"
    assert re.search(estimate, shown(more, "--batch", "2")[-1])
    assert not (tmp_path / "runs").exists()


def test_an_interrupted_run_is_resumed(tmp_path: Path, data_root: Path) -> None:
    settings = {"OPTIM.MAX_EPOCH": 3, "TRAIN.CHECKPOINT_FREQ": 1}
    path = write(tmp_path, data_root, settings)
    assert sweep.main([path, *HERE]) == 0
    (run,) = runs_in(path)
    expected = learned(run)
    for name in ("results.json", "prompt.safetensors", "prompt_learner/model.pth.tar-3"):
        (run.folder / name).unlink()
    (run.folder / "prompt_learner/checkpoint").write_text("model.pth.tar-2\n")
    (run.folder / "prompt_learner/.model.pth.tar-3.x.tmp").write_text("half of it")
    assert state_of(run) is State.RESUME
    assert sweep.main([path, *HERE]) == 0
    assert torch.equal(learned(run)[0], expected[0])
    logs = sorted(run.folder.glob("log.txt*"))
    assert "will resume training after epoch 2" in logs[-1].read_text()
    assert not list(run.folder.rglob("*.tmp"))


@pytest.mark.parametrize(
    "half", ["results.json", "config.yaml", "prompt_learner/model.pth.tar-1", "history.jsonl"]
)
def test_half_a_file_is_not_taken_for_a_run(finished: str, copied: Run, half: str) -> None:
    for name in {"results.json", half}:
        path = copied.folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert state_of(copied) is not State.DONE
    outcome = do(copied)
    assert outcome.status == "done", outcome.reason
    assert same(copied, runs_in(finished)[0])


def test_a_run_of_another_configuration_is_never_written_over(copied: Run) -> None:
    config = {**copied.config, "SEED": 9}
    other = Run(**{**copied.__dict__, "config": config, "digest": digest_of(config)})
    before = (copied.folder / "results.json").read_bytes()
    outcome = do(other)
    assert outcome.status == "failed"
    assert "holds a run of another configuration; move it away" in outcome.reason
    assert (copied.folder / "results.json").read_bytes() == before


def test_two_sweeps_in_one_folder_share_their_runs(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write(tmp_path, data_root)
    methods = {"another label": {"trainer": "CoOp"}, "CoOp+PUN": PUN}
    second = write(tmp_path, data_root, methods=methods)
    assert sweep.main([first, *HERE]) == 0
    assert sweep.main([second, *HERE]) == 0
    assert "1 runs done, 1 were done already" in capsys.readouterr().out
    assert runs_in(second)[0].folder == runs_in(first)[0].folder
    assert len(list((tmp_path / "runs").rglob("results.json"))) == 2


def test_a_run_that_another_process_has_is_waited_for(
    tmp_path: Path, data_root: Path, copied: Run
) -> None:
    """The other one finishes it in the meantime."""
    path = write(tmp_path, data_root)
    (run,) = runs_in(path)
    assert run.digest == copied.digest
    results_file, aside = run.folder / "results.json", tmp_path / "results.json"
    results_file.rename(aside)
    lock = FileLock(str(run.output / LOCKS / f"{run.digest[:10]}.lock"), thread_local=False)
    (run.output / LOCKS).mkdir()
    lock.acquire()

    def finish() -> None:
        aside.rename(results_file)
        lock.release()

    timer = threading.Timer(1, finish)
    timer.start()
    assert sweep.main([path, *HERE]) == 0
    timer.join()
    assert do(run).status == SKIPPED
    assert len(list(run.folder.glob("log.txt*"))) == 1  # it was not done again


def test_a_failure_stops_no_other_run(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = {
        "lost": {"trainer": "CoOp", "set": {"MODEL.BACKBONE.NAME": "nowhere.pt"}},
        "diverging": {"trainer": "CoOp", "set": {"OPTIM.LR": 1e38, "OPTIM.MAX_EPOCH": 3}},
        "blocked": PUN,
        "CoOp": None,
    }
    path = write(tmp_path, data_root, methods=methods, evaluate=[{"name": "again"}])
    (tmp_path / "runs/emoji_activities").mkdir(parents=True)
    (tmp_path / "runs/emoji_activities/blocked").write_text("in the way")
    assert sweep.main([path, *HERE]) == 1
    printed = capsys.readouterr()
    assert "2 runs done, 0 were done already, 6 failed, 0 left" in printed.out
    assert "cannot be a folder: a file with this name exists" in printed.err
    assert "/lost/shots_1/seed1-" in printed.err
    assert "The weights file nowhere.pt does not exist" in printed.err
    assert "the training has diverged" in printed.err
    assert printed.err.count("the run whose model it tests has failed") == 3
    assert "    error: The loss is" in printed.err  # from its log
    assert sweep.main([path, *HERE, "--only", "*/CoOp/"]) == 0
    trained, test = runs_in(path)[-2:]
    assert results(test.folder)["model_dir"] == str(trained.folder)
    assert results(test.folder)["epochs"] == 0


def test_a_full_disk_fails_the_run_in_one_sentence(finished: str, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "32k") as disk:
        run = Run(**{**runs_in(finished)[0].__dict__, "output": disk})
        outcome = do(run)
        assert outcome.status == "failed"
        assert "No space left on device" in outcome.reason
        assert "\n" not in outcome.reason
        assert state_of(run) is not State.DONE
