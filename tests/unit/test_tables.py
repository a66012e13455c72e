"""The sweeps of the paper's tables and protocols: what they run, and what they have in common."""

from functools import lru_cache
from typing import Any

import pytest

from nemesis.sweeps.grid import make_runs
from nemesis.sweeps.runs import Run
from nemesis.sweeps.sweep_file import read_sweep
from tests.helpers.runs import ROOT

SEEDS, SHOTS, DATASETS = 5, 5, 11
TASKS, MINI_SEEDS = 7, 10
# Runs in the paper's setting, and on the bundled benchmark.
SIZES = {
    "table_1": (5 * SEEDS * (1 + 4), 5 * TASKS * MINI_SEEDS * (1 + 3)),
    "table_2": (3 * 3 * SHOTS * SEEDS, 3 * 2 * SHOTS * 3),
    "table_3": ((1 + 5 * 2) * SHOTS * SEEDS, (1 + 5 * 2) * SHOTS * SEEDS),
    "table_4": (7 * DATASETS * 2 * SEEDS, 7 * TASKS * 2 * SEEDS),
    "table_a4": (7 * DATASETS * SEEDS * 2, 7 * SEEDS * 2),
    "table_a5": (7 * DATASETS * SHOTS * SEEDS, 9 * TASKS * SHOTS * MINI_SEEDS),
    "table_a6": (3 * 6 * SHOTS * SEEDS, 3 * 4 * SHOTS * SEEDS),
    "table_a7": (3 * 6 * SHOTS * SEEDS, 3 * 4 * SHOTS * SEEDS),
    "table_a10": (6 * 3 * SEEDS, 4 * 3),
    "figure_2": (3 * DATASETS * SHOTS * SEEDS, 3 * TASKS * SHOTS * MINI_SEEDS),
    "low_norm": (DATASETS * SHOTS * SEEDS, TASKS * SHOTS * SEEDS),
    "figure_a1": (SEEDS, SEEDS),
    "figures_a2_a3": (3, 3),
}
# With class-specific prompts that start as words: none of Table A10.
WORDS = {
    "table_1": 7 * SEEDS * (1 + 3),
    "table_2": 3 * SHOTS * 3,
    "table_3": (1 + 3 * 2) * SHOTS * 3,
    "table_4": 7 * 2 * 2 * 3,
    "table_a4": 7 * 3 * 2,
    "table_a5": 7 * SHOTS * SEEDS,
    "table_a6": 3 * SHOTS * 3,
    "table_a7": 3 * SHOTS * 3,
    "figure_2": 3 * SHOTS * SEEDS,
    "low_norm": 2 * 2 * 2,
    "figure_a1": 2,
    "figures_a2_a3": 3,
}
BACKBONES = {"table_a4": "ViT-B/16", "table_a10": "timm:vit_base_patch16_224.augreg_in21k"}
PROTOCOLS = {
    "few_shot": (DATASETS * SHOTS * SEEDS, 2 * 3 * 3),
    "base_to_new": (DATASETS * SEEDS * 2, 2 * 3 * 2),
    "cross_dataset": (SEEDS * (1 + 10), 3 * (1 + 3)),
    "domain_generalization": (SEEDS * (1 + 4), 3 * (1 + 3)),
}
BUNDLED = ("all_methods", "where_norms_matter", "train_views")  # measured on bundled data alone


@lru_cache
def runs_of(name: str, profile: str = "paper") -> dict[str, Run]:
    sweep = read_sweep(ROOT / f"configs/sweeps/{name}.yaml", profile)
    return {run.digest: run for run in make_runs(sweep)}


@pytest.mark.parametrize("name", SIZES)
def test_each_resolves_for_both_profiles(name: str) -> None:
    paper, mini = runs_of(name), runs_of(name, "mini")
    assert (len(paper), len(mini)) == SIZES[name]
    assert {str(run.output) for run in paper.values()} == {"output/paper"}
    assert {str(run.output) for run in mini.values()} == {"output/mini/paper"}
    visual = name == "table_a10"  # visual prompts: no cached features
    bundled = "mini_vit" if visual else "mini"
    assert {run.config["MODEL"]["BACKBONE"]["NAME"] for run in mini.values()} == {bundled}
    assert {run.config["INPUT"]["TRAIN_VIEWS"] for run in mini.values()} == {0 if visual else 4}
    for run in paper.values():
        backbone = BACKBONES.get(name, "RN50")
        assert run.config["MODEL"]["BACKBONE"]["NAME"] == backbone
        assert run.config["INPUT"]["TRAIN_VIEWS"] == 0


