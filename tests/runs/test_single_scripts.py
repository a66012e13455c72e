"""The scripts for single runs, as CoOp's, CoCoOp's and PLOT's users know them."""

import shlex
from argparse import Namespace
from pathlib import Path

import pytest

import train
from tests.helpers.runs import results
from tests.helpers.shell import SHORT, script
from tests.runs.test_protocols import RECORDER, options

OTHERS = {
    "coop/zeroshot": ("ZeroshotCLIP", ["dtd", "rn50"]),
    "plot/main": ("PLOT", ["dtd", "rn50_ep50", "middle", "8", "1", "True"]),
    "cocoop/base2new_train": ("CoCoOp", ["dtd", "2"]),
    "cocoop/xd_train": ("CoCoOp", ["imagenet", "2"]),
}


def test_coops_main_makes_a_run_that_eval_tests_elsewhere(tmp_path: Path, data_root: Path) -> None:
    output = tmp_path / "my runs"
    settings = {"DATA": str(data_root), "OPTS": SHORT, "SEEDS": "1"}
    words = ["emoji_activities", "mini_generic", "end", "4", "1", "False"]
    done = script("coop/main", output, *words, **settings)
    assert done.returncode == 0, done.stderr
    setting = "CoOp/mini_generic_1shots/nctx4_cscFalse_ctpend"
    folder = output / "emoji_activities" / setting / "seed1"
    config = results(folder)["config"]
    assert (config["TRAINER"]["COOP"]["N_CTX"], config["DATASET"]["NUM_SHOTS"]) == (4, 1)
    assert "* accuracy" in done.stdout

    before = (folder / "results.json").stat().st_mtime_ns
    again = script("coop/main", output, *words, **settings)
    assert (again.returncode, (folder / "results.json").stat().st_mtime_ns) == (0, before)
    assert "* accuracy" not in again.stdout

    settings |= {"SOURCE": "emoji_activities", "NCTX": "4"}
    tested = script("coop/eval", output, "emoji_food", "mini_generic", **settings)
    assert tested.returncode == 0, tested.stderr
    food = output / "evaluation" / setting / "emoji_food" / "seed1"
    assert results(food)["source_run"]["dataset"] == "EmojiActivities"


def recorded(name: str, folder: Path, *words: str, **settings: str) -> list[Namespace]:
    """The runs that a script starts."""
    recorder, commands = folder / "python", folder / "commands"
    recorder.write_text(RECORDER)
    recorder.chmod(0o755)
    commands.unlink(missing_ok=True)
    environment = {"PYTHON": str(recorder), "COMMANDS": str(commands), "SHOTS": "16"}
    done = script(name, folder / "runs", *words, **{**environment, **settings})
    assert done.returncode == 0, done.stderr
    lines = commands.read_text().splitlines() if commands.exists() else []
    return [train.build_parser().parse_args(shlex.split(line)[1:]) for line in lines]


@pytest.mark.parametrize("name", OTHERS)
def test_the_trainer_and_files_of_the_others(name: str, tmp_path: Path) -> None:
    trainer, words = OTHERS[name]
    (run,) = recorded(name, tmp_path, *words, "--backbone", "RN101", "OPTIM.LR", "0.1")
    assert (run.trainer, run.backbone, options(run)["OPTIM.LR"]) == (trainer, "RN101", "0.1")
    assert Path(run.config_file).is_file() and Path(run.dataset_config_file).stem == words[0]
    assert recorded(name, tmp_path, *words, "--backbone", "RN101", "OPTIM.LR", "0.1") == []
    assert len(recorded(name, tmp_path, *words)) == 1  # other arguments, another run


def test_base_to_new_and_cross_dataset_with_nemesis(tmp_path: Path) -> None:
    (base,) = recorded("nemesis", tmp_path, "PAN", "cocoop/base2new_train", "dtd", "1")
    (new,) = recorded("nemesis", tmp_path, "PAN", "cocoop/base2new_test", "dtd", "1")
    assert (base.trainer, new.model_dir) == ("CoCoOpNemesis", base.output_dir)
    assert options(base)["TRAINER.NEMESIS.BETA"] == "0.0"
    assert [options(run)["DATASET.SUBSAMPLE_CLASSES"] for run in (base, new)] == ["base", "new"]
    (source,) = recorded("nemesis", tmp_path, "PUN", "cocoop/xd_train", "imagenet", "1")
    (target,) = recorded("nemesis", tmp_path, "PUN", "cocoop/xd_test", "dtd", "1")
    assert (target.eval_only, target.model_dir) == (True, source.output_dir)
    seeds = recorded("coop/main", tmp_path, *OTHERS["plot/main"][1], SEEDS="1 2 3")
    assert [run.seed for run in seeds] == [1, 2, 3]
    given = options(seeds[0])
    assert (given["TRAINER.COOP.CLASS_TOKEN_POSITION"], given["TRAINER.COOP.CSC"]) == (
        "middle",
        "True",
    )


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("coop/main", ["dtd", "rn50"], "takes 6: DATASET CFG CTP NCTX SHOTS CSC"),
        (
            "coop/main",
            ["dtdd", "rn50", "end", "16", "1", "False"],
            "dtdd is not a file of configs/data",
        ),
        (
            "coop/main",
            ["dtd", "rn5", "end", "16", "1", "False"],
            "rn5 is not a file of configs/trainers",
        ),
        ("cocoop/base2new_train", [], "takes 2: DATASET SEED"),
        ("cocoop/base2new_test", ["dtd", "1"], "contains no finished run to test"),
        ("nemesis", ["PUM", "coop/main"], 'the first argument is "PUM"; accepted: PUN, PAN'),
        ("nemesis", ["PUN"], 'the second argument is "nothing"; accepted: coop/main'),
    ],
)
def test_a_mistake_is_one_sentence(
    name: str, words: list[str], message: str, tmp_path: Path
) -> None:
    done = script(name, tmp_path / "runs", *words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()
