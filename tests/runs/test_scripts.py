"""The shell scripts: what they call, and some of them from start to end on bundled images."""

import os
import signal
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

import train
from nemesis.commands import continual, effect, low_norm, sweep
from tests.helpers.runs import ROOT, results, wait_for
from tests.helpers.shell import SHORT, recorded, script

KEYS = ("1", "2", "3", "4", "a4", "a5", "a6", "a7", "a10")
TABLES = [f"table_{key}" for key in KEYS] + ["figure_2"]
HALF = "DATASET.SUBSAMPLE_CLASSES base"
PROTOCOLS = ["few_shot", "base_to_new", "cross_dataset", "domain_generalization"]
VALUES = ["--replace", "0", "0.1", "--rescale", "2"]
STUDIES = {  # script: sweep, and the flags of low-norm
    "figure_1b": ("low_norm", ["--replace", "--rescale", "2"]),
    "figure_a1": ("figure_a1", VALUES),
    "tables_a2_a3": ("low_norm", VALUES),
    "figure_3": ("figures_a2_a3", ["--over-epochs", "1", "--replace", "--rescale", "0.5"]),
    "figures_a2_a3": ("figures_a2_a3", ["--over-epochs", "1", "--replace", "--rescale"]),
}


def called(name: str, folder: Path, *arguments: str, **settings: str) -> Namespace:
    """The flags of the one sweep that a script runs."""
    ((verb, *words),) = recorded(name, folder, *arguments, **settings)
    assert verb == "sweep"
    return sweep.build_parser().parse_args(words)


@pytest.mark.parametrize("name", TABLES + PROTOCOLS)
def test_a_script_runs_and_reports_the_sweep_of_its_name(name: str, tmp_path: Path) -> None:
    flags = called(name, tmp_path)
    assert (flags.sweep, flags.profile, flags.report) == (name, "paper", True)
    assert flags.output_dir == tmp_path / "my runs"
    flags = called(name, tmp_path, BENCH="mini", OUTPUT="")
    assert (flags.profile, flags.output_dir, flags.root) == ("mini", None, None)
    assert sweep.sweep_of(flags).runs


def test_variables_and_arguments_become_flags(tmp_path: Path) -> None:
    settings = {"DATASETS": 'dtd "my food.yaml"', "SHOTS": "1 4", "SEEDS": "2", "WORKERS": "3"}
    options = 'TRAINER.COOP.CTX_INIT "a photo of a"'
    settings |= {"OPTS": options, "DATA": "my data"}
    words = ("OPTIM.LR", "0.1", "--dry-run", "--limit", "2")
    flags = called("table_4", tmp_path, *words, **settings)
    assert (flags.datasets, flags.shots, flags.seeds) == (["dtd", "my food.yaml"], [1, 4], [2])
    assert (flags.workers, flags.root, flags.dry_run, flags.limit) == (3, "my data", True, 2)
    assert flags.set == [["TRAINER.COOP.CTX_INIT", "a photo of a"], ["OPTIM.LR", "0.1"]]


def test_variables_of_the_protocols(tmp_path: Path) -> None:
    flags = called("few_shot", tmp_path, TRAINER="CoOp PLOT", CONFIG="rn50", BACKBONE="vit_b16")
    assert (flags.methods, flags.config) == (["CoOp", "PLOT"], "rn50")
    assert flags.set == [["MODEL.BACKBONE.NAME", "ViT-B/16"]]
    flags = called("few_shot", tmp_path, NAME="my row", TRAINER="CoOpNemesis", BACKBONE="RN50")
    assert flags.methods == ["my row=CoOpNemesis"]
    flags = called(
        "cross_dataset", tmp_path, SOURCE="my food.yaml", TARGETS="dtd eurosat", DOMAINS=""
    )
    assert (flags.datasets, flags.targets, flags.domains) == (
        ["my food.yaml"],
        ["dtd", "eurosat"],
        [],
    )


