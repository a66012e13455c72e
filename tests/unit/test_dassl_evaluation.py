"""Accuracy and the evaluator, against scikit-learn and torchmetrics."""

import csv
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn import metrics
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from dassl.config import CfgNode, get_cfg_default
from dassl.evaluation import EVALUATOR_REGISTRY, Classification, EvaluatorBase, build_evaluator
from dassl.evaluation.matrix_picture import draw_matrix
from dassl.evaluation.measures import confusion_matrix
from dassl.metrics import compute_accuracy
from safeio.errors import UserError

LABELS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60)


def config(**test: object) -> CfgNode:
    cfg = get_cfg_default()
    for key, value in test.items():
        cfg.TEST[key] = value
    return cfg


def feed(evaluator: EvaluatorBase, predicted: list[int], truth: list[int], classes: int) -> None:
    scores = torch.nn.functional.one_hot(torch.tensor(predicted), classes).float()
    half = len(truth) // 2
    for part in (slice(0, half), slice(half, None)):
        evaluator.process(scores[part], torch.tensor(truth, dtype=torch.int64)[part])


@given(LABELS)
def test_equals_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    predicted, truth = [p for p, _ in pairs], [t for _, t in pairs]
    evaluator = Classification(config())
    feed(evaluator, predicted, truth, 6)
    results = evaluator.evaluate()
    accuracy = 100 * metrics.accuracy_score(truth, predicted)
    macro = metrics.f1_score(
        truth, predicted, average="macro", labels=np.unique(truth), zero_division=0
    )
    assert results["accuracy"] == pytest.approx(accuracy)
    assert results["error_rate"] == pytest.approx(100 - accuracy)
    assert results["macro_f1"] == pytest.approx(100 * macro)
    assert results["total"] == len(pairs)
    recall = metrics.recall_score(truth, predicted, average="macro", labels=np.unique(truth))
    assert results["perclass_accuracy"] == pytest.approx(100 * recall)  # balanced accuracy
    assert next(iter(results)) == "accuracy"


