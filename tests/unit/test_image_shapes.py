"""Pictures of any shape are resized in bounded memory, bit for bit as by torchvision."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as T
from torchvision.transforms import InterpolationMode

from dassl.config import load_config
from dassl.data.transforms import INTERPOLATION_MODES, bounded, build_transform
from dassl.data.transforms.bounded import CentreOfStrip, RandomCrop, Resize

MODES = list(INTERPOLATION_MODES.values())
ORDINARY = [(30, 20), (500, 300), (224, 224), (1, 1), (2000, 7), (7, 2000)]
STRIPS = [(4000, 3), (3, 4000), (5000, 1), (1, 4999), (4001, 2)]
GEOMETRIES = ("", "random_resized_crop", "random_crop", "random_translation", "center_crop")


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def gradient(width: int, height: int) -> Image.Image:
    """From black to white along the long side, and another colour across."""
    image = Image.linear_gradient("L").resize((width, height), Image.Resampling.BICUBIC)
    if width > height:
        turned = Image.linear_gradient("L").transpose(Image.Transpose.ROTATE_90)
        image = turned.resize((width, height), Image.Resampling.BICUBIC)
    return Image.merge("RGB", (image, image.point(lambda value: 255 - value), image))


def centred(mode: InterpolationMode) -> list[Any]:
    return [T.Resize(32, mode), T.CenterCrop((16, 32))]


def differ(one: Image.Image, other: Image.Image) -> int:
    assert one.size == other.size
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other)).max())


@pytest.mark.parametrize("size", ORDINARY)
@pytest.mark.parametrize("mode", MODES)
def test_ordinary_sizes_equal_torchvision(size: tuple[int, int], mode: InterpolationMode) -> None:
    image = noise(*size)
    expected = T.Compose(centred(mode))(image)
    assert differ(T.Compose([CentreOfStrip(32), *centred(mode)])(image), expected) == 0
    assert differ(Resize((16, 32), mode)(image), T.Resize((16, 32), mode)(image)) == 0


@pytest.mark.parametrize("size", [*ORDINARY, *STRIPS, (50, 40), (58, 48), (20, 45)])
@pytest.mark.parametrize("padding", [0, 4])
def test_random_crops_equal_torchvision(size: tuple[int, int], padding: int) -> None:
    image = noise(*size)
    for seed in range(5):
        torch.manual_seed(seed)
        expected = T.RandomCrop((40, 50), padding=padding, pad_if_needed=True)(image)
        torch.manual_seed(seed)
        assert differ(RandomCrop((40, 50), padding)(image), expected) == 0


@pytest.mark.parametrize("size", STRIPS)
@pytest.mark.parametrize("mode", MODES)
def test_strips_equal_torchvision_up_to_rounding(
    size: tuple[int, int], mode: InterpolationMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = gradient(*size)
    whole = T.Compose(centred(mode))(image)
    fixed = T.Resize((16, 32), mode)(image)
    monkeypatch.setattr(bounded, "LARGEST", 32 * 32 * 20)
    assert CentreOfStrip(32)(image).size != image.size
    assert differ(T.Compose([CentreOfStrip(32), *centred(mode)])(image), whole) <= 1
    assert differ(Resize((16, 32), mode)(image), fixed) <= 2


@pytest.mark.slow
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("size", [(20_000_000, 1), (1, 20_000_000), (3, 5_000_000)])
def test_every_geometry_takes_every_strip(geometry: str, size: tuple[int, int]) -> None:
    names = [*filter(None, [geometry]), "normalize"]
    image = Image.new("RGB", size, (7, 7, 7))
    for interpolation in INTERPOLATION_MODES:
        opts: list[Any] = ["INPUT.TRANSFORMS", names, "INPUT.INTERPOLATION", interpolation]
        cfg = load_config(opts=opts)
        for is_train in (True, False):
            transform = build_transform(cfg, is_train)
            assert transform is not None and transform(image).shape == (3, 224, 224)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_memory_is_bounded() -> None:
    """In a process that may use 1.5 GB more than after its imports."""
    script = """
import resource, torch
from PIL import Image
from dassl.config import load_config
from dassl.data.transforms import build_transform
torch.set_num_threads(1)
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 1536 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for size in ((20_000_000, 1), (1, 20_000_000)):
    image = Image.new("RGB", size)
    for geometry in (GEOMETRIES):
        names = [*filter(None, [geometry]), "normalize"]
        for train in (True, False):
            build_transform(load_config(opts=["INPUT.TRANSFORMS", names]), train)(image)
""".replace("GEOMETRIES", repr(GEOMETRIES))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
