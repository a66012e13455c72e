"""Whether prompts fit the backbone, the settings and the classes that they are tested with.

Where a checkpoint does not name its classes, as CoOp's own do not, the embeddings of the class
names that it saves beside its prompts identify them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip.clip import tokenize
from clip.config import canonical_name
from clip.model import CLIP
from clip.prompt_layout import clean_classname
from clip.simple_tokenizer import START, tokenizer
from safeio.untrusted import one_line, short_repr

from .prompt_learner import CLASSNAME_BUFFERS
from .prompt_origin import FINGERPRINTS

# What must be the same as in training, as it stands in the metadata: how it is called, and which
# setting decides.
SETTINGS = {
    "class_token_position": ("the class token position", "TRAINER.{node}.CLASS_TOKEN_POSITION"),
    "activation": ("the activation", "MODEL.CLIP.ACTIVATION"),
    "text_heads": ("the number of text heads", "MODEL.CLIP.TEXT_HEADS"),
    "class_specific": ("a prompt for each class (CSC)", "TRAINER.{node}.CSC"),
    "image_heads": ("the number of image heads", "MODEL.CLIP.VISION_HEADS"),
}


PREFIX, SUFFIX = CLASSNAME_BUFFERS
NAMES_SHOWN = 3


@dataclass(frozen=True)
class Fit:
    """How a checkpoint's prompts fit.

    Attributes:
        rows: number of the class-specific prompt of each class; None takes all in order.
        mismatch: what does not fit, in words; empty if everything does.
    """

    rows: list[int] | None = None
    mismatch: str = ""


def fit_prompts(
    origin: Mapping[str, Any],
    here: Mapping[str, Any],
    weights: Mapping[str, Any],
    model: CLIP,
    node: str,
) -> Fit:
    """Compare where prompts come from with what they are tested with.

    Args:
        origin: of `read_origin`.
        here: of `describe_prompts`, and "data" as `data_of` has it.
        weights: the checkpoint's tensors, `ctx` among them.
        model: the CLIP that they are tested with.
        node: name of the method's configuration node.
    """
    faults = []
    if fault := _backbone_fault(origin, here, weights, model):
        faults.append(fault)
    for key, (name, setting) in SETTINGS.items():
        if key in origin and origin[key] != here[key]:
            where = setting.format(node=node)
            faults.append(
                f"{name} was {short_repr(origin[key])} in training and is {here[key]} now ({where})"
            )
    rows = None
    if here["class_specific"]:
        rows, fault = _match_classes(origin, here, weights, model)
        faults += [fault] if fault else []
    return Fit(rows, ", and ".join(faults))


def _backbone_fault(
    origin: Mapping[str, Any], here: Mapping[str, Any], weights: Mapping[str, Any], model: CLIP
) -> str:
    """Say that these are other weights than in training; empty if they are not, or nobody knows."""
    keys = ("weights_sha256", *FINGERPRINTS)
    known = [key for key in keys if origin.get(key) and here.get(key)]
    if known:
        same = any(origin[key] == here[key] for key in known)
    elif "backbone" in origin:
        same = _backbone_key(origin["backbone"]) == _backbone_key(here["backbone"])
    else:
        same = _same_embedding(weights, model)
    if same:
        return ""
    before = short_repr(origin["backbone"]) if "backbone" in origin else "another one"
    now = here["backbone"]
    if "backbone" in origin and _backbone_key(origin["backbone"]) == _backbone_key(now):
        before, now = f"{before} with other weights", f"{now} with SHA-256 {here[keys[0]][:8]}"
    return f"the backbone was {before} in training and is {now} now (MODEL.BACKBONE.NAME)"


def _backbone_key(name: Any) -> str:
    path = Path(str(name))
    return canonical_name(str(name)) or canonical_name(path.stem) or path.name


def _same_embedding(weights: Mapping[str, Any], model: CLIP) -> bool:
    """Whether the embedding of SOS that CoOp saves is the model's; so it is where there is none."""
    prefix = weights.get(PREFIX)
    if not isinstance(prefix, Tensor) or prefix.dim() != 3 or not prefix.numel():
        return True
    start = model.token_embedding.weight[tokenizer().encoder[START]].detach().cpu()
    saved = prefix[0, 0].float()
    return saved.shape == start.shape and bool(torch.allclose(saved, start.float(), atol=1e-3))


def _match_classes(
    origin: Mapping[str, Any], here: Mapping[str, Any], weights: Mapping[str, Any], model: CLIP
) -> tuple[list[int] | None, str]:
    """Which prompt belongs to which class, or what is wrong with the classes."""
    wanted: list[Any] = [_text_key(name) for name in here["classnames"]]
    learned: list[Any]
    names = origin.get("classnames")
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        learned = [_text_key(name) for name in names]
    elif "data" in origin:
        same = origin["data"] == here["data"]
        before, now = one_line(origin["data"]), here["data"]
        fault = f"the classes were those of {before} in training and are those of {now} now"
        return None, "" if same else fault
    elif isinstance(suffix := weights.get(SUFFIX), Tensor) and suffix.dim() == 3:
        length = weights["ctx"].shape[-2]
        wanted = _suffix_keys(suffix, model, here["classnames"], length)
        learned = [_row_key(row) for row in suffix[: len(weights["ctx"])]]
    else:
        return None, ""
    if len(learned) != len(weights["ctx"]):  # no file of ours; its shape is refused if it must be
        return None, ""
    if learned == wanted:  # whatever they are: two of ImageNet's classes have the same name
        return None, ""
    places: dict[Any, list[int]] = {}
    for row, key in enumerate(learned):
        places.setdefault(key, []).append(row)
    missing = [
        name
        for name, key in zip(here["classnames"], wanted, strict=True)
        if len(places.get(key, ())) != 1
    ]
    if missing:
        return None, (
            "each class has a prompt of its own (CSC), of which there is none, or no single one, "
            f"for {_listed(missing)}"
        )
    return [places[key][0] for key in wanted], ""


def _text_key(name: str) -> tuple[int, ...]:
    """Names with the same key make the same prompt."""
    return tuple(tokenizer().encode(clean_classname(name)))


def _suffix_keys(
    suffix: Tensor, model: CLIP, classnames: Sequence[str], length: int
) -> list[bytes]:
    """What CoOp would save of the class names behind a context of this length."""
    before = " ".join(["X"] * length)
    texts = [f"{before} {clean_classname(name)}." for name in classnames]
    ids = tokenize(texts)[:, 1 + length :][:, : suffix.shape[1]]
    weight = model.token_embedding.weight.detach().cpu()
    return [_row_key(weight[row]) for row in ids]


def _row_key(row: Tensor) -> bytes:
    return row.half().numpy().tobytes()


def _listed(names: Sequence[str]) -> str:
    quoted = [f'"{name}"' for name in names[:NAMES_SHOWN]]
    more = len(names) - len(quoted)
    return ", ".join(quoted) + (f" and {more} more" if more else "")
