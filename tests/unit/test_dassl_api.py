"""Code written for Dassl and CoOp runs unmodified: its imports, a dataset file, a trainer file."""

import importlib
import textwrap
from pathlib import Path

import pytest
from yacs.config import CfgNode as YacsNode

from dassl.data import DataManager
from dassl.engine import build_trainer, finished_run
from dassl.utils import set_random_seed
from tests.helpers.dassl_toy import make_images, toy_config

pytestmark = pytest.mark.usefixtures("toys")

NAMES = {
    "dassl.config": "get_cfg_default clean_cfg",
    "dassl.engine": (
        "TRAINER_REGISTRY build_trainer TrainerBase SimpleTrainer TrainerX TrainerXU SimpleNet"
    ),
    "dassl.engine.trainer": (
        "TrainerBase SimpleTrainer TrainerX TrainerXU SimpleNet SummaryWriter"
    ),
    "dassl.data": "DataManager",
    "dassl.data.data_manager": "DataManager build_data_loader DatasetWrapper",
    "dassl.data.datasets": "DATASET_REGISTRY build_dataset Datum DatasetBase",
    "dassl.data.datasets.base_dataset": "Datum DatasetBase",
    "dassl.data.transforms": "build_transform INTERPOLATION_MODES",
    "dassl.data.transforms.transforms": "build_transform INTERPOLATION_MODES",
    "dassl.data.samplers": "build_sampler RandomDomainSampler SeqDomainSampler RandomClassSampler",
    "dassl.evaluation": "EVALUATOR_REGISTRY build_evaluator EvaluatorBase Classification",
    "dassl.metrics": "compute_accuracy compute_distance_matrix",
    "dassl.metrics.distance": "compute_distance_matrix euclidean_squared_distance cosine_distance",
    "dassl.modeling": (
        "build_backbone build_head build_network Backbone BACKBONE_REGISTRY HEAD_REGISTRY "
        "NETWORK_REGISTRY"
    ),
    "dassl.optim": "build_optimizer build_lr_scheduler",
    "dassl.optim.lr_scheduler": (
        "build_lr_scheduler ConstantWarmupScheduler LinearWarmupScheduler AVAI_SCHEDS"
    ),
    "dassl.optim.optimizer": "build_optimizer AVAI_OPTIMS",
    "dassl.optim.radam": "RAdam PlainRAdam AdamW",
    "dassl.utils": (
        "Registry setup_logger set_random_seed collect_env_info mkdir_if_missing read_json "
        "write_json check_isfile listdir_nohidden get_most_similar_str_to_a_from_b "
        "check_availability tolist_if_not AverageMeter MetricMeter save_checkpoint "
        "load_checkpoint resume_from_checkpoint load_pretrained_weights open_all_layers "
        "open_specified_layers count_num_param init_network_weights read_image download_url"
    ),
    "dassl.utils.tools": (
        "mkdir_if_missing check_isfile read_json write_json set_random_seed download_url "
        "read_image collect_env_info listdir_nohidden check_availability tolist_if_not "
        "get_most_similar_str_to_a_from_b"
    ),
    "dassl.utils.torchtools": "adjust_learning_rate set_bn_to_eval load_pretrained_weights",
}

DATASET = """
import os
import pickle

from dassl.data.datasets import DATASET_REGISTRY, Datum, DatasetBase
from dassl.utils import listdir_nohidden, mkdir_if_missing, read_json, write_json


@DATASET_REGISTRY.register()
class ForeignSquares(DatasetBase):

    dataset_dir = "squares"

    def __init__(self, cfg):
        root = os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT))
        self.dataset_dir = os.path.join(root, self.dataset_dir)
        self.image_dir = os.path.join(self.dataset_dir, "images")
        self.split_fewshot_dir = os.path.join(self.dataset_dir, "split_fewshot")
        mkdir_if_missing(self.split_fewshot_dir)
        items = []
        for label, name in enumerate(sorted(listdir_nohidden(self.image_dir))):
            folder = os.path.join(self.image_dir, name)
            for image in sorted(listdir_nohidden(folder)):
                path = os.path.join(folder, image)
                items.append(Datum(impath=path, label=label, classname=name))
        train, test = items[::2], items[1::2]
        write_json(len(items), os.path.join(self.dataset_dir, "count.json"))
        assert read_json(os.path.join(self.dataset_dir, "count.json")) == len(items)
        num_shots, seed = cfg.DATASET.NUM_SHOTS, cfg.SEED
        if num_shots >= 1:
            kept = os.path.join(self.split_fewshot_dir, f"shot_{num_shots}-seed_{seed}.pkl")
            train = self.generate_fewshot_dataset(train, num_shots=num_shots)
            with open(kept, "wb") as file:
                pickle.dump({"train": train}, file, protocol=pickle.HIGHEST_PROTOCOL)
            with open(kept, "rb") as file:
                train = pickle.load(file)["train"]
        super().__init__(train_x=train, val=test, test=test)
"""