def test_the_continual_protocol(tmp_path: Path) -> None:
    settings = {"BENCH": "mini", "DATASETS": "emoji_food dtd", "METHODS": "CoOp", "SEEDS": "2"}
    words = ("OPTIM.LR", "0.1", "--verbose")
    calls = recorded("continual", tmp_path, *words, TASKS="3", SHOTS="4", **settings)
    for name, (verb, *given) in zip(("emoji_food", "dtd"), calls, strict=True):
        flags = continual.build_parser().parse_args(given)
        assert (verb, flags.dataset, flags.methods) == ("continual", name, ["CoOp"])
        assert (flags.tasks, flags.shots, flags.seeds, flags.verbose) == (3, 4, [2], True)
        assert flags.set == [["INPUT.TRAIN_VIEWS", "4"], ["OPTIM.LR", "0.1"]]
        assert flags.output_dir == tmp_path / "my runs" / name


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_corrupts_the_prompts_of_its_sweep(name: str, tmp_path: Path) -> None:
    settings = {"BENCH": "mini", "DATA": "d", "REPLACE": "0 0.1", "RESCALE": "2"}
    ran, listed, (verb, *words) = recorded(name, tmp_path, **settings)
    assert (ran[1], [*ran, "--folders"]) == (STUDIES[name][0], listed)
    assert verb == "low-norm"
    folder = ["--output-dir", str(tmp_path / "my runs/tables" / name)]
    parse = low_norm.build_parser().parse_args
    assert parse(words) == parse(["a run", "--root", "d", *folder, *STUDIES[name][1]])
    (dry,) = recorded(name, tmp_path, "--dry-run", **settings)
    assert sweep.sweep_of(sweep.build_parser().parse_args(dry[1:])).runs


def test_the_effect_compares_the_runs_of_table_a5(tmp_path: Path) -> None:
    ran, listed, (verb, *words) = recorded("effect", tmp_path, BENCH="mini")
    assert (ran[1], [*ran, "--folders"]) == ("table_a5", listed)
    flags = effect.build_parser().parse_args(words)
    assert (verb, flags.selected) == ("effect", "CoOp+PAN (omega 1)")
    assert flags.output_dir == tmp_path / "my runs/tables/effect"
    (dry,) = recorded("effect", tmp_path, "--dry-run", BENCH="mini")
    assert dry[-1] == "--dry-run"


def test_where_norms_matter_rescales_layer_by_layer(tmp_path: Path) -> None:
    ran, _, (verb, *words) = recorded("where_norms_matter", tmp_path)
    flags = low_norm.build_parser().parse_args(words)
    assert (ran[1], verb, flags.rescale) == ("where_norms_matter", "low-norm", [0.1, 10])
    assert (flags.positions, flags.replace) == ([0, 1], [])


def test_all_methods_are_swept_reported_and_studied(tmp_path: Path) -> None:
    calls = recorded("all_methods", tmp_path)
    verbs = [call[0] for call in calls]
    assert verbs == [*["sweep", "report"] * 3, "sweep", "low-norm"]
    profiles = [call[call.index("--profile") + 1] for call in calls[:6]]
    assert profiles == [name for name in ("paper", "styles", "new") for _ in range(2)]
    flags = low_norm.build_parser().parse_args(calls[-1][1:])
    assert flags.prompts == ["encoders"]
    (*dry,) = recorded("all_methods", tmp_path, "--dry-run")
    assert [call[0] for call in dry] == ["sweep"] * 3


def test_betas_select_pun_and_pan_and_costs_are_measured_by_bench(tmp_path: Path) -> None:
    ran = recorded("figures_a2_a3", tmp_path, BETAS="0.3 1")[0]
    assert sweep.build_parser().parse_args(ran[1:]).grid == [["TRAINER.NEMESIS.BETA", "0.3", "1"]]
    (words,) = recorded("table_a9", tmp_path, "--device", "cuda", BENCH="mini")
    assert words[:3] == ["bench", "--table", "a9"]
    assert words[-4:] == ["--output-dir", f"{tmp_path}/my runs/tables/table_a9", "--device", "cuda"]


@pytest.mark.slow
def test_run_all_continues_after_a_failure_and_names_it(tmp_path: Path) -> None:
    """Table 1 has no such run; a dry run measures no costs."""
    words = ("--dry-run", "--only", "*/shots_1/")
    tables = "table_1 table_a8 table_4 figure_1b"
    done = script("run_all", tmp_path / "runs", *words, BENCH="mini", TABLES=tables)
    assert done.returncode == 1
    assert "245 runs: 0 done" in done.stdout and "35 runs: 0 done" in done.stdout
    assert done.stderr.endswith("failed: table_1\n")
    assert not (tmp_path / "runs").exists()
    commands = recorded("run_all", tmp_path)
    assert [words[1] for words in commands if "--report" in words] == TABLES
    assert [words[2] for words in commands if words[0] == "bench"] == ["a8", "a9"]
    assert [words[0] for words in commands][-2:] == ["examples.prefix_tuning_mrpc", "reproduce"]
    assert sum(words[0] == "low-norm" for words in commands) == len(STUDIES)


