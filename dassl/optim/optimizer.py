"""Optimisers by name."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from safeio.errors import UserError

from ..config import Config
from ..utils import check_availability

AVAI_OPTIMS = ["adam", "amsgrad", "sgd", "rmsprop", "radam", "adamw"]


def build_optimizer(
    model: nn.Module | Iterable[Any], optim_cfg: Config, param_groups: Iterable[Any] | None = None
) -> torch.optim.Optimizer:
    """Create the optimiser of a configuration.

    Args:
        model: a module, or parameters or parameter groups.
        optim_cfg: cfg.OPTIM: NAME, LR, WEIGHT_DECAY and the optimiser's own keys. With STAGED_LR,
            the rate is LR for the children in NEW_LAYERS and LR * BASE_LR_MULT for all others.
        param_groups: optimise these instead of the model's parameters.

    Raises:
        UserError: the name is unknown, or STAGED_LR is used without a module.
    """
    check_availability(optim_cfg.NAME, AVAI_OPTIMS, "OPTIM.NAME")
    params: Any = param_groups
    if params is None and optim_cfg.STAGED_LR:
        params = _staged_groups(model, optim_cfg)
    elif params is None:
        params = model.parameters() if isinstance(model, nn.Module) else model
    common = {"lr": optim_cfg.LR, "weight_decay": optim_cfg.WEIGHT_DECAY}
    betas = (optim_cfg.ADAM_BETA1, optim_cfg.ADAM_BETA2)
    if optim_cfg.NAME == "sgd":
        return torch.optim.SGD(
            params,
            momentum=optim_cfg.MOMENTUM,
            dampening=optim_cfg.SGD_DAMPNING,
            nesterov=optim_cfg.SGD_NESTEROV,
            **common,
        )
    if optim_cfg.NAME == "rmsprop":
        return torch.optim.RMSprop(
            params, momentum=optim_cfg.MOMENTUM, alpha=optim_cfg.RMSPROP_ALPHA, **common
        )
    if optim_cfg.NAME == "amsgrad":
        return torch.optim.Adam(params, betas=betas, eps=optim_cfg.ADAM_EPS, amsgrad=True, **common)
    classes: dict[str, Any] = {
        "adam": torch.optim.Adam,
        "radam": torch.optim.RAdam,
        "adamw": torch.optim.AdamW,
    }
    return classes[optim_cfg.NAME](params, betas=betas, eps=optim_cfg.ADAM_EPS, **common)


def _staged_groups(model: Any, optim_cfg: Config) -> list[dict[str, Any]]:
    if not isinstance(model, nn.Module):
        raise UserError("OPTIM.STAGED_LR needs a module with named layers, not parameters")
    new_layers = optim_cfg.NEW_LAYERS
    names = [new_layers] if isinstance(new_layers, str) else list(new_layers)
    children = dict(model.named_children())
    for name in names:
        check_availability(name, list(children), "OPTIM.NEW_LAYERS")
    base = [p for name, child in children.items() if name not in names for p in child.parameters()]
    new = [p for name in names for p in children[name].parameters()]
    groups = [
        {"params": base, "lr": optim_cfg.LR * optim_cfg.BASE_LR_MULT},
        {"params": new, "lr": optim_cfg.LR},
    ]
    return [group for group in groups if group["params"]]
