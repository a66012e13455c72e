"""Helpers for modules: freeze, count and initialise parameters; also the checkpoint functions."""

from collections.abc import Sequence

import torch
from torch import nn

from .checkpoint import load_checkpoint, load_pretrained_weights
from .checkpoint_folder import resume_from_checkpoint, save_checkpoint

__all__ = [
    "adjust_learning_rate",
    "count_num_param",
    "init_network_weights",
    "load_checkpoint",
    "load_pretrained_weights",
    "open_all_layers",
    "open_specified_layers",
    "resume_from_checkpoint",
    "save_checkpoint",
    "set_bn_to_eval",
]


def adjust_learning_rate(
    optimizer: torch.optim.Optimizer,
    base_lr: float,
    epoch: int,
    stepsize: int = 20,
    gamma: float = 0.1,
    linear_decay: bool = False,
    final_lr: float = 0,
    max_epoch: int = 100,
) -> None:
    """Set the learning rate of all parameter groups for an epoch, without a scheduler.

    Args:
        optimizer: changed in place.
        base_lr: the learning rate in epoch 0.
        epoch: the epoch, from 0.
        stepsize: number of epochs after which the rate is multiplied by `gamma`.
        gamma: see `stepsize`.
        linear_decay: decay linearly from `base_lr` to `final_lr` instead.
        final_lr: the learning rate in epoch `max_epoch`.
        max_epoch: see `final_lr`.
    """
    done = epoch / max_epoch
    steps = base_lr * gamma ** (epoch // stepsize)
    lr = (1 - done) * base_lr + done * final_lr if linear_decay else steps
    for group in optimizer.param_groups:
        group["lr"] = lr


def set_bn_to_eval(m: nn.Module) -> None:
    """Freeze the statistics of a BatchNorm module; for `model.apply(set_bn_to_eval)`."""
    if isinstance(m, nn.modules.batchnorm._BatchNorm):
        m.eval()


def open_all_layers(model: nn.Module) -> None:
    """Make all parameters trainable and set the model to training mode."""
    model.train()
    model.requires_grad_(True)


def open_specified_layers(model: nn.Module, open_layers: str | Sequence[str]) -> None:
    """Make the named direct children trainable; freeze all others and set them to eval mode.

    Raises:
        ValueError: the model has no child of this name.
    """
    names = [open_layers] if isinstance(open_layers, str) else list(open_layers)
    children = dict(model.named_children())
    for name in names:
        if name not in children:
            raise ValueError(f'"{name}" is not a layer of the model; it has {list(children)}')
    for name, child in children.items():
        child.train(name in names)
        child.requires_grad_(name in names)


def count_num_param(
    model: nn.Module | None = None, params: nn.Parameter | Sequence[nn.Parameter] | None = None
) -> int:
    """Return the number of parameters of a model or in a list of tensors.

    Raises:
        ValueError: both arguments are None.
    """
    if model is not None:
        return sum(p.numel() for p in model.parameters())
    if isinstance(params, nn.Parameter):
        return params.numel()
    if params is not None:
        return sum(p.numel() for p in params)
    raise ValueError("count_num_param() needs a model or parameters")


def _init_weight(weight: torch.Tensor, init_type: str, gain: float) -> None:
    if init_type == "normal":
        nn.init.normal_(weight, 0.0, gain)
    elif init_type == "xavier":
        nn.init.xavier_normal_(weight, gain=gain)
    elif init_type == "kaiming":
        nn.init.kaiming_normal_(weight, a=0, mode="fan_in")
    elif init_type == "orthogonal":
        nn.init.orthogonal_(weight, gain=gain)
    else:
        raise ValueError(f'"{init_type}" is not one of normal, xavier, kaiming, orthogonal')


def init_network_weights(model: nn.Module, init_type: str = "normal", gain: float = 0.02) -> None:
    """Initialise convolutions and linear layers; normalisations get weight N(1, gain), bias 0.

    `init_type` is normal (`gain` is the standard deviation), xavier, kaiming or orthogonal.

    Raises:
        ValueError: `init_type` is unknown.
    """
    norms = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if weight is None:
            continue
        if isinstance(module, norms):
            nn.init.normal_(weight, 1.0, gain)
        elif isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            _init_weight(weight, init_type, gain)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
