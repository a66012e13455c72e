"""`run_experiment` with a function that refuses the built trainer."""

from pathlib import Path
from typing import Any

import pytest

from dassl.engine import run_experiment
from safeio.errors import UserError
from tests.helpers.dassl_toy import make_images, toy_config

pytestmark = pytest.mark.usefixtures("toys")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data"))


def test_a_run_that_is_refused_leaves_no_folder(root: Path, tmp_path: Path) -> None:
    def refuse(trainer: Any) -> None:
        assert trainer.epoch == 0 and (tmp_path / "run" / "log.txt").is_file()
        raise UserError("not this one")

    with pytest.raises(UserError, match="not this one"):
        run_experiment(toy_config(root, tmp_path / "run"), on_trainer=refuse)
    assert not (tmp_path / "run").exists()
