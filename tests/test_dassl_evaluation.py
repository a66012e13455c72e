"""Accuracy and the evaluator, against scikit-learn."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from dassl.config import CfgNode, get_cfg_default
from dassl.evaluation import EVALUATOR_REGISTRY, Classification, EvaluatorBase, build_evaluator
from dassl.metrics import compute_accuracy
from dassl.utils import UserError

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
    assert next(iter(results)) == "accuracy"


def test_familiar_lines(capsys: pytest.CaptureFixture[str]) -> None:
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
    evaluator.reset()
    with pytest.raises(UserError, match="nothing to evaluate"):
        evaluator.evaluate()


def test_per_class_and_matrix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = config(PER_CLASS_RESULT=True, COMPUTE_CMAT=True)
    cfg.OUTPUT_DIR = str(tmp_path)
    evaluator = Classification(cfg, lab2cname={0: "cat", 1: "dog", 2: "cow"})
    feed(evaluator, [0, 0, 1, 1], [0, 1, 1, 1], 3)
    results = evaluator.evaluate()
    assert results["perclass_accuracy"] == pytest.approx((100 + 200 / 3) / 2)
    assert "* class: 1 (dog)\ttotal: 3\tcorrect: 2\tacc: 66.7%" in capsys.readouterr().out
    saved = json.loads((tmp_path / "cmat.json").read_text())
    assert saved["counts"] == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]
    assert saved["classnames"] == ["cat", "dog", "cow"]


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


def test_unknown_evaluator() -> None:
    with pytest.raises(UserError, match='did you mean "Classification"'):
        build_evaluator(config(EVALUATOR="Clasification"))
    assert "Classification" in EVALUATOR_REGISTRY
