"""Names that code for Dassl and CoOp imports, and configurations that it passes."""

import importlib
from pathlib import Path

import pytest
from yacs.config import CfgNode as YacsNode

from dassl.data import DataManager
from dassl.engine import build_trainer, finished_run
from tests.helpers.dassl_toy import make_images, toy_config

pytestmark = pytest.mark.usefixtures("toys")

TRAINERS = "TrainerBase SimpleTrainer TrainerX TrainerXU SimpleNet"
TOOLS = (
    "mkdir_if_missing check_isfile read_json write_json set_random_seed download_url read_image "
    "collect_env_info listdir_nohidden check_availability tolist_if_not "
    "get_most_similar_str_to_a_from_b"
)
NAMES = {
    "config": "get_cfg_default clean_cfg",
    "engine": f"TRAINER_REGISTRY build_trainer {TRAINERS}",
    "engine.trainer": f"{TRAINERS} SummaryWriter",
    "data": "DataManager",
    "data.data_manager": "DataManager build_data_loader DatasetWrapper",
    "data.datasets": "DATASET_REGISTRY build_dataset Datum DatasetBase",
    "data.datasets.base_dataset": "Datum DatasetBase",
    "data.transforms": "build_transform INTERPOLATION_MODES",
    "data.transforms.transforms": "build_transform INTERPOLATION_MODES",
    "data.samplers": "build_sampler RandomDomainSampler SeqDomainSampler RandomClassSampler",
    "evaluation": "EVALUATOR_REGISTRY build_evaluator EvaluatorBase Classification",
    "metrics": "compute_accuracy compute_distance_matrix",
    "metrics.distance": "compute_distance_matrix euclidean_squared_distance cosine_distance",
    "modeling": "build_backbone build_head build_network Backbone BACKBONE_REGISTRY HEAD_REGISTRY "
    "NETWORK_REGISTRY",
    "optim": "build_optimizer build_lr_scheduler",
    "optim.lr_scheduler": "build_lr_scheduler ConstantWarmupScheduler LinearWarmupScheduler "
    "AVAI_SCHEDS",
    "optim.optimizer": "build_optimizer AVAI_OPTIMS",
    "optim.radam": "RAdam PlainRAdam AdamW",
    "utils": f"Registry setup_logger {TOOLS} AverageMeter MetricMeter save_checkpoint "
    "load_checkpoint resume_from_checkpoint load_pretrained_weights open_all_layers "
    "open_specified_layers count_num_param init_network_weights",
    "utils.tools": TOOLS,
    "utils.torchtools": "adjust_learning_rate set_bn_to_eval load_pretrained_weights",
}


@pytest.mark.parametrize("module", NAMES)
def test_names_are_where_dassl_has_them(module: str) -> None:
    found = importlib.import_module(f"dassl.{module}")
    for name in NAMES[module].split():
        assert hasattr(found, name), f"dassl.{module}.{name}"


def test_a_configuration_from_a_copy_of_dassls_defaults(tmp_path: Path) -> None:
    theirs = YacsNode(toy_config(make_images(tmp_path / "data"), tmp_path / "out"))
    for group, key in (("DATALOADER", "ON_BAD_IMAGE"), ("INPUT", "TRAIN_VIEWS"), ("TEST", "SPLIT")):
        del theirs[group][key]
    before = str(theirs)
    build_trainer(theirs).train()
    assert str(theirs) == before
    results = finished_run(tmp_path / "out") or {}
    assert results["config"]["DATALOADER"]["ON_BAD_IMAGE"] == "error"
    assert len(DataManager(theirs).dataset.train_x) == 16
