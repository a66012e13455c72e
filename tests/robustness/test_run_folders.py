"""Whose run a folder holds: nothing is resumed, replaced or recorded as what it is not."""

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
from tests.helpers.run_folders import Capture, content, model, rates
from tests.helpers.runs import finish, refuse
from tests.robustness.test_resume_hooks import Killed, killed_after
from tests.runs.test_dassl_resume import same_state

pytestmark = pytest.mark.usefixtures("toys")

pytest_plugins = ("tests.helpers.run_folder_fixtures",)


OTHER = {
    "shots": ("DATASET.NUM_SHOTS", "1", "DATASET.NUM_SHOTS: 4 -> 1"),
    "seed": ("SEED", "2", "SEED: 1 -> 2"),
    "rate": ("OPTIM.LR", "0.001", "OPTIM.LR: 0.02 -> 0.001"),
    "longer": ("OPTIM.MAX_EPOCH", "6", "OPTIM.MAX_EPOCH: 4 -> 6"),
    "shorter": ("OPTIM.MAX_EPOCH", "3", "OPTIM.MAX_EPOCH: 4 -> 3"),
}


@pytest.mark.parametrize("name", ["finished", "killed"])
@pytest.mark.parametrize("other", list(OTHER))
def test_another_configuration_in_the_same_folder(
    name: str, other: str, folder: Path, root: Path, capsys: Capture
) -> None:
    """train.py, Python and runs that are trained together refuse it and leave everything."""
    key, value, said = OTHER[other]
    before = content(folder)
    kind = "a finished run" if name == "finished" else "an unfinished run"
    expected = (
        f"{folder / name} already holds {kind} of another configuration ({said}); choose another "
        "--output-dir or --overwrite it"
    )
    assert refuse(toy_command(root, folder / name, key, value), capsys) == f"error: {expected}"
    cfg = toy_config(root, folder / name, key, value)
    for build in (build_trainer, build_and_seed):
        with pytest.raises(UserError) as refusal:
            build(cfg).train()
        assert str(refusal.value) == expected
    assert content(folder) == before


@pytest.mark.parametrize("other", ["shots", "seed", "rate", "shorter"])
@pytest.mark.parametrize("name", ["finished", "killed"])
def test_resume_with_another_configuration(
    name: str, other: str, folder: Path, root: Path, tmp_path: Path, capsys: Capture
) -> None:
    key, value, said = OTHER[other]
    before = content(folder)
    flags = ("--resume", str(folder / name))
    for output in (folder / name, tmp_path / "elsewhere"):
        for given in (toy_command(root, output, key, value, flags=flags), [*flags, key, value]):
            assert refuse(given, capsys) == (
                f"error: {folder / name} cannot be resumed, since it holds a run of another "
                f"configuration ({said}); remove these settings, or start a new training without "
                "--resume"
            )
        with pytest.raises(UserError, match=key):
            build_trainer(toy_config(root, output, key, value, "RESUME", flags[1])).train()
    assert content(folder) == before
    assert not content(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    "how", ["again", "resume", "resume alone", "python", "with agreeing pairs"]
)
def test_the_same_configuration_resumes(
    how: str, folder: Path, root: Path, whole: Path, tmp_path: Path
) -> None:
    """Settings that change no number may differ, and the folder may have been moved."""
    killed = folder / "killed"
    flags = ["--resume", str(killed)]
    if how == "again":
        finish(toy_command(root, killed, "TRAIN.PRINT_FREQ", "1"))
    elif how == "resume":
        finish(toy_command(root, killed, "DATALOADER.NUM_WORKERS", "0", flags=flags))
    elif how == "python":
        build_trainer(toy_config(root, killed)).train()
    elif how == "resume alone":
        finish(flags)
    else:
        finish([*flags, "--seed", "1", "OPTIM.LR", "2e-2"])
    assert same_state(model(killed), model(whole))
    results = finished_run(killed) or {}
    assert results["config"]["OUTPUT_DIR"] == str(killed)
    assert "origins" not in results


def test_resuming_into_another_folder(
    folder: Path, root: Path, whole: Path, tmp_path: Path
) -> None:
    """Killed there as well, it resumes from there, not from where it came."""
    on, before = tmp_path / "on", content(folder / "killed")
    given = toy_command(root, on, flags=("--resume", str(folder / "killed")))
    with pytest.raises(Killed), killed_after(5):
        train.main(given)
    assert load_checkpoint(on / "resume.pth.tar")["epoch"] == 3
    finish(given)
    assert same_state(model(on), model(whole))
    assert content(folder / "killed") == before


