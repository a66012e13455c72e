"""Every YAML file that ships can be loaded, alone and layered as the README says."""

from pathlib import Path

import pytest

import datasets  # noqa: F401  (registers)
import trainers  # noqa: F401  (registers)
from dassl.config import load_config
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
from safeio.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs"
TRAINER_FILES = sorted((CONFIGS / "trainers").rglob("*.yaml"))
DATASET_FILES = sorted((CONFIGS / "datasets").rglob("*.yaml"))


@pytest.mark.parametrize("path", TRAINER_FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_trainer_config(path: Path) -> None:
    cfg = load_config(config_file=str(path))
    if path.name not in ("recipe.yaml",):
        assert cfg.MODEL.BACKBONE.NAME
    if path.parent.name != "backbones":
        assert path.parent.name in TRAINER_REGISTRY.registered_names()


@pytest.mark.parametrize("path", DATASET_FILES, ids=lambda p: p.stem)
def test_dataset_config(path: Path) -> None:
    cfg = load_config(dataset_config_file=str(path))
    assert cfg.DATASET.NAME in DATASET_REGISTRY.registered_names()


def test_every_trainer_has_a_mini_config() -> None:
    for name in TRAINER_REGISTRY.registered_names():
        assert (CONFIGS / "trainers" / name / "mini.yaml").is_file(), name


def test_epochs_and_words_follow_the_file_names() -> None:
    for path in (CONFIGS / "trainers" / "CoOp").glob("*.yaml"):
        cfg = load_config(config_file=str(path))
        if path.stem.startswith("mini"):
            continue
        epochs = next((int(part[2:]) for part in path.stem.split("_") if part[:2] == "ep"), 200)
        words = "a photo of a" if path.stem.endswith("ctxv1") else ""
        assert epochs == cfg.OPTIM.MAX_EPOCH
        assert words == cfg.TRAINER.COOP.CTX_INIT


@pytest.mark.parametrize(
    ("dataset", "omega", "schedule"),
    [
        ("imagenet", 10, "logistic"),
        ("oxford_pets", 50, "constant"),
        ("food101", 50, "constant"),
        ("caltech101", 1, "logistic"),
    ],
)
def test_dataset_defaults_of_nemesis(dataset: str, omega: float, schedule: str) -> None:
    data = str(CONFIGS / f"datasets/{dataset}.yaml")
    method = str(CONFIGS / "trainers/PLOTNemesis/rn50.yaml")
    node = load_config(data, method).TRAINER.NEMESIS
    assert (omega, schedule) == (node.OMEGA, node.SCHEDULE)
    override = ["TRAINER.NEMESIS.OMEGA", "0.1"]
    for first, second in ((data, method), (method, data)):
        assert load_config(first, second, opts=override).TRAINER.NEMESIS.OMEGA == 0.1


def test_a_wrong_key_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"TRAINER\.COOP\.N_CTX"):
        load_config(opts=["TRAINER.COOP.NCTX", "4"])