def test_dassls_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Classification" in EVALUATOR_REGISTRY
    evaluator = build_evaluator(config(), lab2cname={0: "cat", 1: "dog"})
    feed(evaluator, [0] * 1000, [0] * 918 + [1] * 82, 2)
    evaluator.evaluate()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:6] == [
        "=> result",
        "* total: 1,000",
        "* correct: 918",
        "* accuracy: 91.8%",
        "* error: 8.2%",
    ]
    assert lines[6].startswith("* macro_f1: 47.9%")
    assert lines[7:] == ["* perclass_acc: 50.0%", "* ece: 18.7%"]
    evaluator.reset()
    evaluator.process(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(UserError, match="nothing to evaluate"):
        evaluator.evaluate()


def logits(seed: int, size: int, classes: int, scale: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = scale * torch.randn(size, classes, generator=generator)
    return scores, torch.randint(classes, (size,), generator=generator)


def ece_of(scores: Tensor, truth: Tensor) -> float:
    evaluator = Classification(config())
    for start in range(0, len(truth), 7):
        evaluator.process(scores[start : start + 7], truth[start : start + 7])
    return evaluator.evaluate()["ece"]


@given(seed=st.integers(0, 2**31), size=st.integers(1, 60), scale=st.sampled_from([0.5, 5, 100]))
def test_calibration_is_guos_sum(seed: int, size: int, scale: float) -> None:
    """By definition, bin by bin, and by torchmetrics; at scale 100 most probabilities are 1."""
    scores, truth = logits(seed, size, 4, scale)
    probability, predicted = scores.softmax(dim=1).max(dim=1)
    expected = 0.0
    for index in range(15):
        inside = (probability > index / 15) & (probability <= (index + 1) / 15)
        if inside.any():
            accuracy = (predicted == truth)[inside].double().mean()
            confidence = probability[inside].double().mean()
            expected += inside.double().mean().item() * abs(accuracy - confidence).item()
    assert ece_of(scores, truth) == pytest.approx(100 * expected, abs=1e-4)
    if scale < 1:
        probabilities = scores.softmax(dim=1)
        theirs = multiclass_calibration_error(probabilities, truth, 4, n_bins=15, norm="l1")
        assert ece_of(scores, truth) == pytest.approx(100 * theirs.item(), abs=1e-3)


def test_calibration_by_hand() -> None:
    sure = torch.tensor([[100.0, 0.0]] * 4)
    assert ece_of(sure, torch.tensor([0, 0, 0, 1])) == pytest.approx(25)
    assert ece_of(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1])) == pytest.approx(0)
    assert ece_of(torch.zeros(4, 5), torch.zeros(4, dtype=torch.int64)) == pytest.approx(80)
    assert ece_of(torch.ones(3, 1), torch.zeros(3, dtype=torch.int64)) == 0  # a single class
    half = torch.tensor([[8.0, 0.0, 1.0]]).half()
    expected = 1 - half.float().softmax(dim=1)[0, 0].item()
    assert ece_of(half, torch.tensor([0])) == pytest.approx(100 * expected, rel=1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_outputs_that_are_not_finite_are_no_result(value: float) -> None:
    outputs = torch.ones(4, 3)
    outputs[2, 1] = value
    with pytest.raises(UserError, match="outputs for 1 of 4 images are NaN or infinite"):
        ece_of(outputs, torch.tensor([0, 1, 2, 0]))
    masked = torch.tensor([[0.0, -math.inf]])  # a class that is masked out
    assert ece_of(masked, torch.tensor([0])) == 0


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_per_class_and_matrix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = config(PER_CLASS_RESULT=True, COMPUTE_CMAT=True)
    cfg.OUTPUT_DIR = str(tmp_path)
    evaluator = Classification(cfg, lab2cname={0: "cat", 1: "hot dog, $x$", 2: "cow"})
    feed(evaluator, [0, 0, 1, 1], [0, 1, 1, 1], 3)
    results = evaluator.evaluate()
    assert results["perclass_accuracy"] == pytest.approx((100 + 200 / 3) / 2)
    printed = capsys.readouterr().out
    assert re.findall(r"accuracy: *([\d.]+)%", printed) == ["75.0"]  # parsers take the last one
    assert "* class: 1 (hot dog, $x$)\ttotal: 3\tcorrect: 2\tacc: 66.7%" in printed
    assert "(cow)" not in printed
    saved = json.loads((tmp_path / "cmat.json").read_text())
    assert saved["counts"] == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]
    names = ["cat", "hot dog, $x$", "cow"]
    assert saved["classnames"] == names
    assert rows(tmp_path / "cmat.csv") == [
        ["truth", *names],
        ["cat", "1", "0", "0"],
        ["hot dog, $x$", "1", "2", "0"],
        ["cow", "0", "0", "0"],
    ]
    assert rows(tmp_path / "per_class.csv") == [
        ["label", "classname", "total", "correct", "accuracy"],
        ["0", "cat", "1", "1", "100.0000"],
        ["1", "hot dog, $x$", "3", "2", "66.6667"],
        ["2", "cow", "0", "0", ""],
    ]
    first = (tmp_path / "cmat.png").read_bytes()
    evaluator.evaluate()
    assert (tmp_path / "cmat.png").read_bytes() == first


@given(LABELS)
def test_matrix_equals_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    predicted, truth = (torch.tensor(column) for column in zip(*pairs, strict=True))
    expected = metrics.confusion_matrix(truth, predicted, labels=range(6))
    assert confusion_matrix(truth, predicted, 6).tolist() == expected.tolist()


@pytest.mark.parametrize("classes", [1, 40, 400])
def test_the_matrix_picture_is_readable(classes: int, tmp_path: Path) -> None:
    """No cell is smaller than three pixels, and no side longer than a screen."""
    names = [f"猫 {'long ' * 9}{label}" for label in range(classes)]
    path = tmp_path / "matrix.png"
    draw_matrix(torch.eye(classes, dtype=torch.int64), names, path)
    with Image.open(path) as image:
        assert 3 * classes < min(image.size) <= max(image.size) < 3200


@given(LABELS, st.integers(1, 5))
def test_top_k_accuracy(pairs: list[tuple[int, int]], k: int) -> None:
    generator = torch.Generator().manual_seed(len(pairs))
    scores = torch.rand(len(pairs), 6, generator=generator)
    truth = torch.tensor([t for _, t in pairs])
    expected = metrics.top_k_accuracy_score(truth, scores, k=k, labels=range(6))
    first, best = compute_accuracy(scores, truth, topk=(1, k))
    assert best.shape == (1,)
    assert best.item() == pytest.approx(100 * expected, abs=1e-4)
    assert first.item() <= best.item()
    assert torch.equal(compute_accuracy((scores, None), truth)[0], first)
    assert compute_accuracy(scores, truth, topk=(9,))[0].item() == 100
