"""Names that third-party files import from Dassl, what they do, and configurations they pass."""

import importlib
import shutil
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from yacs.config import CfgNode as YacsNode

from dassl.config import get_cfg_default
from dassl.data import DataManager, DatasetWrapper
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.engine import SimpleNet, TrainerXU, build_trainer, finished_run
from dassl.engine.trainer_xu import PairedBatches
from dassl.metrics.distance import compute_distance_matrix
from dassl.modeling import BACKBONE_REGISTRY, Backbone, build_backbone, build_head
from dassl.optim.lr_scheduler import (
    ConstantWarmupScheduler,
    LinearWarmupScheduler,
    build_lr_scheduler,
)
from dassl.utils import adjust_learning_rate, set_bn_to_eval
from dassl.utils.tools import download_url, read_image
from safeio.errors import UserError
from tests.helpers.dassl_toy import Squares, ToyTrainer, make_images, registered, toy_config
from tests.helpers.server import serve

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
    for group, key in (("DATALOADER", "ON_BAD_IMAGE"), ("INPUT", "DECODE"), ("TEST", "SPLIT")):
        del theirs[group][key]
    before = str(theirs)
    with registered():
        build_trainer(theirs).train()
        assert len(DataManager(theirs).dataset.train_x) == 16
    assert str(theirs) == before
    results = finished_run(tmp_path / "out") or {}
    assert results["config"]["DATALOADER"]["ON_BAD_IMAGE"] == "error"


def test_distances() -> None:
    left, right = torch.randn(5, 3), torch.randn(4, 3)
    squared = compute_distance_matrix(left, right)
    assert torch.allclose(squared, torch.cdist(left, right).square(), atol=1e-5)
    cosines = torch.cosine_similarity(left[:, None], right[None], dim=-1)
    assert torch.allclose(compute_distance_matrix(left, right, "cosine"), 1 - cosines, atol=1e-6)
    with pytest.raises(ValueError, match="euclidean, cosine"):
        compute_distance_matrix(left, right, "manhattan")
    with pytest.raises(ValueError, match="the same width"):
        compute_distance_matrix(left, right[:, :2])


@pytest.mark.parametrize("kind", ["constant", "linear"])
def test_warm_up_before_a_scheduler_of_pytorch(kind: str) -> None:
    parameter = nn.Parameter(torch.zeros(1))

    def sgd() -> torch.optim.Optimizer:
        return torch.optim.SGD([parameter], lr=0.2)

    def theirs() -> ConstantWarmupScheduler | LinearWarmupScheduler:
        optimizer = sgd()
        successor = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
        if kind == "constant":
            return ConstantWarmupScheduler(optimizer, successor, 3, 1e-5)
        return LinearWarmupScheduler(optimizer, successor, 3, 1e-5)

    cfg = get_cfg_default()
    settings = {"LR": 0.2, "LR_SCHEDULER": "cosine", "MAX_EPOCH": 10, "WARMUP_EPOCH": 3}
    cfg.OPTIM.update({**settings, "WARMUP_TYPE": kind, "WARMUP_RECOUNT": True})
    ours, wrapped = build_lr_scheduler(sgd(), cfg.OPTIM), theirs()
    for epoch in range(10):
        assert wrapped.get_last_lr() == pytest.approx(ours.get_last_lr()), epoch
        if epoch == 5:  # it can be restored from its state
            rates, state = wrapped.optimizer.state_dict(), wrapped.state_dict()
            wrapped = theirs()
            wrapped.optimizer.load_state_dict(rates)
            wrapped.load_state_dict(state)
        for scheduler in (ours, wrapped):
            scheduler.optimizer.step()
            scheduler.step()


def test_learning_rates_and_batch_normalisation() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    adjust_learning_rate(optimizer, 0.5, 45, stepsize=20, gamma=0.1)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.005)
    adjust_learning_rate(optimizer, 0.5, 25, linear_decay=True, final_lr=0.1)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.4)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5)).train()
    model.apply(set_bn_to_eval)
    assert [module.training for module in model] == [True, False, True]


def test_a_backbone_a_head_and_a_net(capsys: pytest.CaptureFixture[str]) -> None:
    images = torch.zeros(2, 3, 32, 32)
    backbone = build_backbone("resnet18", pretrained=False)
    assert backbone(images).shape == (2, backbone.out_features) == (2, 512)
    head = build_head("mlp", verbose=False, in_features=6, hidden_layers=(5, 4), dropout=0.1)
    assert head(torch.zeros(2, 6)).shape == (2, head.out_features) == (2, 4)
    with pytest.raises(UserError, match='did you mean "resnet18"'):
        build_backbone("resnet17")
    cfg = get_cfg_default()
    opts = ["MODEL.BACKBONE.NAME", "resnet18", "MODEL.BACKBONE.PRETRAINED", "False"]
    cfg.merge_from_list([*opts, "MODEL.HEAD.NAME", "mlp", "MODEL.HEAD.HIDDEN_LAYERS", "(7,)"])
    net = SimpleNet(cfg, cfg.MODEL, 3)
    scores, features = net(images, return_feature=True)
    assert (scores.shape, features.shape, net.fdim) == ((2, 3), (2, 7), 7)
    assert SimpleNet(cfg, cfg.MODEL, 0)(images).shape == (2, 7)
    assert "resnet18" in capsys.readouterr().out


