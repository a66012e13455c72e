"""Every script of the Low-Norm study from start to end on bundled pictures."""

from pathlib import Path

import pytest

from tests.helpers.shell import SHORT, script

# Two epochs, so that a course has two points; few values, so that a study has few prompts.
SETTINGS = {
    "BENCH": "mini",
    "DATASETS": "emoji_activities",
    "OPTS": f"{SHORT} OPTIM.MAX_EPOCH 2 TRAINER.COOP.N_CTX 4",
    "REPLACE": "0",
    "RESCALE": "0.1 0.5",
}
MADE = {
    "figure_1b": ["figure_1b/figure_1b.png", "figure_1b/low_norm_rescale.md"],
    "figure_a1": ["figure_a1/figure_a1_*.png"],
    "tables_a2_a3": ["tables_a2_a3/low_norm_replace.tex", "tables_a2_a3/low_norm_rescale.csv"],
    "figure_3": ["course/figure_3/emoji_activities/shots_1/seed1/*.png"],
    "figures_a2_a3": ["course/figures_a2_a3/*.png"],
}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all scripts: what one has trained, the others need not train again."""
    return tmp_path_factory.mktemp("low norm") / "runs"


@pytest.mark.parametrize("name", MADE)
def test_it_makes_its_figures_and_tables(name: str, output: Path, data_root: Path) -> None:
    done = script(name, output, DATA=str(data_root), **SETTINGS)
    assert done.returncode == 0, done.stderr
    for pattern in MADE[name]:
        assert list(output.glob(pattern)), pattern


def test_a_study_that_fails_is_named(tmp_path: Path, data_root: Path) -> None:
    done = script(
        "figure_1b", tmp_path / "runs", DATA=str(data_root), **SETTINGS | {"RESCALE": "-1"}
    )
    assert done.returncode == 1
    assert "failed: nemesis low-norm" in done.stderr
    assert "--rescale" in done.stderr
