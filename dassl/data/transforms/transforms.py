"""Construction of the transforms that a configuration names."""

from collections.abc import Callable, Sequence
from typing import Any

from torchvision import transforms as T
from torchvision.transforms import InterpolationMode

from safeio.errors import UserError

from ...config import Config
from ...utils import check_availability
from .bounded import CentreOfStrip, RandomCrop, Resize
from .custom import (
    Cutout,
    GaussianNoise,
    InstanceNormalization,
    Random2DTranslation,
    ToNormalizedTensor,
)

INTERPOLATION_MODES = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST,
}

AVAI_CHOICES = [
    "random_flip",
    "random_resized_crop",
    "normalize",
    "instance_norm",
    "random_crop",
    "random_translation",
    "center_crop",
    "cutout",
    "imagenet_policy",
    "cifar10_policy",
    "svhn_policy",
    "randaugment",
    "randaugment_fixmatch",
    "gaussian_noise",
    "colorjitter",
    "randomgrayscale",
    "gaussian_blur",
]

_POLICIES = {
    "imagenet_policy": T.AutoAugmentPolicy.IMAGENET,
    "cifar10_policy": T.AutoAugmentPolicy.CIFAR10,
    "svhn_policy": T.AutoAugmentPolicy.SVHN,
}


def interpolation_mode(cfg: Config) -> InterpolationMode:
    """Return the interpolation that the configuration names.

    Raises:
        UserError: the name is unknown.
    """
    check_availability(cfg.INPUT.INTERPOLATION, list(INTERPOLATION_MODES), "INPUT.INTERPOLATION")
    return INTERPOLATION_MODES[cfg.INPUT.INTERPOLATION]


def build_transform(
    cfg: Config, is_train: bool = True, choices: Sequence[str] | None = None
) -> Callable[[Any], Any] | None:
    """Build the transform from a PIL image to a tensor (3, H, W).

    Args:
        cfg: its INPUT group is read.
        is_train: whether to augment; otherwise resize and crop the centre.
        choices: names of transforms; default cfg.INPUT.TRANSFORMS.

    Returns:
        The transform; None if cfg.INPUT.NO_TRANSFORM is set.

    Raises:
        UserError: a transform or the interpolation is unknown.
    """
    if cfg.INPUT.NO_TRANSFORM:
        print("Note: no transform is applied")
        return None
    names = list(cfg.INPUT.TRANSFORMS if choices is None else choices)
    for name in names:
        check_availability(name, AVAI_CHOICES, "INPUT.TRANSFORMS")
    steps = _train_steps(cfg, names) if is_train else _test_steps(cfg)
    steps.append(to_tensor(cfg, names))
    if "instance_norm" in names:
        steps.append(InstanceNormalization())
    if is_train and "gaussian_noise" in names:
        steps.append(GaussianNoise(cfg.INPUT.GN_MEAN, cfg.INPUT.GN_STD))
    if is_train and "cutout" in names:
        steps.append(Cutout(cfg.INPUT.CUTOUT_N, cfg.INPUT.CUTOUT_LEN))
    return T.Compose(steps)


def to_tensor(cfg: Config, names: Sequence[str]) -> Callable[[Any], Any]:
    """Return the conversion to a tensor, with normalisation if `names` contains "normalize"."""
    if "normalize" in names:
        return ToNormalizedTensor(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD)
    return T.ToTensor()


def _test_steps(cfg: Config) -> list[Any]:
    size = tuple(cfg.INPUT.SIZE)
    return [
        CentreOfStrip(max(size)),
        T.Resize(max(size), interpolation=interpolation_mode(cfg)),
        T.CenterCrop(size),
    ]


def _geometry_steps(cfg: Config, names: Sequence[str]) -> list[Any]:
    """Return the steps that resize or crop an image to INPUT.SIZE."""
    size = tuple(cfg.INPUT.SIZE)
    mode = interpolation_mode(cfg)
    if "random_resized_crop" in names:
        return [T.RandomResizedCrop(size, scale=tuple(cfg.INPUT.RRCROP_SCALE), interpolation=mode)]
    if "random_crop" in names:
        return [RandomCrop(size, cfg.INPUT.CROP_PADDING)]
    if "random_translation" in names:
        return [Random2DTranslation(size[0], size[1], interpolation=mode)]
    if "center_crop" in names:
        return _test_steps(cfg)
    return [Resize(size, interpolation=mode)]


def _train_steps(cfg: Config, names: Sequence[str]) -> list[Any]:
    inp = cfg.INPUT
    steps = _geometry_steps(cfg, names)
    if "random_flip" in names:
        steps.append(T.RandomHorizontalFlip())
    steps += [T.AutoAugment(policy) for name, policy in _POLICIES.items() if name in names]
    if "randaugment" in names or "randaugment_fixmatch" in names:
        steps.append(T.RandAugment(inp.RANDAUGMENT_N, inp.RANDAUGMENT_M))
    if "colorjitter" in names:
        jitter = T.ColorJitter(
            brightness=inp.COLORJITTER_B,
            contrast=inp.COLORJITTER_C,
            saturation=inp.COLORJITTER_S,
            hue=inp.COLORJITTER_H,
        )
        steps.append(jitter)
    if "randomgrayscale" in names:
        steps.append(T.RandomGrayscale(p=inp.RGS_P))
    if "gaussian_blur" in names:
        if inp.GB_K % 2 == 0:
            raise UserError(f"INPUT.GB_K, the size of the blur kernel, must be odd, not {inp.GB_K}")
        steps.append(T.RandomApply([T.GaussianBlur(inp.GB_K)], p=inp.GB_P))
    return steps
