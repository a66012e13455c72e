"""Whole runs of VPT, IVLP, MaPLe and PromptSRC on the golden ViT and a few pictures."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import nemesis
from nemesis.commands import low_norm
from nemesis.inference.words import words_of_prompts
from nemesis.low_norm import parts
from nemesis.low_norm.corruption import Corruption, corrupt, unit_noise
from tests.golden.cases import DATA
from tests.helpers.killing import Killed, assert_same, killed_after
from tests.helpers.own_images import fill_parts
from tests.helpers.refusals import refused
from tests.helpers.runs import ROOT, Capture, finish, results

WEIGHTS = DATA / "golden_two_towers/tiny_vit3.safetensors"
CONFIG = """
INPUT: {SIZE: [32, 32], TRANSFORMS: [random_resized_crop, random_flip, normalize]}
MODEL: {CLIP: {TEXT_HEADS: 2}}
DATASET: {NUM_SHOTS: 2}
DATALOADER: {NUM_WORKERS: 0, TRAIN_X: {BATCH_SIZE: 3}, TEST: {BATCH_SIZE: 8}}
OPTIM: {NAME: sgd, LR: 0.01, MAX_EPOCH: 3}
TRAINER:
  VPT: {N_CTX_VISION: 2, PROMPT_DEPTH_VISION: 2}
  IVLP: {N_CTX_VISION: 2, PROMPT_DEPTH_VISION: 2, PROMPT_DEPTH_TEXT: 2}
  MAPLE: {PROMPT_DEPTH: 2}
  PROMPTSRC: {PROMPT_DEPTH_VISION: 2, PROMPT_DEPTH_TEXT: 2, GPA_MEAN: 2.0, GPA_STD: 1.0}
"""
BOTH = ("TRAINER.NEMESIS.BETA", "0.5", "TRAINER.NEMESIS.N", "2")
VIEWS = ("INPUT.TRAIN_VIEWS", "2")
COMPUTED = "Computing the features"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a folder of pictures, and the configuration."""
    root = tmp_path_factory.mktemp("towers")
    fill_parts(root / "pets", "train", "test", count=2)
    (root / "tiny.yaml").write_text(CONFIG)
    return root


def arguments(trainer: str, output: Path, data: Path, *extra: str) -> list[str]:
    return [
        *("--root", str(data), "--trainer", trainer, "--seed", "1", "--output-dir", str(output)),
        *("--dataset-config-file", str(ROOT / "configs/datasets/folder.yaml")),
        *("--config-file", str(data / "tiny.yaml"), "--backbone", str(WEIGHTS)),
        *("DATASET.FOLDER.PATH", "pets", *extra),
    ]


@pytest.fixture(scope="module")
def whole(data: Path) -> Path:
    """An uninterrupted run with the Gaussian sum, PUN and PAN."""
    finish(arguments("PromptSRCNemesis", data / "whole", data, *VIEWS, *BOTH))
    return data / "whole"


@pytest.mark.parametrize("reached", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 4))])
def test_killed_promptsrc_resumes_with_the_same_sum(
    reached: int, data: Path, whole: Path, tmp_path: Path
) -> None:
    """Within and between epochs."""
    run = arguments("PromptSRCNemesis", tmp_path, data, *VIEWS, *BOTH)
    with pytest.raises(Killed), killed_after(reached):
        finish(run)
    assert not (tmp_path / "results.json").exists()
    finish([*run[:2], "--resume", str(tmp_path), *run[2:]])
    assert_same(whole, tmp_path)


def test_promptsrc_takes_the_teachers_features_of_views_from_the_cache(
    data: Path, tmp_path: Path
) -> None:
    """With the augmented images; CoOp's runs share the features."""
    own = tmp_path / "data"
    shutil.copytree(data, own)
    train_only = (*VIEWS, "TEST.NO_TEST", "True")
    finish(arguments("CoOp", tmp_path / "coop", own, *train_only, "TRAINER.COOP.N_CTX", "2"))
    finish(arguments("PromptSRC", tmp_path / "cached", own, *train_only))
    assert COMPUTED in (tmp_path / "coop/log.txt").read_text()
    log = (tmp_path / "cached/log.txt").read_text()
    assert COMPUTED not in log and "2 cached augmentations" in log
    finish(["--no-feature-cache", *arguments("PromptSRC", tmp_path / "off", own, *train_only)])
    prompts = [load_file(tmp_path / name / "prompt.safetensors") for name in ("cached", "off")]
    assert set(prompts[0]) == {f"{tower}.{layer}" for tower in ("text", "vision") for layer in "01"}
    for name, one in prompts[0].items():
        torch.testing.assert_close(one, prompts[1][name])


@pytest.fixture(scope="module")
def trained(data: Path) -> dict[str, Path]:
    """A run of each method."""
    folders = {name: data / name for name in ("VPT", "IVLP", "MaPLe", "PromptSRC", "text")}
    for name, folder in folders.items():
        extra = ("TRAINER.IVLP.PROMPT_DEPTH_VISION", "0", *VIEWS) if name == "text" else ()
        trainer = "IVLP" if name == "text" else name
        finish(arguments(trainer, folder, data, "OPTIM.MAX_EPOCH", "1", *extra))
    return folders