@pytest.mark.parametrize("name", ["finished", "killed"])
def test_a_longer_training_has_a_fresh_runs_rates(
    name: str, folder: Path, root: Path, tmp_path: Path, capsys: Capture
) -> None:
    longer = ("OPTIM.MAX_EPOCH", "8")
    finish(toy_command(root, tmp_path / "fresh", *longer))
    output = tmp_path / "on" if name == "finished" else folder / name
    done = 4 if name == "finished" else 2
    finish(["--resume", str(folder / name), "--output-dir", str(output), *longer])
    assert rates(output)[-(8 - done) :] == rates(tmp_path / "fresh")[done:]
    results = finished_run(output) or {}
    assert results["config"]["OPTIM"]["MAX_EPOCH"] == results["epochs"] == 8
    assert results["origins"] == [{"epochs": done, "settings": {"OPTIM.MAX_EPOCH": 4}}]
    if name == "finished":
        in_place = refuse(["--resume", str(folder / name), *longer], capsys)
        assert in_place == (
            f"error: {folder / name} holds a finished run of 4 epochs; to train it for 8, pass "
            f"another --output-dir together with --resume {folder / name}"
        )


def test_checkpoints_without_a_configuration(
    folder: Path, root: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Ours say themselves how they were trained, whatever lies beside them."""
    killed = folder / "killed"
    (killed / "config.yaml").unlink()
    assert "SEED: 1 -> 2" in refuse(toy_command(root, killed, "SEED", "2"), capsys)
    shutil.copy(folder / "finished" / "config.yaml", killed)
    text = (killed / "config.yaml").read_text()
    (killed / "config.yaml").write_text(text.replace("SEED: 1\n", "SEED: 2\n"))
    said = refuse(toy_command(root, killed, "SEED", "2"), capsys)
    assert "trained with other settings (SEED: 1 -> 2)" in said
    (killed / "config.yaml").write_text(text.replace("  LR: 0.02\n", "  LR: 2e-2\n"))
    finish(toy_command(root, killed))


def test_other_images_under_the_same_settings(
    folder: Path, root: Path, whole: Path, tmp_path: Path, capsys: Capture
) -> None:
    """The data may be elsewhere, but must be the same."""
    killed, moved = folder / "killed", tmp_path / "moved"
    other = make_images(tmp_path / "other", side=18)
    before = content(killed)
    said = refuse(toy_command(other, killed), capsys)
    assert "cannot be resumed, since the images of train_x, val are not those" in said
    assert content(killed) == before
    shutil.copytree(root, moved)
    finish(toy_command(moved, killed))
    assert same_state(model(killed), model(whole))


def test_a_configuration_from_before_a_key_existed(folder: Path, root: Path, whole: Path) -> None:
    killed = folder / "killed"
    lines = (killed / "config.yaml").read_text().splitlines(keepends=True)
    kept = [line for line in lines if "ON_BAD_IMAGE" not in line and "CACHE_MB" not in line]
    assert len(kept) == len(lines) - 2
    (killed / "config.yaml").write_text("".join(kept))
    finish(toy_command(root, killed))
    assert same_state(model(killed), model(whole))


def test_a_checkpoint_of_an_earlier_version(folder: Path, root: Path, whole: Path) -> None:
    """It does not say how it was trained, but config.yaml beside it does."""
    killed = folder / "killed"
    (killed / "resume.pth.tar").unlink()
    path = killed / "toy" / "model.pth.tar-2"
    state = load_checkpoint(path)
    del state["settings"]
    torch.save(state, path)
    finish(toy_command(root, killed))
    assert same_state(model(killed), model(whole))
    assert "origins" not in (finished_run(killed) or {})


def test_a_finished_run_again(folder: Path, root: Path, capsys: Capture) -> None:
    finished = folder / "finished"
    before = content(finished)
    expected = "already holds a finished run of this configuration; choose another --output-dir or"
    assert expected in refuse(toy_command(root, finished), capsys)
    with pytest.raises(UserError, match=expected):
        build_and_seed(toy_config(root, finished)).train()
    with pytest.raises(UserError, match=expected):
        build_and_seed(toy_config(root, finished)).evaluate()
    finish(["--resume", str(finished)])
    build_trainer(toy_config(root, finished, "RESUME", str(finished))).train()
    assert content(finished) == before
    build_and_seed(toy_config(root, finished, "SEED", "2"), overwrite=True).train()
    assert (finished_run(finished) or {})["seed"] == 2


def test_settings_are_no_secret_of_the_checkpoint(runs: Path) -> None:
    settings = json.loads(load_checkpoint(runs / "finished/toy/model.pth.tar-4")["settings"])
    assert (settings["OPTIM.LR"], settings["DATASET.NUM_SHOTS"]) == (0.02, 4)
