"""The Low-Norm study: counts for every method, what a second call leaves alone, its figures."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import nemesis
from nemesis.commands import effect, low_norm
from nemesis.low_norm.corruption import Corruption, replace, unit_noise
from nemesis.low_norm.corruption import corrupt as corrupted
from nemesis.low_norm.prompt_evaluation import PromptEvaluator
from nemesis.report.results import method_of
from safeio.checksums import without_checksum
from tests.helpers.runs import FEW, ROOT, SHORT, Capture, command, finish, results
from trainers.coop import CoOp
from trainers.nemesis import rescale

THREE = ("OPTIM.MAX_EPOCH", "3", "TRAIN.CHECKPOINT_FREQ", "1", "TRAINER.NEMESIS.BETA", "0.0")
CONFIGS = {"CoOp": "", "CoOpNemesis": "", "CSC": "mini", "CoCoOp": "mini", "PLOT": "mini"}
SETTINGS = ("--replace", "0", "0.1", "--rescale", "0.5", "--positions", "1", "3")


def study(run: Path, *arguments: str) -> dict[str, Any]:
    """Call nemesis low-norm on a run and return what it wrote."""
    output = ("--output-dir", str(run.parent / "low_norm"))
    assert low_norm.main([str(run), *arguments, *output]) == 0
    content: dict[str, Any] = json.loads((run / "corruption.json").read_text())
    return content


def entry(content: dict[str, Any], kind: str, value: float, position: int) -> dict[str, Any]:
    (found,) = (
        row
        for row in content["corruptions"]
        if (row["kind"], row["value"], row["position"]) == (kind, value, position)
    )
    return found


@pytest.fixture(scope="module")
def coop(short_run: Callable[..., Path]) -> Path:
    """A short CoOp run, not to be changed."""
    return short_run("CoOp")


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """CoOp and PAN with a checkpoint after each of three epochs."""
    folder = tmp_path_factory.mktemp("course")
    for trainer in ("CoOp", "CoOpNemesis"):
        finish(command(folder / trainer, data_root, *SHORT, *FEW, *THREE, trainer=trainer))
    return folder


def edit_checkpoint(run: Path, change: Any) -> Path:
    """Load a run's last checkpoint, let `change` alter its prompts in place, save it again."""
    (path,) = (run / "prompt_learner").glob("model.pth.tar-*")
    state = torch.load(path, weights_only=True)
    change(state["state_dict"]["ctx"])
    torch.save(state, path)
    return path


@pytest.mark.parametrize("method", CONFIGS)
def test_a_corrupted_prompt_scores_as_a_checkpoint_edited_by_hand(
    method: str, short_run: Callable[..., Path], tmp_path: Path
) -> None:
    trained = short_run("CoOp" if method == "CSC" else method, CONFIGS[method])
    run = shutil.copytree(trained, tmp_path / "run")
    content = study(run, *SETTINGS)
    assert content["original"]["accuracy"] == results(run)["accuracy"]
    assert content["num_test"] == results(run)["num_test"]
    assert len(content["corruptions"]) == 6
    length, width = results(run)["n_ctx"], 128
    noise = torch.randn(length, width, generator=torch.Generator().manual_seed(0))

    def halve(ctx: Tensor) -> None:
        ctx[..., 3, :] *= 0.5

    def overwrite(ctx: Tensor) -> None:
        ctx[..., 1, :] = 0.1 * noise[1]

    for number, (change, key) in enumerate(
        [(halve, ("rescale", 0.5, 3)), (overwrite, ("replace", 0.1, 1))]
    ):
        copy = tmp_path / str(number)
        shutil.copytree(run, copy)
        edit_checkpoint(copy, change)
        trainer: Any = nemesis.load(copy, with_data=True).trainer
        row, j = entry(content, *key), key[2]
        assert trainer.test() == pytest.approx(row["accuracy"])
        ctx = trainer.model.prompt_learner.ctx.detach()
        assert row["norm"] == pytest.approx(ctx[..., j, :].norm(dim=-1).mean().item(), abs=1e-5)
        learned = content["original"]["norms"][j]
        assert row["norm_change"] == pytest.approx(row["norm"] - learned)
        gained = row["correct"] - content["original"]["correct"]
        assert row["accuracy_change"] == pytest.approx(100 * gained / content["num_test"])