TRAINER = """
import os.path as osp

import torch
import torch.nn as nn
from torch.nn import functional as F

from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.metrics import compute_accuracy
from dassl.utils import load_pretrained_weights, load_checkpoint
from dassl.optim import build_optimizer, build_lr_scheduler


@TRAINER_REGISTRY.register()
class Foreign(TrainerX):

    def check_cfg(self, cfg):
        assert cfg.TRAINER.NAME == "Foreign"

    def build_model(self):
        cfg = self.cfg
        assert len(self.dm.dataset.classnames) == self.num_classes
        self.model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.model.add_module("head", nn.Linear(3, self.num_classes))
        if cfg.MODEL.INIT_WEIGHTS:
            load_pretrained_weights(self.model.head, cfg.MODEL.INIT_WEIGHTS)
        self.model.to(self.device)
        self.optim = build_optimizer(self.model.head, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("head", self.model.head, self.optim, self.sched)

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        output = self.model(image)
        loss = F.cross_entropy(output, label)
        self.model_backward_and_update(loss)
        loss_summary = {
            "loss": loss.item(),
            "acc": compute_accuracy(output, label)[0].item(),
        }
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return loss_summary

    def parse_batch_train(self, batch):
        input = batch["img"]
        label = batch["label"]
        input = input.to(self.device)
        label = label.to(self.device)
        return input, label

    def load_model(self, directory, epoch=None):
        names = self.get_model_names()
        model_file = "model-best.pth.tar"
        if epoch is not None:
            model_file = "model.pth.tar-" + str(epoch)
        for name in names:
            model_path = osp.join(directory, name, model_file)
            if not osp.exists(model_path):
                raise FileNotFoundError(model_path)
            checkpoint = load_checkpoint(model_path)
            self._models[name].load_state_dict(checkpoint["state_dict"], strict=False)
"""


@pytest.mark.parametrize("module", NAMES)
def test_names_are_where_dassl_has_them(module: str) -> None:
    found = importlib.import_module(module)
    for name in NAMES[module].split():
        assert hasattr(found, name), f"{module}.{name}"


def test_foreign_files_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "foreign_squares.py").write_text(textwrap.dedent(DATASET))
    (tmp_path / "foreign_trainer.py").write_text(textwrap.dedent(TRAINER))
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("foreign_squares")
    importlib.import_module("foreign_trainer")
    root = make_images(tmp_path / "data")
    opts = ("TRAINER.NAME", "Foreign", "DATASET.NAME", "ForeignSquares", "OPTIM.MAX_EPOCH", "12")
    cfg = toy_config(root, tmp_path / "out", *opts)
    set_random_seed(cfg.SEED)
    build_trainer(cfg).train()
    results = finished_run(tmp_path / "out")
    assert results is not None
    assert results["accuracy"] > 60
    again = build_trainer(toy_config(root, tmp_path / "again", *opts))
    again.load_model(str(tmp_path / "out"), epoch=12)
    assert again.test() == results["accuracy"]


def test_a_configuration_of_somebodys_copy_of_the_defaults(tmp_path: Path) -> None:
    theirs = YacsNode(toy_config(make_images(tmp_path / "data"), tmp_path / "out"))
    for group, key in (("DATALOADER", "ON_BAD_IMAGE"), ("INPUT", "TRAIN_VIEWS"), ("TEST", "SPLIT")):
        del theirs[group][key]
    before = str(theirs)
    build_trainer(theirs).train()
    assert str(theirs) == before
    results = finished_run(tmp_path / "out")
    assert results is not None and results["config"]["DATALOADER"]["ON_BAD_IMAGE"] == "error"
    assert len(DataManager(theirs).dataset.train_x) == 16
