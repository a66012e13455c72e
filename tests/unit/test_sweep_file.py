"""What a sweep file means, and what is refused before anything runs."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from nemesis.commands import sweep
from nemesis.sweeps.command import resolve_sweep
from nemesis.sweeps.executors import threads_each
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


def test_a_methods_cases_override_its_own_settings(tmp_path: Path) -> None:
    own = {
        "set": {"OPTIM.LR": 0.7},
        "cases": [{"datasets": ["emoji_food"], "set": {"OPTIM.LR": 1}}],
    }
    both = ["emoji_activities", "emoji_food"]
    runs = runs_of(tmp_path, datasets=both, methods={"CoOp": own})
    assert [run.config["OPTIM"]["LR"] for run in runs] == [0.7, 1]


def test_a_profile_replaces_keys_and_extends_its_bases_key_by_key(tmp_path: Path) -> None:
    mini = {"seeds": [7], "config": "mini_generic"}
    (paper,) = runs_of(tmp_path, profiles={"mini": mini})
    path = tmp_path / "child.yaml"
    path.write_text("_BASE_: sweep.yaml\nprofiles: {mini: {seeds: [8]}}\n")
    (run,) = make_runs(read_sweep(path, "mini"))
    assert (paper.config["SEED"], run.config["SEED"]) == (1, 8)
    assert run.config["TRAINER"]["COOP"]["CSC"] is False  # mini_generic's


def test_the_reports_keys_have_defaults(tmp_path: Path) -> None:
    runs_of(tmp_path)
    file = read_sweep(tmp_path / "sweep.yaml")
    assert (file.title, file.baseline, file.paper, file.over_shots) == ("sweep", "", (), False)
    runs_of(tmp_path, title="T", baseline="CoOp", paper="a5", over_shots=True)
    file = read_sweep(tmp_path / "sweep.yaml")
    assert (file.title, file.baseline, file.paper, file.over_shots) == ("T", "CoOp", ("a5",), True)


def selected(folder: Path, *flags: str) -> list[str]:
    """The names, without identities, of the runs that flags select."""
    arguments = sweep.build_parser().parse_args([str(folder / "sweep.yaml"), *flags])
    return [run.name.rpartition("-")[0] for run in sweep.sweep_of(arguments).runs]


def test_flags_replace_the_files_lists(tmp_path: Path) -> None:
    zero = {"shots": [0], "seeds": [1]}
    pun = {"trainer": "CoOpNemesis", "grid": {"TRAINER.NEMESIS.OMEGA": [1, 10]}}
    methods = {"ZeroshotCLIP": zero, "CoOp": None, "PUN": pun}
    cases = [{"shots": [1], "set": {"OPTIM.MAX_EPOCH": 3}}]
    evaluate = [{"name": "again"}]
    runs_of(tmp_path, methods=methods, cases=cases, evaluate=evaluate)
    where = ("--datasets", "emoji_food", "--domains")
    food = "emoji_food/CoOp/shots_2/seed3"
    # A method's own lists stay, as zero-shot CLIP's.
    only = (*where, "--shots", "2", "--seeds", "3", "--methods")
    assert selected(tmp_path, *only, "ZeroshotCLIP", "CoOp") == [
        "emoji_food/ZeroshotCLIP/shots_0/seed1",
        food,
    ]
    assert selected(tmp_path, *only, "mine=CoOp") == [food.replace("CoOp", "mine")]
    assert selected(tmp_path, *only, "PLOT") == [food.replace("CoOp", "PLOT")]
    assert selected(tmp_path, *only, "ZeroshotCLIP2") == ["emoji_food/ZeroshotCLIP2/shots_0/seed1"]
    axis = ("--grid", "TRAINER.NEMESIS.OMEGA", "2")
    assert selected(tmp_path, *only, "PUN", *axis) == ["emoji_food/PUN/shots_2/seed3-OMEGA_2"]
    tests = ("--methods", "CoOp", "--targets", "emoji_food", "--domains", "fxemoji")
    assert [name.split("/")[-2] for name in selected(tmp_path, *tests)] == [
        *("shots_1", "test_emoji_food", "test_fxemoji")
    ]
    arguments = sweep.build_parser().parse_args(
        [str(tmp_path / "sweep.yaml"), "--config", "mini_generic", "--methods", "CoOp"]
    )
    config = sweep.sweep_of(arguments).runs[0].config  # not the file's cases
    assert (config["TRAINER"]["COOP"]["CSC"], config["OPTIM"]["MAX_EPOCH"]) == (False, 20)


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
    "unknown key of a profile": (
        {"profiles": {"mini": {"sedes": [1]}}},
        'profiles.mini: the key "sedes" is unknown; did you mean "seeds"?',
    ),
    "no title": ({"title": [1]}, "title takes a text, not"),
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
    "unknown key of a case": ({"cases": [{"shot": [1]}]}, 'cases[0]: the key "shot" is unknown'),
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
        (["--profile", "min"], 'has no profile "min"; it has paper'),
        (["--methods", "PUM"], '"PUM" is not available; did you mean "PUN"? Available: CoOp, PUN'),
        (["--grid", "OPTIM.LR", "1"], "--grid OPTIM.LR: no method of this sweep has a grid of"),
        (["--grid", "OPTIM.LR"], "--grid OPTIM.LR has no value; write --grid KEY VALUE ..."),
        (["--datasets", "emoji_fod"], 'did you mean "emoji_food"?'),
        (["--shots", "-1"], "shots takes whole numbers from 0 on, not -1"),
        (["--only", "emoji_fodo"], "No run's name begins with emoji_fodo"),
        (["--set", "OPTIM.LRR", "1"], 'the key "OPTIM.LRR" is unknown'),
        (["--set", "SEED", "1"], 'SEED cannot be set here; use the sweep\'s key "seeds"'),
        (["--workers", "-2"], "--workers is -2"),
        (["--limit", "-1"], "--limit is -1"),
        (["--batch", "0"], "--batch is 0, but must be at least 1"),
        (["--limit", "x"], "invalid int value"),
    ],
)
def test_so_is_a_mistake_in_the_command(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs_of(tmp_path, methods={"CoOp": None, "PUN": {"trainer": "CoOpNemesis"}})
    assert sweep.main([str(tmp_path / "sweep.yaml"), *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_sweep_is_named_by_its_file_or_its_stem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert resolve_sweep("demo", output=tmp_path).file.path == ROOT / "configs/sweeps/demo.yaml"
    for name, message in (("none.yaml", "none.yaml does not exist"), ("dem", 'mean "demo"?')):
        assert sweep.main([name]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("limit", "workers", "threads"),
    [("", 2, 4), ("1", 2, 1), ("16", 2, 4), ("", 0, 8), ("2", 0, 2), ("", 16, 1), ("auto", 1, 8)],
)
def test_threads_of_a_worker(
    limit: str, workers: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    assert threads_each(8, workers) == threads
