"""A run's folder is never resumed, replaced or recorded as something that it is not."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import train
from dassl.engine import build_and_seed, build_trainer, finished_run
from dassl.utils import load_checkpoint
from safeio.errors import UserError
from tests.helpers.dassl_toy import make_images, toy_command, toy_config
from tests.helpers.killing import Killed, killed_after, same_state
from tests.helpers.run_folders import content, model, rates
from tests.helpers.runs import Capture, finish, refuse

pytestmark = pytest.mark.usefixtures("toys")

# Another configuration

OTHER = {
    "shots": ("DATASET.NUM_SHOTS", "1", "DATASET.NUM_SHOTS: 4 -> 1"),
    "seed": ("SEED", "2", "SEED: 1 -> 2"),
    "rate": ("OPTIM.LR", "0.001", "OPTIM.LR: 0.02 -> 0.001"),
    "longer": ("OPTIM.MAX_EPOCH", "6", "OPTIM.MAX_EPOCH: 4 -> 6"),
    "shorter": ("OPTIM.MAX_EPOCH", "3", "OPTIM.MAX_EPOCH: 4 -> 3"),
}


@pytest.mark.parametrize("name", ["finished", "killed"])
def test_another_configuration_is_refused(
    name: str, folder: Path, root: Path, capsys: Capture
) -> None:
    """train.py, Python and batches refuse it and change nothing."""
    before = content(folder)
    kind = "a finished run" if name == "finished" else "an unfinished run"
    for key, value, difference in OTHER.values():
        expected = (
            f"{folder / name} already holds {kind} of another configuration ({difference}); "
            "choose another --output-dir or --overwrite it"
        )
        assert refuse(toy_command(root, folder / name, key, value), capsys) == f"error: {expected}"
        for build in (build_trainer, build_and_seed):
            with pytest.raises(UserError) as refusal:
                build(toy_config(root, folder / name, key, value)).train()
            assert str(refusal.value) == expected
    assert content(folder) == before


@pytest.mark.parametrize("name", ["finished", "killed"])
def test_resuming_with_another_configuration_is_refused(
    name: str, folder: Path, root: Path, tmp_path: Path, capsys: Capture
) -> None:
    before = content(folder)
    flags = ("--resume", str(folder / name))
    for key, value, difference in (OTHER[other] for other in OTHER if other != "longer"):
        for output in (folder / name, tmp_path / "elsewhere"):
            for given in (toy_command(root, output, key, value, flags=flags), [*flags, key, value]):
                assert refuse(given, capsys) == (
                    f"error: {folder / name} cannot be resumed, since it holds a run of another "
                    f"configuration ({difference}); remove these settings, or train anew in "
                    "another --output-dir"
                )
            with pytest.raises(UserError, match=key):
                build_trainer(toy_config(root, output, key, value, "RESUME", flags[1])).train()
    assert content(folder) == before
    assert not content(tmp_path / "elsewhere")


def test_checkpoints_state_their_configuration(
    folder: Path, root: Path, tmp_path: Path, capsys: Capture
) -> None:
    """config.yaml may be missing, or of another run."""
    killed = folder / "killed"
    settings = json.loads(load_checkpoint(folder / "finished/toy/model.pth.tar-4")["settings"])
    assert (settings["OPTIM.LR"], settings["DATASET.NUM_SHOTS"]) == (0.02, 4)
    (killed / "config.yaml").unlink()
    assert "SEED: 1 -> 2" in refuse(toy_command(root, killed, "SEED", "2"), capsys)
    text = (folder / "finished" / "config.yaml").read_text()
    (killed / "config.yaml").write_text(text.replace("SEED: 1\n", "SEED: 2\n"))
    message = refuse(toy_command(root, killed, "SEED", "2"), capsys)
    assert "trained with other settings (SEED: 1 -> 2)" in message
    (killed / "config.yaml").write_text(text.replace("  LR: 0.02\n", "  LR: 2e-2\n"))
    finish(toy_command(root, killed))


# The same configuration


@pytest.mark.parametrize("how", ["again", "resume", "resume alone", "python", "agreeing pairs"])
def test_the_same_configuration_resumes(how: str, folder: Path, root: Path, whole: Path) -> None:
    """Settings that do not affect the results may differ, and the folder may have been moved."""
    killed = folder / "killed"
    flags = ["--resume", str(killed)]
    if how == "again":
        finish(toy_command(root, killed, "TRAIN.PRINT_FREQ", "1"))
    elif how == "resume":
        finish(toy_command(root, killed, "DATALOADER.NUM_WORKERS", "0", flags=flags))
    elif how == "python":
        build_trainer(toy_config(root, killed)).train()
    else:
        pairs = ["--seed", "1", "OPTIM.LR", "2e-2"] if how == "agreeing pairs" else []
        finish([*flags, *pairs])
    assert same_state(model(killed), model(whole))
    results = finished_run(killed) or {}
    assert results["config"]["OUTPUT_DIR"] == str(killed)
    assert "origins" not in results


def test_resuming_into_another_folder(
    folder: Path, root: Path, whole: Path, tmp_path: Path
) -> None:
    """Killed there as well, the run resumes from that folder instead of the first one."""
    other, before = tmp_path / "other", content(folder / "killed")
    given = toy_command(root, other, flags=("--resume", str(folder / "killed")))
    with pytest.raises(Killed), killed_after(5):
        train.main(given)
    assert load_checkpoint(other / "resume.pth.tar")["epoch"] == 3
    finish(given)
    assert same_state(model(other), model(whole))
    assert content(folder / "killed") == before


@pytest.mark.parametrize("name", ["finished", "killed"])
def test_a_longer_training_has_the_rates_of_a_new_run(
    name: str, folder: Path, root: Path, tmp_path: Path, capsys: Capture
) -> None:
    longer = ("OPTIM.MAX_EPOCH", "8")
    finish(toy_command(root, tmp_path / "fresh", *longer))
    output, done = (tmp_path / "longer", 4) if name == "finished" else (folder / name, 2)
    finish(["--resume", str(folder / name), "--output-dir", str(output), *longer])
    assert rates(output)[-(8 - done) :] == rates(tmp_path / "fresh")[done:]
    results = finished_run(output) or {}
    assert results["config"]["OPTIM"]["MAX_EPOCH"] == results["epochs"] == 8
    assert results["origins"] == [{"epochs": done, "settings": {"OPTIM.MAX_EPOCH": 4}}]
    if name == "finished":
        assert refuse(["--resume", str(folder / name), *longer], capsys) == (
            f"error: {folder / name} holds a finished run of 4 epochs; to train it for 8, pass "
            f"another --output-dir together with --resume {folder / name}"
        )


def test_the_data_may_move_but_not_change(
    folder: Path, root: Path, whole: Path, tmp_path: Path, capsys: Capture
) -> None:
    killed, moved = folder / "killed", tmp_path / "moved"
    other = make_images(tmp_path / "other", side=18)
    before = content(killed)
    message = refuse(toy_command(other, killed), capsys)
    assert "cannot be resumed, since the images of train_x, val are not those" in message
    assert content(killed) == before
    shutil.copytree(root, moved)
    finish(toy_command(moved, killed))
    assert same_state(model(killed), model(whole))


@pytest.mark.parametrize("older", ["config.yaml", "checkpoint"])
def test_runs_of_earlier_versions_resume(older: str, folder: Path, root: Path, whole: Path) -> None:
    """Their config.yaml lacks keys of today, or their checkpoints do not state their settings."""
    killed = folder / "killed"
    if older == "config.yaml":
        lines = (killed / "config.yaml").read_text().splitlines(keepends=True)
        kept = [line for line in lines if "ON_BAD_IMAGE" not in line and "CACHE_MB" not in line]
        assert len(kept) == len(lines) - 2
        (killed / "config.yaml").write_text("".join(kept))
    else:
        (killed / "resume.pth.tar").unlink()
        path = killed / "toy" / "model.pth.tar-2"
        torch.save({k: v for k, v in load_checkpoint(path).items() if k != "settings"}, path)
    finish(toy_command(root, killed))
    assert same_state(model(killed), model(whole))
    assert "origins" not in (finished_run(killed) or {})


def test_a_finished_run_is_not_run_again(folder: Path, root: Path, capsys: Capture) -> None:
    finished = folder / "finished"
    before = content(finished)
    expected = "already holds a finished run of this configuration; choose another --output-dir or"
    assert expected in refuse(toy_command(root, finished), capsys)
    for method in ("train", "evaluate"):
        with pytest.raises(UserError, match=expected):
            getattr(build_and_seed(toy_config(root, finished)), method)()
    finish(["--resume", str(finished)])
    build_trainer(toy_config(root, finished, "RESUME", str(finished))).train()
    assert content(finished) == before
    build_and_seed(toy_config(root, finished, "SEED", "2"), overwrite=True).train()
    assert (finished_run(finished) or {})["seed"] == 2
