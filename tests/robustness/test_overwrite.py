"""What --overwrite removes, and when; what is never removed."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import train
from dassl.engine.run_files import run_files
from safeio.errors import UserError
from tests.helpers.dassl_toy import ToyTrainer, registered, toy_command
from tests.helpers.run_folders import Capture, content
from tests.helpers.runs import finish, refuse
from tests.robustness.test_resume_hooks import Killed, killed_after

pytest_plugins = ("tests.helpers.run_folder_fixtures",)


class Broken(ToyTrainer):
    """Its first batch cannot be read."""

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, Any]:
        raise UserError("an image is broken")


class Diverges(ToyTrainer):
    """At its first step."""

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, Any]:
        image, _ = self.parse_batch_train(batch)
        self.model_backward_and_update(self.model(image).mean() * float("nan"))
        return {}


class Wider(ToyTrainer):
    """Its checkpoints fit no other."""

    def build_model(self) -> None:
        self.num_classes += 1
        super().build_model()


@pytest.fixture(scope="module", autouse=True)
def toys() -> Iterator[None]:
    with registered(Broken, Diverges, Wider):
        yield


@pytest.mark.parametrize("spelling", ["as it is", "slash", "dots", "link"])
@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_a_run_is_not_tested_into_its_own_folder(
    spelling: str, overwrite: tuple[str, ...], folder: Path, root: Path, capsys: Capture
) -> None:
    finished = folder / "finished"
    (folder / "link").symlink_to(finished)
    named = {
        "as it is": str(finished),
        "slash": f"{finished}/",
        "dots": os.path.relpath(finished),
        "link": str(folder / "link"),
    }[spelling]
    before = content(finished)
    flags = ("--eval-only", "--model-dir", named, *overwrite)
    said = refuse(toy_command(root, finished, flags=flags), capsys)
    assert said == (
        f"error: {finished} is the folder of the run to be evaluated, and an evaluation needs its "
        "own; choose another --output-dir"
    )
    assert content(finished) == before


FAILURES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "no such model": (("--eval-only", "--model-dir", "{folder}/none"), ()),
    "no such epoch": (("--eval-only", "--model-dir", "{folder}/killed", "--load-epoch", "9"), ()),
    "another model": (("--eval-only", "--model-dir", "{folder}/killed"), ("TRAINER.NAME", "Wider")),
    "nothing to resume": (("--resume", "{folder}"), ()),
    "no such folder": (("--resume", "{folder}/none"), ()),
    "another run to resume": (("--resume", "{folder}/killed"), ("SEED", "2")),
    "no dataset": ((), ("DATASET.NAME", "Nothing")),
    "no weights": ((), ("DATASET.ROOT", "{folder}/none")),
    "a broken image": ((), ("TRAINER.NAME", "Broken")),
}


@pytest.mark.parametrize("failure", [*FAILURES, "diverging", "not trained"])
def test_a_failed_command_with_overwrite_removes_nothing(
    failure: str, folder: Path, root: Path, capsys: Capture
) -> None:
    finished = folder / "finished"
    before = content(folder)
    if failure == "not trained":
        refuse(toy_command(root, finished, flags=("--overwrite", "--no-train")), capsys)
    elif failure == "diverging":
        given = toy_command(root, finished, "TRAINER.NAME", "Diverges", flags=("--overwrite",))
        assert train.main(given) == 1
    else:
        flags, opts = (
            [word.format(folder=folder) for word in words] for words in FAILURES[failure]
        )
        refuse(toy_command(root, finished, *opts, flags=("--overwrite", *flags)), capsys)
    assert content(folder) == before


@pytest.mark.parametrize("name", ["finished", "killed"])
def test_what_overwrite_leaves(name: str, folder: Path, root: Path) -> None:
    """After a kill of the new run nothing of the old one stands beside what the new one has."""
    output = folder / name
    (output / "notes.txt").write_text("mine")
    with pytest.raises(Killed), killed_after(2):
        train.main(toy_command(root, output, "SEED", "2", flags=("--overwrite",)))
    # This trainer is saved between epochs, so that it has saved nothing yet.
    assert set(content(output)) == {"config.yaml", "history.jsonl", "notes.txt"}
    assert "SEED: 2" in (output / "config.yaml").read_text()
    assert len(list((output / "tensorboard").iterdir())) == 1
    finish(toy_command(root, output, "SEED", "2"))


def test_every_writer_is_listed(tmp_path: Path) -> None:
    from nemesis.inference.export import CLASSIFIER_FILE
    from nemesis.low_norm.study import study_file
    from trainers.core.prompt_file import PROMPT_FILE

    files = [
        tmp_path / PROMPT_FILE,
        tmp_path / CLASSIFIER_FILE,
        study_file(tmp_path),
        study_file(tmp_path, 3),
    ]
    for path in files:
        path.touch()
    assert set(run_files(tmp_path)) == set(files)


def test_a_test_does_not_replace_an_unfinished_training(
    folder: Path, root: Path, capsys: Capture
) -> None:
    before = content(folder)
    flags = ("--eval-only", "--model-dir", str(folder / "finished"))
    assert refuse(toy_command(root, folder / "killed", flags=flags), capsys) == (
        f"error: {folder / 'killed'} holds the checkpoints of an unfinished training; choose "
        "another --output-dir for the test or --overwrite them"
    )
    assert content(folder) == before
