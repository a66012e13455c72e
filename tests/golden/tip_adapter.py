"""Tip-Adapter and Tip-Adapter-F against the golden numbers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.golden.cases import Case, assert_close
from tests.golden.harness import golden_trainer
from trainers.core.key_cache import mean_key, search

LOGITS = 1e-4  # at a logit scale of 100, as the case's own float64 check


def _trainer(case: Case, root: Path) -> Any:
    """The trainer with the case's keys; 5 images in batches of 2 give its 2 batches an epoch."""
    params = case.params
    settings: dict[str, Any] = {
        "DATASET.CLASSNAMES": case.classes,
        "DATASET.TEMPLATES": [params["template"]],
        "TRAINER.TIPADAPTER.ALPHA": params["init_alpha"],
        "TRAINER.TIPADAPTER.BETA": params["init_beta"],
        "TRAINER.TIPADAPTER.SEARCH": False,
        "DATALOADER.TRAIN_X.BATCH_SIZE": 2,
        "OPTIM.NAME": "adamw",
        "OPTIM.LR": params["lr"],
        "OPTIM.WEIGHT_DECAY": params["weight_decay"],
        "OPTIM.ADAM_EPS": params["adam_eps"],
        "OPTIM.MAX_EPOCH": params["train_epoch"],
    }
    opts = [item for pair in settings.items() for item in pair]
    trainer = golden_trainer("TipAdapterF", case.arch, root, *opts, source=case.folder)
    labels = case.expected["labels"][:2].flatten()
    trainer.model.load_state_dict(
        {**trainer.model.state_dict(), "keys": case.expected["keys"], "labels": labels}
    )
    return trainer


def _views(images: Tensor) -> list[Tensor]:
    return [images, images.flip(-1), images.roll(2, -1)]


def check_tip_adapter(case: Case, root: Path) -> None:
    expected, params = case.expected, case.params
    trainer, labels = _trainer(case, root), expected["labels"]
    model, images = trainer.model, [case.images(number) for number in range(3)]
    views = _views(torch.cat(images[:2]))[: params["augment_epoch"]]
    assert_close(trainer.text_features, expected["classifier"])
    assert_close(mean_key([trainer.raw_features(view) for view in views]), expected["keys"])
    assert_close(model.values, expected["values"])
    val, test = trainer.image_features(images[1].flip(-2)), trainer.image_features(images[2])
    assert_close(val, expected["val_features"])
    assert_close(test, expected["test_features"])
    assert_close(test @ model.keys.T, expected["affinity"])
    assert_close(trainer.classify(test), expected["logits"], LOGITS)

    _check_steps(trainer, case, images)
    assert_close(model.keys, expected["f_final_keys"])
    assert_close(trainer.classify(test), expected["f_logits"], LOGITS)
    model.load_state_dict({**model.state_dict(), "keys": expected["keys"]})
    grid = params["search_scale"], params["search_step"]
    found = search(model, val, labels[1], trainer.text_features, *grid)
    best = params["best_beta"], params["best_alpha"]
    assert (found["beta"], found["alpha"]) == pytest.approx(best, rel=1e-12)


def _check_steps(trainer: Any, case: Case, images: list[Tensor]) -> None:
    expected = case.expected
    for number, loss in enumerate(expected["f_losses"]):
        assert trainer.get_current_lr() == pytest.approx(float(expected["f_lr"][number]), abs=1e-12)
        batch = {"features": trainer.raw_features(images[number % 2])}
        summary = trainer.forward_backward({**batch, "label": expected["labels"][number % 2]})
        assert_close(summary["loss"], loss)
        if number < len(expected["f_grad"]):
            assert_close(trainer.model.keys.grad, expected["f_grad"][number])
            assert_close(trainer.model.keys, expected["f_keys"][number])
