"""Images, transforms, samplers and loaders."""

import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as T
from torchvision.transforms import InterpolationMode

from dassl.config import CfgNode, get_cfg_default
from dassl.data import DataManager, DatasetWrapper, build_data_loader
from dassl.data.data_manager import set_loader_epoch
from dassl.data.datasets import Datum
from dassl.data.samplers import SeededIndex, build_sampler
from dassl.data.transforms import AVAI_CHOICES, build_transform
from dassl.data.transforms.custom import ToNormalizedTensor
from dassl.utils import isolated_rng
from safeio.errors import UserError
from tests.helpers.dassl_toy import toy_config

# Newer versions of Python warn when a process with threads is forked, as loaders do.
pytestmark = [
    pytest.mark.usefixtures("toys"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def picture(width: int = 40, height: int = 30) -> Image.Image:
    pixels = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def transform_config(*names: str) -> CfgNode:
    cfg = get_cfg_default()
    cfg.INPUT.SIZE = (16, 24)
    cfg.INPUT.INTERPOLATION = "bicubic"
    cfg.INPUT.TRANSFORMS = names
    return cfg


def test_coop_recipe_equals_torchvision() -> None:
    cfg = transform_config("random_resized_crop", "random_flip", "normalize")
    normalize = T.Normalize(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD)
    bicubic = InterpolationMode.BICUBIC
    crop = T.RandomResizedCrop((16, 24), scale=(0.08, 1.0), interpolation=bicubic)
    train = T.Compose([crop, T.RandomHorizontalFlip(), T.ToTensor(), normalize])
    resize = T.Resize(24, interpolation=bicubic)
    test = T.Compose([resize, T.CenterCrop((16, 24)), T.ToTensor(), normalize])
    for is_train, expected in ((True, train), (False, test)):
        ours: Any = build_transform(cfg, is_train=is_train)
        with isolated_rng(7):
            want = expected(picture())
        with isolated_rng(7):
            assert torch.equal(ours(picture()), want)


@pytest.mark.parametrize("name", AVAI_CHOICES)
@pytest.mark.parametrize("is_train", [True, False])
def test_every_transform_gives_the_size(name: str, is_train: bool) -> None:
    transform: Any = build_transform(transform_config(name), is_train=is_train)
    for size in ((40, 30), (10, 12)):
        image = transform(picture(*size))
        assert image.shape == (3, 16, 24)
        assert image.isfinite().all()
        if name == "instance_norm":
            assert image.flatten(1).mean(1) == pytest.approx([0.0] * 3, abs=1e-5)
            assert image.flatten(1).std(1) == pytest.approx([1.0] * 3, abs=1e-4)


@pytest.mark.parametrize("width", [1, 17])
def test_tensors_equal_torchvision_to_the_bit(width: int) -> None:
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    expected = T.Compose([T.ToTensor(), T.Normalize(mean, std)])(picture(width))
    ours = ToNormalizedTensor(mean, std)(picture(width))
    assert torch.equal(ours, expected)
    assert ours.is_contiguous()
    for bad in ([0.1, 0.2], [0.0, 1.0, 1.0]):
        with pytest.raises(UserError, match="PIXEL_STD"):
            ToNormalizedTensor(mean, bad)


def test_bad_transforms() -> None:
    with pytest.raises(UserError, match='did you mean "random_flip"'):
        build_transform(transform_config("randomflip"))
    cfg = transform_config("random_flip")
    cfg.INPUT.INTERPOLATION = "cubic"
    with pytest.raises(UserError, match='did you mean "bicubic"'):
        build_transform(cfg)
    cfg = transform_config("gaussian_blur")
    cfg.INPUT.GB_K = 4
    with pytest.raises(UserError, match="odd"):
        build_transform(cfg)
    cfg.INPUT.NO_TRANSFORM = True
    assert build_transform(cfg) is None


def epoch_batches(manager: DataManager, epoch: int) -> list[dict[str, Any]]:
    set_loader_epoch(manager.train_loader_x, epoch)
    return list(manager.train_loader_x)


def same(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> bool:
    pairs = list(zip(first, second, strict=True))
    return all(a["impath"] == b["impath"] and torch.equal(a["img"], b["img"]) for a, b in pairs)


def test_batches_have_dassls_entries(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manager = DataManager(toy_config(root, root))
    printed = capsys.readouterr().out
    for line in ("Dataset    Squares", "# classes  4", "# train_x  16", "# val      12"):
        assert line in printed
    batch = next(iter(manager.train_loader_x))
    assert set(batch) == {"img", "label", "domain", "impath", "index"}
    assert batch["img"].shape == (4, 3, 16, 16)
    assert batch["label"].dtype == torch.int64
    items = manager.dataset.train_x
    assert [items[i].impath for i in batch["index"]] == batch["impath"]
    assert [items[i].label for i in batch["index"]] == batch["label"].tolist()
    assert sum(len(batch["label"]) for batch in manager.test_loader) == 12
    assert manager.train_loader_u is None
    assert (manager.num_classes, manager.lab2cname[3]) == (4, "dark grey")


def test_an_epoch_depends_only_on_seed_and_number(root: Path) -> None:
    manager = DataManager(toy_config(root, root))
    epochs = [epoch_batches(manager, epoch) for epoch in range(3)]
    assert not same(epochs[0], epochs[1])
    random.seed(99)
    torch.manual_seed(99)
    again = DataManager(toy_config(root, root))
    assert same(epoch_batches(again, 2), epochs[2])
    second_pass = list(again.train_loader_x)
    assert not same(second_pass, epochs[2])
    # Another seed on the same items: few-shot items come from the seed, too, so take all images.
    first, second = (
        DataManager(toy_config(root, root, "DATASET.NUM_SHOTS", "-1", "SEED", seed))
        for seed in ("1", "2")
    )
    assert not same(epoch_batches(first, 0), epoch_batches(second, 0))


def test_loading_does_not_draw_from_the_global_generators(root: Path) -> None:
    manager = DataManager(toy_config(root, root))
    before = random.getstate(), torch.get_rng_state()
    epoch_batches(manager, 0)
    list(manager.test_loader)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_workers_and_the_image_cache_do_not_change_batches(root: Path) -> None:
    cached = DataManager(toy_config(root, root))
    plain = DataManager(toy_config(root, root, "DATALOADER.CACHE_MB", "0"))
    workers = DataManager(toy_config(root, root, "DATALOADER.NUM_WORKERS", "2"))
    for epoch in (0, 1):
        expected = epoch_batches(plain, epoch)
        assert same(epoch_batches(cached, epoch), expected)
        assert same(epoch_batches(workers, epoch), expected)
    assert len(cached.train_loader_x.dataset._cache) == 16
    assert not plain.train_loader_x.dataset._cache
    index = pickle.loads(pickle.dumps(SeededIndex(3, 2**62)))  # as workers get it
    assert (index, index.seed) == (3, 2**62)


def test_several_views_and_the_original_image(root: Path) -> None:
    opts = ("DATALOADER.K_TRANSFORMS", "3", "DATALOADER.RETURN_IMG0", "True")
    manager = DataManager(toy_config(root, root, *opts))
    item = manager.train_loader_x.dataset[SeededIndex(0, 5)]
    assert {"img", "img2", "img3", "img0"} <= set(item)
    assert not torch.equal(item["img"], item["img2"])
    assert item["img0"].shape == item["img"].shape


def test_custom_transforms_and_wrapper(root: Path) -> None:
    class Marked(DatasetWrapper):
        def __getitem__(self, idx: int) -> dict[str, Any]:
            return {**super().__getitem__(idx), "marked": True}

    to_tensor = T.Compose([T.Resize((8, 8)), T.ToTensor()])
    manager = DataManager(
        toy_config(root, root),
        custom_tfm_train=[to_tensor, to_tensor],
        custom_tfm_test=to_tensor,
        dataset_wrapper=Marked,
    )
    batch = next(iter(manager.train_loader_x))
    assert batch["img2"].shape == (4, 3, 8, 8)
    assert batch["marked"].all()


def domains(n_domains: int = 3, count: int = 8) -> list[Datum]:
    return [Datum(f"{d}/{i}", i % 4, d) for d in range(n_domains) for i in range(count)]


@pytest.mark.parametrize(
    ("name", "n_domain", "expected"),
    [("RandomDomainSampler", 2, 2), ("RandomDomainSampler", 0, 3), ("SeqDomainSampler", 0, 3)],
)
def test_domain_samplers(name: str, n_domain: int, expected: int) -> None:
    data = domains()
    sampler = build_sampler(name, data_source=data, batch_size=6, n_domain=n_domain)
    order = list(sampler)
    assert len(order) % 6 == 0
    assert len(set(order)) == len(order) > 0
    for start in range(0, len(order), 6):
        drawn = [data[i].domain for i in order[start : start + 6]]
        assert {drawn.count(d) for d in set(drawn)} == {6 // expected}
        if name == "SeqDomainSampler":
            assert drawn == sorted(drawn)
    with pytest.raises(UserError, match="cannot be divided"):
        build_sampler(name, data_source=data, batch_size=7)


def test_class_sampler() -> None:
    data = domains()
    sampler = build_sampler("RandomClassSampler", data_source=data, batch_size=6, n_ins=3)
    for epoch in range(5):
        sampler.set_epoch(epoch)
        assert len(sampler) == len(list(sampler))
    order = list(sampler)
    for start in range(0, len(order), 3):
        assert len({data[i].label for i in order[start : start + 3]}) == 1
    with pytest.raises(UserError, match="N_INS"):
        build_sampler("RandomClassSampler", data_source=data, batch_size=6, n_ins=7)


def test_bad_loaders(root: Path) -> None:
    cfg = toy_config(root, root)
    with pytest.raises(UserError, match="no images"):
        build_data_loader(cfg, data_source=[])
    with pytest.raises(UserError, match='"Random" is unknown'):
        build_data_loader(cfg, "Random", data_source=domains())
    opts = ("DATALOADER.K_TRANSFORMS", "2", "INPUT.NO_TRANSFORM", "True")
    with pytest.raises(UserError, match="K_TRANSFORMS"):
        DataManager(toy_config(root, root, *opts))