def test_noise_is_one_vector_per_position() -> None:
    ctx, noise = torch.randn(3, 4, 5, 16), unit_noise(7, 5, 16)
    assert torch.equal(noise, unit_noise(7, 5, 16)) and not torch.equal(noise, unit_noise(8, 5, 16))
    wanted = [Corruption("replace", std, 2) for std in (0.0, 0.5)]
    zero, half = corrupted(ctx, wanted, noise)
    assert not zero[..., 2, :].any()
    assert torch.equal(half[..., 2, :], (0.5 * noise[2]).expand(3, 4, 16))
    others = [0, 1, 3, 4]
    assert torch.equal(half[..., others, :], ctx[..., others, :])
    positions = torch.tensor([4, 0])
    assert torch.equal(replace(ctx, positions, 0 * noise[:2]), rescale(ctx, positions, 0.0))


def test_a_second_call_tests_only_what_is_missing(coop: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(coop, run)
    few = ("--replace", "--rescale", "0.5", "--positions", "1")
    first = study(run, *few)
    marked = without_checksum(
        json.loads(json.dumps(first))
    )  # edited by hand, so without a checksum
    marked["corruptions"][0]["norm"] = -1.0
    (run / "corruption.json").write_text(json.dumps(marked))

    assert study(run, *few, "--root", str(tmp_path / "nowhere")) == marked
    more = study(run, "--replace", "0.1", "--rescale", "0.5", "--positions", "1", "2")
    assert entry(more, "rescale", 0.5, 1) == marked["corruptions"][0]
    assert len(more["corruptions"]) == 4

    other_noise = study(run, *few, "--noise-seed", "1")
    assert entry(other_noise, "rescale", 0.5, 1)["norm"] > 0
    (run / "corruption.json").write_text(json.dumps(marked)[:-40])
    assert study(run, *few) == first
    (run / "corruption.json").write_text(json.dumps(marked))
    edit_checkpoint(run, lambda ctx: ctx.mul_(2))
    changed = study(run, *few)
    assert changed["checkpoint"]["sha256"] != first["checkpoint"]["sha256"]
    norm = first["corruptions"][0]["norm"]
    assert entry(changed, "rescale", 0.5, 1)["norm"] == pytest.approx(2 * norm, abs=1e-5)
    assert len(changed["corruptions"]) == 1


def test_an_earlier_checkpoint_has_a_file_of_its_own(trainings: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trainings / "CoOp", tmp_path / "run")
    arguments = ("--replace", "--rescale", "0.1", "--positions", "0")
    last = study(run, *arguments)
    study(run, *arguments, "--epoch", "1")
    early = json.loads((run / "corruption-1.json").read_text())
    assert early["checkpoint"]["file"] == "prompt_learner/model.pth.tar-1"
    lines = [line for line in nemesis.Run(run).history if line["event"] == "train"]
    assert early["original"]["norms"] == lines[0]["position_norms"]
    assert last["original"]["norms"] == lines[-1]["position_norms"]


class OwnInference(CoOp):
    """Not known to be made of image features."""

    def model_inference(self, input: Tensor) -> Tensor:
        return super().model_inference(input)


def test_without_kept_features_the_counts_are_the_same(coop: Path) -> None:
    caches: list[dict[str, Any]] = [{}, {"TEST.NO_FEATURE_CACHE": True}, {}]
    trainers = [nemesis.load(coop, with_data=True, settings=c).trainer for c in caches]
    trainers[2].__class__ = OwnInference
    counts = []
    for trainer in trainers:
        evaluator = PromptEvaluator(trainer)  # type: ignore[arg-type]
        ctx = evaluator.trainer.model.prompt_learner.ctx.detach().clone()
        groups = rescale(ctx, torch.tensor([0, 15]), 0.01)
        counts.append(evaluator.count(groups).tolist())
        assert torch.equal(evaluator.trainer.model.prompt_learner.ctx, ctx)
    assert counts[0] == counts[1] == counts[2]


def test_mistakes_are_one_sentence_and_the_other_runs_are_done(
    coop: Path, tmp_path: Path, short_run: Callable[..., Path], capsys: Capture
) -> None:
    runs = {name: tmp_path / name for name in ("good", "bare", "backbone", "cut", "begun", "size")}
    for path in runs.values():
        shutil.copytree(coop, path)
    shutil.rmtree(runs["bare"] / "prompt_learner")
    config = (runs["backbone"] / "config.yaml").read_text()
    (runs["backbone"] / "config.yaml").write_text(config.replace("NAME: mini", "NAME: /no/clip.pt"))
    weights = ROOT / "tests" / "data" / "golden" / "tiny_vit.safetensors"
    (runs["size"] / "config.yaml").write_text(config.replace("NAME: mini", f"NAME: {weights}"))
    (cut,) = (runs["cut"] / "prompt_learner").glob("model.pth.tar-*")
    cut.write_bytes(cut.read_bytes()[:-100])
    (runs["begun"] / "results.json").write_text("{")
    zero_shot = shutil.copytree(short_run("ZeroshotCLIP"), tmp_path / "zero")

    settings = ("--replace", "--rescale", "0.5", "--positions", "3")
    folders = [*runs.values(), zero_shot, tmp_path / "nothing"]
    capsys.readouterr()
    code = low_norm.main([*map(str, folders), *settings, "--output-dir", str(tmp_path / "out")])
    said = capsys.readouterr().err.strip().splitlines()
    assert code == 1
    assert (runs["good"] / "corruption.json").is_file()
    expected = {
        "bare": "No checkpoint",
        "backbone": "/no/clip.pt",
        "cut": "damaged",
        "begun": "not a finished run",
        "size": "tiny_vit.safetensors",
        "zero": "learns no prompts",
        "nothing": "not a finished run",
    }
    assert len(said) == len(expected)
    for line, (name, part) in zip(said, expected.items(), strict=True):
        assert line.startswith(f"error: {tmp_path / name}: ") and part in line
    assert not any((tmp_path / name / "corruption.json").exists() for name in expected)

    only = [str(coop), "--positions", "16", "--output-dir", str(tmp_path / "out")]
    assert low_norm.main(only) == 2
    assert "position 16 does not exist; the prompt has 16" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--replace", "-0.1"],
        ["--rescale", "nan"],
        ["--positions", "-1"],
        ["--noise-seed", "-1"],
        ["--epochs", "1"],
        ["--epoch", "0"],
        ["--over-epochs", "0"],
        ["--over-epochs", "1", "--epoch", "2"],
        ["--replace", "much"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line(
    arguments: list[str], coop: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert low_norm.main([str(coop), "--output-dir", str(tmp_path / "out"), *arguments]) == 2
    (message,) = capsys.readouterr().err.strip().splitlines()
    assert message.startswith("error: ") and arguments[0] in message
    assert not (tmp_path / "out").exists()


def rows(path: Path) -> list[dict[str, str]]:
    """The data beside a figure, which must be there as PNG and PDF."""
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    with path.with_suffix(".csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_figures_of_a_study(trainings: Path, tmp_path: Path) -> None:
    few = ("--replace", "0.1", "--rescale", "0.1", "2")
    assert low_norm.main([str(trainings), *few, "--output-dir", str(tmp_path)]) == 0
    frequency = rows(tmp_path / "figure_1b.png")
    assert [(row["method"], row["of"]) for row in frequency] == [("CoOp", "16"), ("CoOp+PAN", "16")]
    with (tmp_path / "low_norm_rescale.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["low-norm"] for row in table] == [row["frequency"] for row in frequency]
    found = json.loads((trainings / "CoOp" / "corruption.json").read_text())
    bars = rows(tmp_path / "figure_a1_rescale_CoOp_EmojiActivities_1shots.png")
    assert len(bars) == 32
    assert {float(row["learned_accuracy"]) for row in bars} == {found["original"]["accuracy"]}
    better = [row for row in bars if row["value"] == "0.1"]
    count = sum(float(row["accuracy"]) > float(row["learned_accuracy"]) for row in better)
    assert str(count) == frequency[0]["frequency"]


def test_figures_over_the_epochs(trainings: Path, tmp_path: Path) -> None:
    output = ("--output-dir", str(tmp_path), "--over-epochs")
    assert low_norm.main([str(trainings), *output]) == 0
    points = rows(tmp_path / "figure_3.png")
    assert len(points) == 2 * 3 * 16
    history = nemesis.Run(trainings / "CoOp").history
    first = next(line for line in history if line["event"] == "train")
    assert float(points[0]["mean_norm"]) == pytest.approx(sum(first["position_norms"]) / 16)
    coop = rows(tmp_path / "figure_a2_CoOp_EmojiActivities_1shots_seed1.png")
    assert [row["epoch"] for row in coop] == ["1", "2", "3"] and "selections_0" not in coop[0]
    last = next(line for line in reversed(history) if line["event"] == "test")
    assert float(coop[-1]["accuracy"]) == last["accuracy"]
    pan = rows(tmp_path / "figure_a2_CoOp_PAN_EmojiActivities_1shots_seed1.png")
    assert "selections_15" in pan[0]


def test_only_some_epochs(trainings: Path, coop: Path, tmp_path: Path, capsys: Capture) -> None:
    """Without factors there is no Figure 3; a run of one checkpoint fails alone."""
    runs, output = (str(coop), str(trainings / "CoOp")), ("--output-dir", str(tmp_path))
    capsys.readouterr()
    assert low_norm.main([*runs, "--over-epochs", "2", "--rescale", *output]) == 1
    error = capsys.readouterr().err
    assert f"error: {coop}: the run has 1 checkpoint(s)" in error and "CHECKPOINT_FREQ 1" in error
    (path,) = tmp_path.glob("*.png")
    assert [bool(row["accuracy"]) for row in rows(path)] == [False, True, True]
    assert low_norm.main([runs[1], "--over-epochs", "3", "--rescale", "0.1", *output]) == 0
    assert {row["factor"] for row in rows(tmp_path / "figure_3.png")} == {"", "0.1"}


def test_the_effect_compares_gains_and_studies_the_baseline(
    short_run: Callable[..., Path], tmp_path: Path, capsys: Capture
) -> None:
    """With one seed nothing can be tested, but everything is counted and drawn."""
    runs = tmp_path / "runs"
    shutil.copytree(short_run("CoOp"), runs / "coop")
    shutil.copytree(short_run("CoOpNemesis"), runs / "nemesis")
    (row,) = {method_of(results(runs / "nemesis"))}
    words = [str(runs), "--rescale", "0.1", "0.5", "--output-dir", str(tmp_path / "out")]
    assert effect.main([*words, "--selected", row]) == 0
    printed = capsys.readouterr().out
    gain = results(runs / "nemesis")["accuracy"] - results(runs / "coop")["accuracy"]
    assert f"{gain:+.2f}" in printed and row in printed
    assert (runs / "coop" / "corruption.json").is_file()
    for name in ("effect", "gain_and_frequency"):
        assert (tmp_path / "out" / f"{name}.png").stat().st_size > 10_000
        assert (tmp_path / "out" / f"{name}.csv").is_file()
    for wrong, message in (
        (["--rows", "PLOT"], '"PLOT" is not a row; there are "CoOp"'),
        (["--baseline", "CoCoOp"], "CoCoOp"),
        (["--rescale", "-1"], "--rescale"),
    ):
        assert effect.main([*words, *wrong]) == 2
        assert message in (error := capsys.readouterr().err) and error.count("\n") == 1


def test_the_effect_needs_a_row_to_compare(
    short_run: Callable[..., Path], tmp_path: Path, capsys: Capture
) -> None:
    assert effect.main([str(short_run("CoOp")), "--output-dir", str(tmp_path / "out")]) == 2
    assert "no run can be compared with CoOp" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
