"""Finds a CLIP's weights in a checkpoint's content, and brings them to OpenAI's key names."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .config import is_weight
from .errors import WeightsError
from .hugging_face import from_hugging_face, is_hugging_face
from .inert_pickle import class_of, is_mapping

OPENAI_LAYOUT, HUGGING_FACE_LAYOUT = "OpenAI", "Hugging Face"
# Names of the weights in training programs' checkpoints, and "" for the checkpoint itself; where
# there are several, the first one here is taken: what was trained before its moving average.
WRAPPERS = (
    *("state_dict", "model_state_dict", "model", "net", "module", ""),
    *("state_dict_ema", "model_ema", "ema"),
)
# What only a CLIP's names have, and so shows where they begin.
_BEGIN = re.compile(
    r"(?P<prefix>.*?)(visual\.(conv1|class_embedding|positional_embedding|proj$|ln_p|transformer|"
    r"layer1|attnpool)|(vision|text)_model\.)"
)
# PyTorch puts these before the names of modules that it compiles, shards or checkpoints.
_INSERTED = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# What other files' names of tensors show; the first that fits counts.
_OTHERS = (
    (r"(^|\.)lora_|\.lora_", "adapters (LoRA), not a model's weights; merge them into the model"),
    (r"^visual\.trunk\.", "an open_clip model with timm's image tower"),
    (r"^text\.transformer\.(embeddings|encoder)\.", "an open_clip model with another text tower"),
    (r"^text_decoder\.", "a CoCa model"),
    (r"^text_model\.roberta\.", "an AltCLIP model"),
    (r"^text_model\.(embeddings\.word_embeddings|encoder\.layer\.)", "a Chinese-CLIP model"),
    (r"^bert\.", "a Chinese-CLIP model"),
    (r"^(vision_model\.head|text_model\.head|visual\.attn_pool)\.", "a SigLIP or CoCa model"),
    (r"^(embeddings|encoder\.layers)\.", "one tower of a CLIP without the other"),
    (
        r"^(prompt_learner\.|ctx$|token_(prefix|suffix)$)",
        "a prompt learner, which --model-dir takes",
    ),
)


@dataclass(frozen=True)
class Weights:
    """A CLIP's tensors, and how they were found.

    Attributes:
        tensors: with OpenAI's key names.
        layout: whose names the file had.
        wrapper: the entry of the checkpoint that holds them, such as "state_dict"; or nothing.
        prefix: what stood before every name; or nothing.
    """

    tensors: dict[str, Tensor]
    layout: str = OPENAI_LAYOUT
    wrapper: str = ""
    prefix: str = ""


def find_weights(content: Any) -> Weights:
    """The weights in a checkpoint's content.

    They may stand below one or two entries of any name, and behind one prefix that all names share.
    Names may be OpenAI's, open_clip's (also with a custom text tower) or those of Hugging Face's
    transformers; settings that published files hold as tensors are dropped.

    Raises:
        WeightsError: the content holds no whole CLIP, or something else; it says what.
    """
    wrapper, named = _unwrap(content)
    plain = {_INSERTED.sub("", key): value for key, value in named.items()}
    if len(plain) < len(named):
        raise WeightsError("It holds entries twice, with and without what PyTorch puts before.")
    prefix, named = _without_prefix(plain)
    _refuse_others(named)
    tensors = {key: value for key, value in named.items() if is_weight(key)}
    strange = [key for key, value in tensors.items() if not isinstance(value, Tensor)]
    if strange:
        raise WeightsError(
            f"It is not the state dict of a CLIP: {strange[0][:100]!r} is no tensor, but an object "
            f"of {class_of(tensors[strange[0]])[:100]}."
        )
    layout = HUGGING_FACE_LAYOUT if is_hugging_face(tensors) else OPENAI_LAYOUT
    if layout == HUGGING_FACE_LAYOUT:
        tensors = from_hugging_face(tensors)
    return Weights(_of_one_shape(_plain_text(tensors)), layout, wrapper, prefix)


def _unwrap(content: Any) -> tuple[str, dict[str, Any]]:
    """The mapping of names to tensors that is a CLIP's, or most like one, and its place."""
    if not is_mapping(content):
        raise WeightsError(
            f"It holds an object of {class_of(content)[:100]}, not a state dict; save the "
            "model's state_dict() instead."
        )
    found = dict(_mappings(content, set()))
    likely = sorted((place for place in found if _prefix(found[place]) is not None), key=_order)
    if len(likely) > 1 and _order(likely[0]) == _order(likely[1]):
        raise WeightsError(
            f"It holds several CLIPs ({', '.join(map(repr, likely))[:300]}); save the state dict "
            "of one of them alone."
        )
    for place in likely or sorted(found, key=_order):
        if found[place]:
            return place, found[place]
    raise WeightsError("It holds no state dict, that is no mapping from names to tensors.")


def _mappings(
    content: Mapping[Any, Any], seen: set[int], levels: int = 2
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The mappings in a checkpoint, each once, by the names of the entries that hold them."""
    seen.add(id(content))
    yield "", {str(key): value for key, value in content.items()}
    for key, value in content.items() if levels else ():
        if is_mapping(value) and id(value) not in seen:
            for name, inner in _mappings(value, seen, levels - 1):
                yield f"{key}.{name}".removesuffix("."), inner


def _order(place: str) -> list[int]:
    """The ranks of the names that lead to a place; all unknown names have the last one."""
    known = {name: number for number, name in enumerate(WRAPPERS)}
    return [known.get(name, len(known)) for name in place.split(".")]


def _prefix(named: Mapping[str, Any]) -> str | None:
    """What stands before the names of a CLIP; None where there is no CLIP."""
    found = [match.group("prefix") for key in named if (match := _BEGIN.match(key))]
    return max(found, default=None)


def _without_prefix(named: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    prefix = _prefix(named) or ""
    others = [key for key in named if not key.startswith(prefix)]
    if others:
        raise WeightsError(
            f"It is no plain CLIP: its entries begin with {prefix[:100]!r}, but "
            f"{others[0][:100]!r} does not; save the state dict of the CLIP in it alone."
        )
    return prefix, {key.removeprefix(prefix): value for key, value in named.items()}


def _refuse_others(named: Mapping[str, Any]) -> None:
    for pattern, what in _OTHERS:
        for key in named:
            if re.search(pattern, key):
                raise WeightsError(f"It holds {what}: it has the entry {key[:100]!r}.")


def _plain_text(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the `text.` that open_clip puts before its custom text towers' names."""
    plain = {key.removeprefix("text."): value for key, value in tensors.items()}
    if len(plain) < len(tensors):
        raise WeightsError("It holds two text towers, with and without 'text.' before the names.")
    return plain


def _of_one_shape(named: dict[str, Tensor]) -> dict[str, Tensor]:
    projection = named.get("text_projection.weight")
    if projection is not None and projection.dim() == 2:  # open_clip can hold it as a linear layer
        named["text_projection"] = named.pop("text_projection.weight").t()
    if named.get("logit_scale", torch.empty(0)).numel() == 1:
        named["logit_scale"] = named["logit_scale"].reshape(())
    return named