def test_the_bundled_prompts_are_the_papers_or_start_as_words() -> None:
    for name, number in WORDS.items():
        words = runs_of(name, "mini_words")
        assert len(words) == number
        assert {str(run.output) for run in words.values()} == {"output/mini_words/paper"}
    for profile, length, specific, start in (
        ("mini", 16, False, ""),
        ("mini_words", 4, True, "a photo of a"),
    ):
        for run in runs_of("table_a5", profile).values():
            coop = run.config["TRAINER"]["COOP"]
            assert (coop["N_CTX"], coop["CSC"], coop["CTX_INIT"]) in (
                (length, specific, start),
                (16, specific, start),  # N_CTX does not count beside words
            )
            assert coop["CLASS_TOKEN_POSITION"] == "end"


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_has_a_folder_of_its_own(name: str) -> None:
    paper, mini = runs_of(name), runs_of(name, "mini")
    assert (len(paper), len(mini)) == PROTOCOLS[name]
    assert {str(run.output) for run in paper.values()} == {f"output/{name}"}
    assert {str(run.output) for run in mini.values()} == {f"output/mini/{name}"}


def test_every_sweep_is_counted_here_and_in_the_documentation() -> None:
    sweeps = {path.stem for path in (ROOT / "configs/sweeps").glob("*.yaml")}
    named = {name for name in sweeps if not name.startswith("demo")}
    assert named == {*SIZES, *PROTOCOLS, *BUNDLED}
    text = (ROOT / "docs/reproduce.md").read_text()
    for name, (paper, mini) in {**SIZES, **PROTOCOLS}.items():
        assert f"{name} | {paper} | {mini} |" in text


def common(one: str, other: str, profile: str) -> int:
    return len(set(runs_of(one, profile)) & set(runs_of(other, profile)))


def test_tables_share_their_runs() -> None:
    """One folder holds them all, so that what one table has made, no other makes again."""
    ends = 2 * DATASETS * 2 * SEEDS  # beta 0 and 1, at 1 and 16 shots
    assert common("table_4", "table_a5", "paper") == ends
    assert common("figure_2", "table_a5", "paper") == SIZES["figure_2"][0]
    assert common("table_a6", "table_a7", "paper") == 6 * SHOTS * SEEDS
    assert common("table_a6", "table_a5", "paper") == 6 * SHOTS * SEEDS
    # ImageNet's CoOp, PUN and PAN with omega 1 and 10, 16 shots.
    assert common("table_1", "table_a5", "paper") == 5 * SEEDS
    # CoOp, and PAN that selects one position.
    assert common("table_3", "table_a5", "paper") == 2 * SHOTS * SEEDS
    assert common("low_norm", "table_a5", "paper") == SIZES["low_norm"][0]
    assert common("figure_a1", "low_norm", "mini") == SIZES["figure_a1"][1]
    assert common("figure_2", "table_a5", "mini") == SIZES["figure_2"][1]
    assert common("table_1", "table_a5", "mini") == 5 * TASKS * MINI_SEEDS
    assert common("table_3", "table_a5", "mini") == 2 * SHOTS * SEEDS
    assert common("table_a6", "table_a5", "mini") == 4 * SHOTS * SEEDS
    assert common("table_a7", "table_a5", "mini") == 4 * SHOTS * SEEDS
    assert common("table_4", "table_a5", "mini") == 2 * TASKS * 2 * SEEDS
    assert common("low_norm", "table_a5", "mini") == SIZES["low_norm"][1]


def test_the_papers_settings_of_nemesis_and_of_training() -> None:
    for run in runs_of("table_a5").values():
        nemesis: dict[str, Any] = run.config["TRAINER"]["NEMESIS"]
        assert (nemesis["TAU"], nemesis["N"], nemesis["NORM"]) == (0.5, 1, "two")
        coop = run.config["TRAINER"]["COOP"]
        assert (coop["N_CTX"], coop["CSC"], coop["CLASS_TOKEN_POSITION"]) == (16, False, "end")
        if run.method.endswith("(omega 10 or 50)"):
            assert nemesis["OMEGA"] == (50 if run.dataset in ("oxford_pets", "food101") else 10)
        epochs = 50 if run.dataset == "imagenet" else {1: 50, 2: 100, 4: 100}.get(run.shots, 200)
        assert run.config["OPTIM"]["MAX_EPOCH"] == epochs
    omegas = {run.config["TRAINER"]["NEMESIS"]["OMEGA"] for run in runs_of("table_2").values()}
    assert 0.1 in omegas
    for run in runs_of("few_shot", "paper").values():
        assert run.digest in runs_of("table_a5")
    for run in (*runs_of("table_a4").values(), *runs_of("base_to_new").values()):
        assert run.config["TRAINER"]["COCOOP"]["CTX_INIT"] == "a photo of a"
        assert run.config["OPTIM"]["MAX_EPOCH"] == 10
