"""What a sweep file means, and what is refused before anything runs."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from nemesis.commands import sweep
from nemesis.sweeps.command import resolve_sweep
from nemesis.sweeps.grid import make_runs
from nemesis.sweeps.runs import Run
from nemesis.sweeps.sweep_file import read_sweep
from safeio.errors import UserError

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {
    "output": "runs",
    "datasets": ["emoji_activities"],
    "shots": [1],
    "seeds": [1],
    "config": "mini",
    "methods": {"CoOp": None},
}


def runs_of(folder: Path, **changes: Any) -> list[Run]:
    path = folder / "sweep.yaml"
    content = {key: value for key, value in {**SMALL, **changes}.items() if value is not ...}
    path.write_text(yaml.safe_dump(content))
    return make_runs(read_sweep(path))


def test_a_grid_is_every_method_on_every_dataset_with_all_shots_and_seeds(tmp_path: Path) -> None:
    methods = {
        "ZeroshotCLIP": {"shots": [0], "seeds": [1]},
        "CoOp": None,
        "CoOp+PUN": {
            "trainer": "CoOpNemesis",
            "grid": {"TRAINER.NEMESIS.OMEGA": [1, 10], "TRAINER.NEMESIS.TAU": [0.5]},
        },
    }
    datasets = ["emoji_activities", "emoji_food"]
    runs = runs_of(tmp_path, datasets=datasets, shots=[1, 4], seeds=[1, 2, 3], methods=methods)
    assert len(runs) == 2 + 2 * 2 * 3 + 2 * 2 * 3 * 2
    assert len({run.name for run in runs}) == len({run.digest for run in runs}) == len(runs)
    assert [run.shots for run in runs] == sorted(
        (run.shots for run in runs), key=lambda shots: (shots > 0, -shots)
    )
    last = runs[-1]
    assert last.name.startswith("emoji_food/CoOp+PUN/shots_1/seed3-OMEGA_10-TAU_0.5-")
    assert last.name.endswith(f"-{last.digest[:10]}")
    assert last.config["TRAINER"]["NEMESIS"]["OMEGA"] == 10
    assert (last.config["SEED"], last.config["DATASET"]["NUM_SHOTS"]) == (3, 1)


def test_later_settings_win(tmp_path: Path) -> None:
    def lr(**changes: Any) -> float:
        (run,) = runs_of(tmp_path, **changes)
        return run.config["OPTIM"]["LR"]

    changes: dict[str, Any] = {"set": {"OPTIM.LR": 0.5}}
    assert lr(**changes) == 0.5
    changes["cases"] = [
        {"shots": [1], "datasets": ["emoji_activities"], "set": {"OPTIM.LR": 0.6}},
        {"shots": [2], "set": {"OPTIM.LR": 0.9}},
    ]
    assert lr(**changes) == 0.6
    changes["methods"] = {"CoOp": {"set": {"OPTIM.LR": 0.7}}}
    assert lr(**changes) == 0.7
    changes["grid"] = {"OPTIM.LR": [0.8]}
    assert lr(**changes) == 0.8


def test_a_bench_replaces_keys_and_a_base_is_extended(tmp_path: Path) -> None:
    bench = {"mini": {"seeds": [7], "config": "mini_generic"}}
    (paper,) = runs_of(tmp_path, bench=bench)
    (mini,) = make_runs(read_sweep(tmp_path / "sweep.yaml", "mini"))
    assert (paper.config["SEED"], mini.config["SEED"]) == (1, 7)


def test_a_bench_extends_its_bases_key_by_key(tmp_path: Path) -> None:
    base = {**SMALL, "bench": {"mini": {"seeds": [7], "config": "mini_generic"}}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    path = tmp_path / "child.yaml"
    path.write_text("_BASE_: base.yaml\nbench: {mini: {seeds: [8]}}\n")
    (mini,) = make_runs(read_sweep(path, "mini"))
    assert mini.config["SEED"] == 8
    assert mini.config["TRAINER"]["COOP"]["CSC"] is False  # mini_generic's


def test_evaluations_follow_the_run_whose_model_they_test(tmp_path: Path) -> None:
    evaluate = [
        {"name": "new", "set": {"DATASET.SUBSAMPLE_CLASSES": "new"}},
        {"datasets": ["emoji_food", "emoji_animals"]},
    ]
    base, new, food, animals = runs_of(
        tmp_path, evaluate=evaluate, set={"DATASET.SUBSAMPLE_CLASSES": "base"}
    )
    assert base.source is None
    assert [test.source for test in (new, food, animals)] == 3 * [base]
    assert new.config["DATASET"]["SUBSAMPLE_CLASSES"] == "new"
    assert "/shots_1/test_new/seed1-" in new.name
    assert "emoji_activities/CoOp/shots_1/test_emoji_food/seed1-" in food.name
    assert food.config["DATASET"]["NAME"] == "EmojiFood"


def test_the_identity_is_the_whole_configuration_but_where_it_is_written(tmp_path: Path) -> None:
    (run,) = runs_of(tmp_path)
    (elsewhere,) = runs_of(tmp_path, output="other")
    assert elsewhere.digest == run.digest
    for key, value in (
        ("DATASET.ROOT", "data2"),
        ("VERBOSE", False),
        ("INPUT.CUTOUT_N", 2),
        ("TRAINER.PLOT.N", 3),
        ("MODEL.CLIP.TEXT_HEADS", 2),
    ):
        (other,) = runs_of(tmp_path, set={key: value})
        assert other.digest != run.digest, key
    (test,) = [r for r in runs_of(tmp_path, evaluate=[{"name": "again"}]) if r.source]
    assert test.config == run.config
    assert test.digest != run.digest


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"sedes": [1]}, 'the key "sedes" is unknown; did you mean "seeds"?'),
    "unknown key of a method": (
        {"methods": {"CoOp": {"trainr": "CoOp"}}},
        'methods.CoOp: the key "trainr" is unknown; did you mean "trainer"?',
    ),
    "unknown key of an evaluation": (
        {"evaluate": [{"nam": "x"}]},
        'evaluate[0]: the key "nam" is unknown; did you mean "name"?',
    ),
    "missing key": ({"seeds": ...}, 'the key "seeds" is missing'),
    "no config": ({"config": ...}, "methods.CoOp: the key config is missing"),
    "no methods": ({"methods": {}}, "methods is empty"),
    "empty list": ({"shots": []}, "shots is empty; write a list"),
    "empty grid": ({"grid": {"OPTIM.LR": []}}, "OPTIM.LR takes a list of at least one value"),
    "bad seed": ({"seeds": [-1]}, "seeds takes whole numbers from 0 on, not -1"),
    "unknown key of a bench": (
        {"bench": {"mini": {"sedes": [1]}}},
        'bench.mini: the key "sedes" is unknown; did you mean "seeds"?',
    ),
    "no mapping": ({"methods": ["CoOp"]}, "methods takes a mapping"),
    "unknown dataset": ({"datasets": ["emoji_fod"]}, 'did you mean "emoji_food"?'),
    "unknown config": ({"config": "mimi"}, 'did you mean "mini"?'),
    "unknown trainer": ({"methods": {"CoOpp": None}}, 'trainer: "CoOpp" is not available; did you'),
    "unknown setting": ({"set": {"OPTIM.LRR": 1}}, 'key "OPTIM.LRR" is unknown; did you mean'),
    "unknown axis": ({"grid": {"OPTIM.RL": [1]}}, 'the key "OPTIM.RL" is unknown'),
    "bad value": ({"set": {"OPTIM.LR": "fast"}}, '"OPTIM.LR" takes a value of type float'),
    "impossible value": ({"grid": {"OPTIM.LR": [0.1, -1]}}, "OPTIM.LR is -1.0, but must be"),
    "refused by the trainer": (
        {"set": {"TRAINER.COOP.CTX_INIT": "", "TRAINER.COOP.N_CTX": 0}},
        "TRAINER.COOP.N_CTX is 0, but must be at least 1",
    ),
    "bad value of an evaluation": (
        {"evaluate": [{"name": "x", "set": {"DATASET.SUBSAMPLE_CLASSES": "neu"}}]},
        'did you mean "new"?',
    ),
    "reserved": ({"set": {"SEED": 3}}, 'SEED cannot be set here; use the sweep\'s key "seeds"'),
    "reserved axis": ({"grid": {"OUTPUT_DIR": ["a"]}}, "OUTPUT_DIR cannot be set here; use the"),
    "twice": ({"methods": {"CoOp": None, "Again": {"trainer": "CoOp"}}}, "are the same run"),
    "unknown case": ({"cases": [{"methods": ["Coop"], "set": {}}]}, 'did you mean "CoOp"?'),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_one_sentence_before_anything_runs(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, message = BAD[case]
    with pytest.raises(UserError) as caught:
        runs_of(tmp_path, **changes)
    assert message in str(caught.value)
    output = tmp_path / "runs"
    assert sweep.main([str(tmp_path / "sweep.yaml"), "--output-dir", str(output)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1
    assert not output.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--bench", "min"], 'has no profile "min" under bench; it has paper'),
        (["--only", "emoji_fodo"], "No run's name begins with emoji_fodo"),
        (["--set", "OPTIM.LRR", "1"], 'the key "OPTIM.LRR" is unknown'),
        (["--set", "SEED", "1"], 'SEED cannot be set here; use the sweep\'s key "seeds"'),
        (["--workers", "-2"], "--workers is -2"),
        (["--limit", "-1"], "--limit is -1"),
        (["--limit", "x"], "invalid int value"),
    ],
)
def test_so_is_a_mistake_in_the_command(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs_of(tmp_path)
    assert sweep.main([str(tmp_path / "sweep.yaml"), *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep.main([str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((ROOT / "configs/sweeps").glob("*.yaml")), ids=str)
def test_the_bundled_sweeps_can_be_run(path: Path, tmp_path: Path) -> None:
    assert resolve_sweep(path, output=tmp_path / "runs").left