MISTAKES: list[tuple[str, list[str], dict[str, str], str]] = [
    ("table_4", [], {"BENCH": "tiny"}, 'the profile is "tiny"; accepted: paper, mini, mini_words'),
    (
        "table_a8",
        [],
        {"PROFILE": "tiny"},
        'the profile is "tiny"; accepted: paper, mini, mini_words',
    ),
    ("run_all", [], {"TABLES": "table_5"}, 'TABLES has "table_5"; accepted: table_1 '),
    ("few_shot", [], {"DATASETS": '"dtd'}, 'DATASETS has an unmatched quote: "dtd'),
    ("figure_a1", ["OPTIM.LR"], {}, "OPTIM.LR"),
    ("coop/main", ["dtd", "rn50"], {}, "takes 6: DATASET CFG CTP NCTX SHOTS CSC"),
    ("coop/main", ["dtdd", "rn50", "end", "16", "1", "False"], {}, "dtdd"),
    ("cocoop/base2new_train", [], {}, "takes 2: DATASET SEED"),
    ("cocoop/base2new_test", ["dtd", "1"], {}, "contains no finished run to test"),
    ("nemesis", ["PUM", "coop/main"], {}, 'the first argument is "PUM"; accepted: PUN, PAN'),
    ("nemesis", ["PUN"], {}, 'the second argument is "nothing"; accepted: coop/main'),
]


@pytest.mark.parametrize(("name", "words", "settings", "message"), MISTAKES)
def test_a_mistake_is_one_sentence(
    name: str, words: list[str], settings: dict[str, str], message: str, tmp_path: Path
) -> None:
    done = script(name, tmp_path / "runs", *words, **settings)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


OTHERS = {
    "coop/zeroshot": ("ZeroshotCLIP", ["dtd", "rn50"]),
    "plot/main": ("PLOT", ["dtd", "rn50_ep50", "middle", "8", "1", "True"]),
    "cocoop/base2new_train": ("CoCoOp", ["dtd", "2"]),
    "cocoop/xd_train": ("CoCoOp", ["imagenet", "2"]),
}


def trained(name: str, folder: Path, *words: str, **settings: str) -> list[Namespace]:
    """The flags of the calls of train.py, with `opts` as a dictionary."""
    commands = recorded(name, folder, *words, **settings)
    found = [train.build_parser().parse_args(words[1:]) for words in commands]
    for flags in found:
        flags.opts = dict(zip(flags.opts[::2], flags.opts[1::2], strict=True))
    return found


@pytest.mark.parametrize("name", OTHERS)
def test_the_trainer_and_files_of_single_runs(name: str, tmp_path: Path) -> None:
    trainer, words = OTHERS[name]
    own = {"SEEDS": "1"}
    (run,) = trained(name, tmp_path, *words, "--backbone", "RN101", "OPTIM.LR", "0.1", **own)
    assert (run.trainer, run.backbone, run.opts["OPTIM.LR"]) == (trainer, "RN101", "0.1")
    assert run.dataset_config_file == words[0]
    assert run.config_file == (words[1] if len(words[1]) > 1 else "vit_b16_c4_ep10_batch1_ctxv1")
    assert trained(name, tmp_path, *words, "--backbone", "RN101", "OPTIM.LR", "0.1", **own) == []
    assert len(trained(name, tmp_path, *words, **own)) == 1  # other arguments, another run


def test_base_to_new_and_cross_dataset_with_nemesis(tmp_path: Path) -> None:
    (base,) = trained("nemesis", tmp_path, "PAN", "cocoop/base2new_train", "dtd", "1")
    (new,) = trained("nemesis", tmp_path, "PAN", "cocoop/base2new_test", "dtd", "1")
    assert (base.trainer, new.model_dir) == ("CoCoOpNemesis", base.output_dir)
    assert base.opts["TRAINER.NEMESIS.BETA"] == "0.0"
    assert [run.opts["DATASET.SUBSAMPLE_CLASSES"] for run in (base, new)] == ["base", "new"]
    (source,) = trained("nemesis", tmp_path, "PUN", "cocoop/xd_train", "imagenet", "1")
    (target,) = trained("nemesis", tmp_path, "PUN", "cocoop/xd_test", "dtd", "1")
    assert (target.eval_only, target.model_dir) == (True, source.output_dir)
    seeds = trained("coop/main", tmp_path, *OTHERS["plot/main"][1])
    assert [run.seed for run in seeds] == [1, 2, 3]
    assert (
        seeds[0].opts.items()
        >= {
            "TRAINER.COOP.N_CTX": "8",
            "TRAINER.COOP.CSC": "True",
            "TRAINER.COOP.CLASS_TOKEN_POSITION": "middle",
            "DATASET.NUM_SHOTS": "1",
        }.items()
    )