@pytest.mark.parametrize("name", ["VPT", "IVLP", "MaPLe", "PromptSRC", "text"])
def test_a_trained_run_is_loaded(
    name: str, trained: dict[str, Path], data: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Other classes, predictions, the exported classifier, and image features in the cache."""
    folder = trained[name]
    other = nemesis.load(folder, classnames=["tulip", "red deer", "cat", "tram"])
    picture = data / "pets/test/cat/01.png"
    (best,) = other.predict([picture], top_k=4)
    assert {label for label, _ in best} == {"tulip", "red deer", "cat", "tram"}

    run = nemesis.load(folder, with_data=True)
    assert run.evaluate()["accuracy"] == pytest.approx(results(folder)["accuracy"])
    content = load_file(run.export(tmp_path / "one.safetensors"))
    trainer, model = run.trainer, run.trainer.model
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = trainer.model_inference(images)
        if "vision_prompts" in content:
            features = model.image_encoder(images, content["vision_prompts"])
        else:
            features = model.clip_model.encode_image(images)
    features = torch.nn.functional.normalize(features, dim=-1)
    ours = content["scale"] * features @ content["text_features"].T
    torch.testing.assert_close(ours, expected)
    assert ("vision_prompts" in content) == (name != "text")
    assert trainer.feature_kind() == ("pooled" if name == "text" else None)


def test_words_and_norms_of_every_layer(trained: dict[str, Path]) -> None:
    vectors = words_of_prompts(nemesis.load(trained["IVLP"]), 3)
    assert [(one["set"], one["position"]) for one in vectors] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    history = (trained["IVLP"] / "history.jsonl").read_text()
    for key in ("norms_text.0", "norms_text.1", "norms_vision.0", "norms_vision.1"):
        assert re.search(rf'"{key}": \[[^]]*, [^]]*\]', history)
    with refused("vision prompts alone"):
        words_of_prompts(nemesis.load(trained["VPT"]), 3)
    assert results(trained["VPT"])["prompts"] == {"vision": {"length": 2, "depth": 2}}


PARTS = {
    "VPT": ["vision", "vision.0", "vision.1"],
    "IVLP": [*(f"text{end}" for end in ("", ".0", ".1")), "vision", "vision.0", "vision.1"],
    "MaPLe": ["text", "text.0", "text.1"],
}


@pytest.mark.parametrize("name", PARTS)
def test_corrupted_parts_score_as_prompts_changed_by_hand(
    name: str, trained: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def sums(logits: Tensor, labels: Tensor) -> Tensor:  # tells more than six images' classes
        del labels
        return (1000 * logits.abs().sum((-2, -1))).round().long()

    monkeypatch.setattr(parts, "count_correct", sums)
    trainer: Any = nemesis.load(trained[name], with_data=True).trainer
    learner = trainer.model.prompt_learner
    corruptions = [Corruption("rescale", 0.1, 1), Corruption("replace", 2.0, 0)]
    for part in PARTS[name]:
        evaluator = parts.TowerEvaluator(trainer, part)
        noise = unit_noise(0, *evaluator.ctx.shape[-2:])
        counts = evaluator.count(corrupt(evaluator.ctx, corruptions, noise))
        tower, _, layer = part.partition(".")
        for corruption, count in zip(corruptions, counts, strict=True):
            before = {key: value.clone() for key, value in learner.state_dict().items()}
            j = corruption.position
            for key, vectors in learner.state_dict().items():
                if key.startswith(f"{tower}.{layer}"):
                    own = 0.1 * vectors[j] if corruption.kind == "rescale" else 2 * noise[j]
                    vectors[j] = own
            with torch.no_grad(), trainer.cached_text_features():
                scored = [sums(*one) for one in trainer.predictions(trainer.test_loader)]
            learner.load_state_dict(before)
            assert abs(int(count) - int(torch.stack(scored).sum())) <= 3, (part, corruption)


def test_the_low_norm_study_of_every_part(trained: dict[str, Path], tmp_path: Path) -> None:
    few = ["--rescale", "0.5", "--replace", "--output-dir", str(tmp_path)]
    run = trained["IVLP"]
    assert low_norm.main([str(run), *few]) == 0
    for part in PARTS["IVLP"]:
        content = json.loads((run / f"corruption-{part}.json").read_text())
        assert content["run"]["method"] == f"IVLP ({part})"
        assert content["original"]["accuracy"] == results(run)["accuracy"]
        assert [row["position"] for row in content["corruptions"]] == [0, 1]
    assert "IVLP (vision.1)" in (tmp_path / "low_norm_rescale.csv").read_text()
    assert low_norm.main([str(run), *few, "--prompts", "vision.7"]) == 2
