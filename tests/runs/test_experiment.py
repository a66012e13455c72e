"""`run_experiment`, the path that train.py, sweeps and run groups take, for users of Python."""

from pathlib import Path
from typing import Any

import pytest

from dassl.engine import finished_run, run_experiment
from safeio.errors import UserError
from tests.helpers.dassl_toy import make_images, toy_config

pytestmark = pytest.mark.usefixtures("toys")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data"))


def test_from_a_configuration_to_results(root: Path, tmp_path: Path) -> None:
    trainers: list[Any] = []
    cfg = toy_config(root, tmp_path / "run")
    run_experiment(cfg, on_trainer=trainers.append)
    (trainer,) = trainers
    results = finished_run(tmp_path / "run") or {}
    assert results["accuracy"] == trainer.last_results["accuracy"]
    assert "Results are in" in (tmp_path / "run" / "log.txt").read_text()
    with pytest.raises(UserError, match="already holds a finished run"):
        run_experiment(cfg, on_trainer=trainers.append)
    assert trainers == [trainer]
    cfg = toy_config(root, tmp_path / "test")
    run_experiment(cfg, model_dir=str(tmp_path / "run"))
    assert (finished_run(tmp_path / "test") or {})["accuracy"] == results["accuracy"]


def test_a_run_that_is_refused_leaves_no_folder(root: Path, tmp_path: Path) -> None:
    def refuse(trainer: Any) -> None:
        assert trainer.epoch == 0 and (tmp_path / "run" / "log.txt").is_file()
        raise UserError("not this one")

    with pytest.raises(UserError, match="not this one"):
        run_experiment(toy_config(root, tmp_path / "run"), on_trainer=refuse)
    assert not (tmp_path / "run").exists()
