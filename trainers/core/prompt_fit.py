"""Compare the metadata of learned prompts with the backbone, settings and classes of this run.

Checkpoints of CoOp's own code do not name their classes; the embeddings of the class names that
they contain (`token_suffix`) identify them.
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
from .prompt_metadata import FINGERPRINTS

# Metadata that must equal those of the training: name in messages and configuration key.
SETTINGS = {
    "class_token_position": ("the class token position", "TRAINER.{node}.CLASS_TOKEN_POSITION"),
    "activation": ("the activation", "MODEL.CLIP.ACTIVATION"),
    "text_heads": ("the number of text heads", "MODEL.CLIP.TEXT_HEADS"),
    "class_specific": ("a prompt for each class (CSC)", "TRAINER.{node}.CSC"),
    "image_heads": ("the number of image heads", "MODEL.CLIP.VISION_HEADS"),
    "insert_layer": ("the layer of the class tokens", "TRAINER.{node}.INSERT_LAYER"),
}

PREFIX, SUFFIX = CLASSNAME_BUFFERS
NAMES_LISTED = 3


@dataclass(frozen=True)
class Fit:
    """Result of `fit_prompts`.

    Attributes:
        rows: index of each class's prompt in the checkpoint; None if the order is the same.
        mismatch: description of what does not fit; empty if everything fits.
    """

    rows: list[int] | None = None
    mismatch: str = ""


def fit_prompts(
    trained: Mapping[str, Any],
    here: Mapping[str, Any],
    weights: Mapping[str, Any],
    model: CLIP,
    node: str,
) -> Fit:
    """Compare the metadata of prompts with the run that loads them.

    Args:
        trained: metadata of the prompts; see `find_metadata`.
        here: metadata of this run, from `describe_prompts`, and "data" from `describe_data`.
        weights: the checkpoint's tensors, including `ctx`.
        model: the CLIP of this run.
        node: name of the method's configuration node.
    """
    faults = []
    if fault := backbone_fault(trained, here, weights, model):
        faults.append(fault)
    for key, (name, setting) in SETTINGS.items():
        if key in trained and trained[key] != here.get(key):
            before, where = short_repr(trained[key]), setting.format(node=node)
            faults.append(f"{name} was {before} in training and is {here.get(key)} now ({where})")
    rows = None
    if here["class_specific"]:
        rows, fault = _match_classes(trained, here, weights, model)
        faults += [fault] if fault else []
    return Fit(rows, ", and ".join(faults))


def backbone_fault(
    trained: Mapping[str, Any], here: Mapping[str, Any], weights: Mapping[str, Any], model: CLIP
) -> str:
    """Describe a change of the backbone's weights; empty if they are the same or unknown."""
    keys = ("weights_sha256", *FINGERPRINTS)
    known = [key for key in keys if trained.get(key) and here.get(key)]
    if known:
        same = any(trained[key] == here[key] for key in known)
    elif "backbone" in trained:
        same = _backbone_key(trained["backbone"]) == _backbone_key(here["backbone"])
    else:
        same = _same_embedding(weights, model)
    if same:
        return ""
    before = short_repr(trained["backbone"]) if "backbone" in trained else "another one"
    now = here["backbone"]
    if "backbone" in trained and _backbone_key(trained["backbone"]) == _backbone_key(now):
        before, now = f"{before} with other weights", f"{now} with SHA-256 {here[keys[0]][:8]}"
    return f"the backbone was {before} in training and is {now} now (MODEL.BACKBONE.NAME)"


def _backbone_key(name: Any) -> str:
    path = Path(str(name))
    return canonical_name(str(name)) or canonical_name(path.stem) or path.name


def _same_embedding(weights: Mapping[str, Any], model: CLIP) -> bool:
    """Return whether the checkpoint's SOS embedding is the model's; True if it contains none."""
    prefix = weights.get(PREFIX)
    if not isinstance(prefix, Tensor) or prefix.dim() != 3 or not prefix.numel():
        return True
    start = model.token_embedding.weight[tokenizer().encoder[START]].detach().cpu()
    saved = prefix[0, 0].float()
    return saved.shape == start.shape and bool(torch.allclose(saved, start.float(), atol=1e-3))


def _match_classes(
    trained: Mapping[str, Any], here: Mapping[str, Any], weights: Mapping[str, Any], model: CLIP
) -> tuple[list[int] | None, str]:
    """Return each class's row in the checkpoint (None: same order), and a mismatch of classes."""
    wanted: list[Any] = [_text_key(name) for name in here["classnames"]]
    learned: list[Any]
    names = trained.get("classnames")
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        learned = [_text_key(name) for name in names]
    elif "data" in trained:
        same = trained["data"] == here["data"]
        before, now = one_line(trained["data"]), here["data"]
        fault = f"the classes were those of {before} in training and are those of {now} now"
        return None, "" if same else fault
    elif isinstance(suffix := weights.get(SUFFIX), Tensor) and suffix.dim() == 3:
        length = weights["ctx"].shape[-2]
        wanted = _suffix_keys(suffix, model, here["classnames"], length)
        learned = [_row_key(row) for row in suffix[: len(weights["ctx"])]]
    else:
        return None, ""
    # A third-party file may have another number of prompts; `_check_shape` reports that. Equal
    # lists fit even with duplicates: two of ImageNet's classes have the same name.
    if len(learned) != len(weights["ctx"]) or learned == wanted:
        return None, ""
    rows: dict[Any, list[int]] = {}
    for row, key in enumerate(learned):
        rows.setdefault(key, []).append(row)
    missing = [
        name
        for name, key in zip(here["classnames"], wanted, strict=True)
        if len(rows.get(key, ())) != 1
    ]
    if missing:
        return None, (
            "the prompts are class-specific (CSC), but the checkpoint has no prompt, or several, "
            f"for {_listed(missing)}"
        )
    return [rows[key][0] for key in wanted], ""


def _text_key(name: str) -> tuple[int, ...]:
    """Return the class name's token ids: names with the same ids give the same prompt."""
    return tuple(tokenizer().encode(clean_classname(name)))


def _suffix_keys(
    suffix: Tensor, model: CLIP, classnames: Sequence[str], length: int
) -> list[bytes]:
    """Return keys of the suffix embeddings that CoOp saves for class names and context length."""
    before = " ".join(["X"] * length)
    texts = [f"{before} {clean_classname(name)}." for name in classnames]
    ids = tokenize(texts)[:, 1 + length :][:, : suffix.shape[1]]
    weight = model.token_embedding.weight.detach().cpu()
    return [_row_key(weight[row]) for row in ids]


def _row_key(row: Tensor) -> bytes:
    return row.half().numpy().tobytes()


def _listed(names: Sequence[str]) -> str:
    quoted = [f'"{name}"' for name in names[:NAMES_LISTED]]
    more = len(names) - len(quoted)
    return ", ".join(quoted) + (f" and {more} more" if more else "")