@pytest.mark.slow
def test_coops_main_makes_a_run_that_eval_tests_elsewhere(tmp_path: Path, data_root: Path) -> None:
    output = tmp_path / "my runs"
    settings = {"DATA": str(data_root), "OPTS": f"{SHORT} {HALF}", "SEEDS": "1"}
    words = ["emoji_activities", "mini_generic", "end", "4", "1", "False"]
    done = script("coop/main", output, *words, **settings)
    assert done.returncode == 0, done.stderr
    setting = "CoOp/mini_generic_1shots/nctx4_cscFalse_ctpend"
    config = results(output / "emoji_activities" / setting / "seed1")["config"]
    assert (config["TRAINER"]["COOP"]["N_CTX"], config["DATASET"]["NUM_SHOTS"]) == (4, 1)
    assert "* accuracy" in done.stdout
    settings |= {"SOURCE": "emoji_activities", "NCTX": "4", "SHOTS": "1"}
    tested = script("coop/eval", output, "emoji_food", "mini_generic", **settings)
    assert tested.returncode == 0, tested.stderr
    food = output / "evaluation" / setting / "emoji_food" / "seed1"
    assert results(food)["source_run"]["dataset"] == "EmojiActivities"


@pytest.mark.slow
def test_a_protocol_reports_what_is_done_and_resumes(tmp_path: Path, data_root: Path) -> None:
    """OUTPUT and DATA are relative to the caller's folder; a run fails; Ctrl-C stops the rest."""
    settings = {"BENCH": "mini", "DATA": "my data", "OUTPUT": "runs", "SEEDS": "1", "SHOTS": "1"}
    settings |= {"DATASETS": "emoji_activities emoji_food", "OPTS": SHORT}
    output = tmp_path / "runs"
    output.mkdir()
    (output / "emoji_food").write_text("in the way of a run")
    (tmp_path / "my data").symlink_to(data_root)
    done = script("base_to_new", output, **settings)
    assert done.returncode == 1
    assert "2 runs done, 0 were done already, 2 failed, 0 left" in done.stdout
    assert "failed: emoji_food/CoOp/shots_1/seed1-" in done.stderr
    text = (output / "tables/base_to_new/base_to_new.csv").read_text()
    for name in ("seed1-*", "test_new/seed1-*"):
        (run,) = output.glob(f"emoji_activities/CoOp/shots_1/{name}")
        assert str(results(run)["accuracy"])[:6] in text

    (output / "emoji_food").unlink()
    settings |= {"DATASETS": "emoji_food", "OPTS": f"{SHORT} OPTIM.MAX_EPOCH 20"}
    process = subprocess.Popen(
        ["bash", str(ROOT / "scripts/base_to_new.sh"), "--workers", "1"],
        env={**os.environ, "PYTHON": sys.executable, **settings},
        cwd=tmp_path,
        text=True,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    wait_for(output / "emoji_food/CoOp/shots_1", process.poll)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "run the same command to resume" in err and "Traceback" not in err
    done = script("base_to_new", output, **settings)
    assert done.returncode == 0, done.stderr
    assert "0 failed, 0 left" in done.stdout


@pytest.mark.slow
def test_studies_make_figures_and_tables(tmp_path: Path, data_root: Path) -> None:
    settings = {
        "BENCH": "mini",
        "DATA": str(data_root),
        "SHOTS": "1",
        "SEEDS": "1",
        "RESCALE": "0.5",
    }
    settings |= {"DATASETS": "emoji_activities", "REPLACE": "0"}
    settings["OPTS"] = f"{SHORT} OPTIM.MAX_EPOCH 2 TRAINER.COOP.N_CTX 2 {HALF}"
    settings["WORKERS"] = "0"  # in the process of the sweep
    made = {
        "figure_1b": ["figure_1b.png", "low_norm_rescale.md"],
        "figure_a1": ["figure_a1_*.png"],
        "tables_a2_a3": ["low_norm_replace.tex", "low_norm_rescale.csv"],
        "figure_3": ["figure_3.png"],
        "figures_a2_a3": ["*.png"],
    }
    for name, patterns in made.items():
        done = script(name, tmp_path / "runs", **settings)
        assert done.returncode == 0, done.stderr
        for pattern in patterns:
            assert list((tmp_path / "runs/tables" / name).glob(pattern)), (name, pattern)
    done = script("figure_1b", tmp_path / "runs", **settings | {"RESCALE": "-1"})
    assert done.returncode == 1
    assert "--rescale" in done.stderr
