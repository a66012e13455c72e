"""The user's mistakes: one sentence, exit code 2, nothing lost."""

import sys
import zipfile
from pathlib import Path

import pytest
import torch

from tests.helpers.runs import SHORT, command, finish, refuse, results


def test_a_finished_run_is_refused_and_kept(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(tmp_path / "run", data_root, trainer="ZeroshotCLIP")
    finish(arguments)
    before = (tmp_path / "run" / "results.json").read_bytes()
    assert "finished run" in refuse(arguments, capsys)
    assert (tmp_path / "run" / "results.json").read_bytes() == before
    finish([*arguments[:-2], "--overwrite", "--seed", "2"])
    assert results(tmp_path / "run")["seed"] == 2


def _not_clip(tmp_path: Path) -> str:
    path = tmp_path / "other.pt"
    torch.save({"layer.weight": torch.zeros(2, 2)}, path)
    return str(path)


def _not_a_model(tmp_path: Path) -> str:
    path = tmp_path / "text.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    return str(path)


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["MODEL.BACKBONE.NAME", "/nowhere/weights.pt"], "/nowhere/weights.pt"),
        (["MODEL.BACKBONE.NAME", "RN51"], "RN50"),
        (["MODEL.BACKBONE.NAME", "{not_clip}"], "other.pt"),
        (["MODEL.BACKBONE.NAME", "{not_a_model}"], "text.pt"),
        (["DATASET.NAME", "EmojiFod"], "EmojiFood"),
        (["TRAINER.NAME", "COOp"], "CoOp"),
        (["INPUT.SIZE", "(224, 224)"], "64 x 64"),
        (["INPUT.PIXEL_MEAN", "[0.5, 0.5, 0.5]"], "PIXEL_MEAN"),
        (["TRAINER.COOP.N_CTXX", "4"], "TRAINER.COOP.N_CTX"),
        (["TRAINER.COOP.N_CTX", "four"], "TRAINER.COOP.N_CTX"),
        (["TRAINER.COOP.N_CTX", "80"], "holds 77"),
        (["TRAINER.COOP.CLASS_TOKEN_POSITION", "start"], "middle"),
        (["TRAINER.COOP.PREC", "fp16"], "fp16 needs a GPU"),
        (["TRAINER.COOP.PREC", "fp8"], "fp32"),
        (["DATASET.NUM_SHOTS"], "pairs"),
        (["DEVICE", "cuda:99"], "cuda:99"),
        (["DATASET.TARGET_DOMAINS", "['openmoji-blak']"], "openmoji-black"),
        (["OPTIM.NAME", "sgdd"], '"sgd"'),
        (["OPTIM.LR_SCHEDULER", "cosinus"], '"cosine"'),
        (["TEST.EVALUATOR", "Clasification"], '"Classification"'),
        (["DATASET.NAME", "X"], "is not in the DATASET registry; available: "),
        (["DATASET.ROOT", "/nowhere", "DATASET.NAME", "OxfordPets"], "/nowhere"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_one_sentence(
    overrides: list[str],
    part: str,
    tmp_path: Path,
    data_root: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {"not_clip": _not_clip(tmp_path), "not_a_model": _not_a_model(tmp_path)}
    filled = [value.format(**names) if "{" in value else value for value in overrides]
    device = [] if "DEVICE" in overrides else ["DEVICE", "cpu"]
    output = tmp_path / "runs" / "run"
    message = refuse(command(output, data_root, *SHORT, *device, *filled), capsys)
    assert part in message
    assert not output.parent.exists()


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("OMEGA", "-1.0", "OMEGA"),
        ("TAU", "1.0", "TAU"),
        ("TAU", "0.0", "TAU"),
        ("N", "0", "TRAINER.NEMESIS.N"),
        ("N", "17", "16 vectors"),
        ("BETA", "1.5", "BETA"),
        ("NORM", "tow", "two"),
        ("SCHEDULE", "logistik", "logistic"),
        ("OMEGAA", "1.0", "TRAINER.NEMESIS.OMEGA"),
    ],
)
def test_nemesis_settings(
    key: str,
    value: str,
    part: str,
    tmp_path: Path,
    data_root: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    overrides = (f"TRAINER.NEMESIS.{key}", value)
    arguments = command(tmp_path / "run", data_root, *overrides, trainer="CoOpNemesis")
    assert part in refuse(arguments, capsys)
    assert not (tmp_path / "run" / "prompt_learner").exists()


def test_missing_config_file(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(tmp_path / "run", data_root)
    arguments[arguments.index("--config-file") + 1] = "configs/none.yaml"
    assert "configs/none.yaml" in refuse(arguments, capsys)


def test_missing_model_folder(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = ("--eval-only", "--model-dir", str(tmp_path / "none"), "--load-epoch", "5")
    assert "model.pth.tar-5" in refuse(command(tmp_path / "run", data_root, *extra), capsys)


def test_a_prompt_of_another_length(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(command(tmp_path / "four", data_root, *SHORT, "TRAINER.COOP.N_CTX", "4"))
    extra = ("--eval-only", "--model-dir", str(tmp_path / "four"), "--load-epoch", "3")
    message = refuse(command(tmp_path / "run", data_root, *extra), capsys)
    assert "holds 4 context vectors, but TRAINER.COOP.N_CTX is 16" in message


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that root cannot write to")
def test_a_read_only_output_folder(data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("/proc/self")
    assert str(folder) in refuse(command(folder / "run", data_root), capsys)
    assert str(folder) in refuse(command(folder, data_root), capsys)


def test_the_output_folder_is_a_file(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert "file" in refuse(command(tmp_path / "file", data_root), capsys)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_mistake_leaves_an_old_folder_as_it_was(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.txt").write_text("mine")
    refuse(command(tmp_path / "run", data_root, "MODEL.BACKBONE.NAME", "none.pt"), capsys)
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {"log.txt", ".run.lock"}
    assert (tmp_path / "run" / "log.txt").read_text() == "mine"


def test_an_unknown_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--sead" in refuse(["--sead", "1"], capsys)
