"""--overwrite removes the old run only when the new one works; a test never replaces a run."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import train
from dassl.engine.run_files import run_files
from nemesis.inference.export import CLASSIFIER_FILE
from nemesis.low_norm.study import study_file
from safeio.errors import UserError
from tests.helpers.dassl_toy import ToyTrainer, registered, toy_command
from tests.helpers.killing import Killed, killed_after
from tests.helpers.run_folders import content
from tests.helpers.runs import Capture, finish, refuse
from trainers.core.prompt_file import PROMPT_FILE


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
    """Its checkpoints fit no other trainer."""

    def build_model(self) -> None:
        self.num_classes += 1
        super().build_model()


@pytest.fixture(scope="module", autouse=True)
def toys() -> Iterator[None]:
    with registered(Broken, Diverges, Wider):
        yield


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_a_run_is_not_tested_into_its_own_folder(
    overwrite: tuple[str, ...], folder: Path, root: Path, capsys: Capture
) -> None:
    finished = folder / "finished"
    (folder / "link").symlink_to(finished)
    before = content(finished)
    spellings = (str(finished), f"{finished}/", os.path.relpath(finished), str(folder / "link"))
    for spelling in spellings:
        flags = ("--eval-only", "--model-dir", spelling, *overwrite)
        assert refuse(toy_command(root, finished, flags=flags), capsys) == (
            f"error: {finished} is the folder of the run to be evaluated, and an evaluation needs "
            "its own; choose another --output-dir"
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
    "not trained": (("--no-train",), ()),
    "diverging": ((), ("TRAINER.NAME", "Diverges")),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_command_with_overwrite_removes_nothing(
    failure: str, folder: Path, root: Path
) -> None:
    before = content(folder)
    flags, opts = ([word.format(folder=folder) for word in words] for words in FAILURES[failure])
    given = toy_command(root, folder / "finished", *opts, flags=("--overwrite", *flags))
    assert train.main(given) == (1 if failure == "diverging" else 2)
    assert content(folder) == before


@pytest.mark.parametrize("name", ["finished", "killed"])
def test_overwrite_removes_every_file_of_the_old_run(name: str, folder: Path, root: Path) -> None:
    """The new run is killed; files of the user stay."""
    output = folder / name
    (output / "notes.txt").write_text("mine")
    with pytest.raises(Killed), killed_after(2):
        train.main(toy_command(root, output, "SEED", "2", flags=("--overwrite",)))
    # This trainer is saved between epochs, so it has saved nothing yet.
    assert set(content(output)) == {"config.yaml", "history.jsonl", "notes.txt"}
    assert "SEED: 2" in (output / "config.yaml").read_text()
    assert len(list((output / "tensorboard").iterdir())) == 1
    finish(toy_command(root, output, "SEED", "2"))


def test_overwrite_knows_the_files_of_every_command(tmp_path: Path) -> None:
    files = {tmp_path / PROMPT_FILE, tmp_path / CLASSIFIER_FILE}
    files |= {study_file(tmp_path), study_file(tmp_path, 3)}
    for path in files:
        path.touch()
    assert set(run_files(tmp_path)) == files


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