class HalfLabelled(Squares):
    """Every other training image has no label."""

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self._train_u = [Datum(item.impath, 0) for item in (self.train_x or [])[1::2]]


class Pairs(TrainerXU, ToyTrainer):
    """Learns from labelled and unlabelled images."""

    seen: list[tuple[int, int]]

    def forward_backward(self, batch_x: Any, batch_u: Any = None) -> dict[str, Any]:
        image, label, other = self.parse_batch_train(batch_x, batch_u)
        self.__dict__.setdefault("seen", []).append((len(label), len(other)))
        loss = nn.functional.cross_entropy(self.model(image), label)
        loss = loss + 0.1 * self.model(other).square().mean()
        self.model_backward_and_update(loss)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {"loss": loss.item()}

    def parse_batch_train(self, batch_x: Any, batch_u: Any = None) -> Any:
        return TrainerXU.parse_batch_train(self, batch_x, batch_u)


@pytest.mark.parametrize(("count", "batches"), [("train_x", 4), ("train_u", 2), ("smaller_one", 2)])
def test_training_with_unlabelled_images(count: str, batches: int, tmp_path: Path) -> None:
    root = make_images(tmp_path / "data")
    opts = ("DATASET.NAME", "HalfLabelled", "TRAINER.NAME", "Pairs", "TRAIN.COUNT_ITER", count)
    with registered(Pairs):
        DATASET_REGISTRY.register(HalfLabelled)
        trainer = build_trainer(toy_config(root, tmp_path / "out", *opts, "OPTIM.MAX_EPOCH", "2"))
        trainer.train()
        assert trainer.seen == [(4, 4)] * 2 * batches
        cfg = toy_config(root, tmp_path / "none", "TRAINER.NAME", "Pairs")
        with pytest.raises(UserError, match="no unlabelled training images"):
            build_trainer(cfg).train()


def test_paired_batches_and_transformed_images() -> None:
    assert list(PairedBatches([1, 2, 3], "ab", 3)) == [(1, "a"), (2, "b"), (3, "a")]
    cfg = get_cfg_default()
    cfg.DATALOADER.K_TRANSFORMS = 2
    width: Any = lambda image: image.width  # noqa: E731
    for is_train, expected in ((False, 4), (True, [4, 4])):
        wrapper = DatasetWrapper(cfg, [], transform=lambda x: x, is_train=is_train)
        assert wrapper._transform_image(width, Image.new("RGB", (4, 4))) == expected


def test_own_backbones_are_registered() -> None:
    @BACKBONE_REGISTRY.register()
    def tiny(**kwargs: Any) -> Backbone:
        return Backbone()

    try:
        assert isinstance(build_backbone("tiny", verbose=False), Backbone)
    finally:
        del BACKBONE_REGISTRY._objects["tiny"]


def test_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (3, 2), "red").save(tmp_path / "red.png")
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.write(tmp_path / "red.png", "images/red.png")
    dataset, target = DatasetBase(), tmp_path / "data" / "archive.zip"
    with serve() as server:
        server.files["/archive.zip"] = (tmp_path / "archive.zip").read_bytes()
        dataset.download_data(f"{server.url}/archive.zip", str(target), from_gdrive=False)
        with pytest.raises(UserError, match="cannot be downloaded"):
            download_url(f"{server.url}/nothing.zip", str(tmp_path / "nothing.zip"))
    assert read_image(str(tmp_path / "data" / "images" / "red.png")).getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(UserError, match="http or https"):
        download_url(f"file://{target}", str(tmp_path / "copy.zip"))
    assert not (tmp_path / "nothing.zip").exists()

    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(UserError, match="pip install gdown"):
        dataset.download_data("https://drive.example/1", str(tmp_path / "drive" / "a.zip"))
    source = tmp_path / "archive.zip"
    fake = types.SimpleNamespace(download=lambda url, dst, quiet: shutil.copy(source, dst))
    monkeypatch.setitem(sys.modules, "gdown", fake)
    dataset.download_data("https://drive.example/1", str(tmp_path / "drive" / "a.zip"))
    assert (tmp_path / "drive" / "images" / "red.png").is_file()
