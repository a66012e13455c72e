"""Check that a checkpoint's adapters fit a run; class names do not matter."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from clip.weights import LoadedCLIP
from dassl.config import CfgNode
from safeio.errors import UserError
from safeio.untrusted import short_repr

from .lora import Adapters, depths_of
from .prompt_checkpoints import IGNORE_MISMATCH
from .prompt_fit import SETTINGS, backbone_fault
from .prompt_metadata import describe_clip

ADAPTER_FILE = "adapters.safetensors"
FACTS = "adapters"  # key of the facts in a checkpoint
# Facts that must equal those of the training: name in messages and configuration key.
_FACTS = {
    "encoder": ("the adapted encoder", "ENCODER"),
    "params": ("the adapted projections", "PARAMS"),
    "blocks": ("the adapted blocks", "POSITION, BLOCKS"),
    "r": ("the rank", "R"),
    "alpha": ("alpha", "ALPHA"),
    "scaling": ("the scaling", "SCALING"),
    "dropout": ("the dropout", "DROPOUT"),
}
_MODEL_FACTS = ("activation", "text_heads", "image_heads")


def adapter_facts(cfg: CfgNode, loaded: LoadedCLIP, adapters: Adapters) -> dict[str, Any]:
    """Return what a checkpoint of adapters states beside A and B."""
    settings, depths = adapters.settings, depths_of(loaded.model)
    return {
        **describe_clip(cfg, loaded),
        "encoder": settings.encoder,
        "params": [name for name in "qkvo" if name in settings.params],
        "position": "" if settings.blocks else settings.position,
        "blocks": {t: settings.blocks_of(t, depths[t]) for t in settings.towers},
        "r": settings.r,
        "alpha": settings.alpha,
        "scaling": settings.scaling,
        "dropout": settings.dropout,
        "gamma": settings.gamma,
    }


def check_adapters(
    path: Path, state: Mapping[str, Any], weights: Any, trainer: Any, ignore: bool = False
) -> str:
    """Check that the adapters of a checkpoint fit the trainer's.

    Args:
        path: the checkpoint, for the message.
        state: its content, with the facts.
        weights: contains its `state_dict`.
        trainer: a `LoRATrainer`.
        ignore: warn instead of raising if only the shapes fit.

    Returns:
        The ignored mismatch; "" if there is none.

    Raises:
        UserError: names what differs.
    """
    tensors = weights.get("state_dict") if isinstance(weights, Mapping) else None
    if not isinstance(tensors, Mapping):
        return ""
    recorded = state.get(FACTS)
    faults = _faults(recorded if isinstance(recorded, Mapping) else {}, trainer)
    own = trainer.adapters.state_dict()
    fits = set(tensors) == set(own) and all(
        isinstance(value, Tensor) and value.shape == own[name].shape
        for name, value in tensors.items()
    )
    if not fits and not faults:
        odd = sorted(set(tensors) ^ set(own))
        faults = [f"adapters differ in {short_repr(odd[0])}" if odd else "their shapes differ"]
    if not faults:
        return ""
    fault = f'adapters in "{path}" do not fit: {", and ".join(faults)}'
    if not (fits and ignore):
        hint = f", or add {IGNORE_MISMATCH} to test them anyway" if fits else ""
        raise UserError(f"The {fault}; use the settings that they were learned with{hint}")
    print(f"Warning: the {fault}")
    return fault


def _faults(trained: Mapping[str, Any], trainer: Any) -> list[str]:
    """Describe the facts that differ; those that are not recorded are not compared."""
    here, model = trainer.facts, trainer.loaded_clip.model
    backbone = backbone_fault(trained, here, {}, model) if trained else ""
    names = {key: (name, f"TRAINER.{trainer.node}.{k}") for key, (name, k) in _FACTS.items()}
    names |= {key: SETTINGS[key] for key in _MODEL_FACTS}
    return [backbone] * bool(backbone) + [
        f"{name} was {short_repr(trained[key])} in training and is {here[key]!r} now ({setting})"
        for key, (name, setting) in names.items()
        if key in trained and trained[key] != here[key]
    ]
