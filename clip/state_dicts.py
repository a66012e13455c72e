"""Find the weights of a CLIP in a checkpoint, and convert them to OpenAI's key names."""

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
# Names of the weights in training checkpoints, and "" for the checkpoint itself, in the order of
# preference: trained weights come before their moving average.
WRAPPERS = (
    *("state_dict", "model_state_dict", "model", "net", "module", ""),
    *("state_dict_ema", "model_ema", "ema"),
)
# Matches names that only a CLIP has, to find the prefix before them.
_CLIP_NAME = re.compile(
    r"(?P<prefix>.*?)(visual\.(conv1|class_embedding|positional_embedding|proj$|ln_p|transformer|"
    r"layer1|attnpool)|(vision|text)_model\.)"
)
# PyTorch puts these before the names of modules that it compiles, shards or checkpoints.
_INSERTED = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# Key names of other models, with the model's name; the first match counts.
_OTHER_MODELS = (
    (r"(^|\.)lora_|\.lora_", "adapters (LoRA), not a model's weights; merge them into the model"),
    (r"^visual\.trunk\.", "an open_clip model with timm's image encoder"),
    (r"^text\.transformer\.(embeddings|encoder)\.", "an open_clip model with another text encoder"),
    (r"^text_decoder\.", "a CoCa model"),
    (r"^text_model\.roberta\.", "an AltCLIP model"),
    (r"^text_model\.(embeddings\.word_embeddings|encoder\.layer\.)", "a Chinese-CLIP model"),
    (r"^bert\.", "a Chinese-CLIP model"),
    (r"^(vision_model\.head|text_model\.head|visual\.attn_pool)\.", "a SigLIP or CoCa model"),
    (r"^(embeddings|encoder\.layers)\.", "only one of the encoders of a CLIP"),
    (
        r"^(prompt_learner\.|ctx$|token_(prefix|suffix)$)",
        "a prompt learner, which --model-dir takes",
    ),
)


@dataclass(frozen=True)
class Weights:
    """The tensors of a CLIP, and their place in the checkpoint.

    Attributes:
        tensors: with OpenAI's key names.
        layout: whose key names the file has.
        wrapper: the entry of the checkpoint that contains them, such as "state_dict", or empty.
        prefix: the prefix of every key name, or empty.
    """

    tensors: dict[str, Tensor]
    layout: str = OPENAI_LAYOUT
    wrapper: str = ""
    prefix: str = ""


def find_weights(content: Any) -> Weights:
    """Return the weights in the content of a checkpoint.

    They may be nested in one or two entries of any name, and their names may share one prefix. The
    names may be OpenAI's, open_clip's (also with a custom text encoder) or those of Hugging Face's
    transformers; settings that published files store as tensors are dropped.

    Raises:
        WeightsError: the content is not a whole CLIP; the message states what it is.
    """
    wrapper, named = _unwrap(content)
    original = {_INSERTED.sub("", key): value for key, value in named.items()}
    if len(original) < len(named):
        raise WeightsError("It contains entries twice, with and without a prefix of PyTorch.")
    prefix, named = _remove_prefix(original)
    _refuse_other_models(named)
    tensors = {key: value for key, value in named.items() if is_weight(key)}
    others = [key for key, value in tensors.items() if not isinstance(value, Tensor)]
    if others:
        raise WeightsError(
            f"It is not the state dict of a CLIP: {others[0][:100]!r} is not a tensor, but an "
            f"object of {class_of(tensors[others[0]])[:100]}."
        )
    layout = HUGGING_FACE_LAYOUT if is_hugging_face(tensors) else OPENAI_LAYOUT
    if layout == HUGGING_FACE_LAYOUT:
        tensors = from_hugging_face(tensors)
    return Weights(_match_shapes(_remove_text_prefix(tensors)), layout, wrapper, prefix)


def _unwrap(content: Any) -> tuple[str, dict[str, Any]]:
    """Return the most likely state dict of a CLIP in a checkpoint, and the entry it is in."""
    if not is_mapping(content):
        raise WeightsError(
            f"It contains an object of {class_of(content)[:100]}, not a state dict; save the "
            "model's state_dict() instead."
        )
    found = dict(_mappings(content, set()))
    likely = sorted((path for path in found if _find_prefix(found[path]) is not None), key=_rank)
    if len(likely) > 1 and _rank(likely[0]) == _rank(likely[1]):
        raise WeightsError(
            f"It contains several CLIPs ({', '.join(map(repr, likely))[:300]}); save only the "
            "state dict of one of them."
        )
    for path in likely or sorted(found, key=_rank):
        if found[path]:
            return path, found[path]
    raise WeightsError("It contains no state dict (a mapping from names to tensors).")


def _mappings(
    content: Mapping[Any, Any], seen: set[int], levels: int = 2
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every mapping in a checkpoint once, with the path of entries to it."""
    seen.add(id(content))
    yield "", {str(key): value for key, value in content.items()}
    for key, value in content.items() if levels else ():
        if is_mapping(value) and id(value) not in seen:
            for name, inner in _mappings(value, seen, levels - 1):
                yield f"{key}.{name}".removesuffix("."), inner


def _rank(path: str) -> list[int]:
    """Return the ranks in `WRAPPERS` of the entries in a path; unknown names come last."""
    known = {name: number for number, name in enumerate(WRAPPERS)}
    return [known.get(name, len(known)) for name in path.split(".")]


def _find_prefix(named: Mapping[str, Any]) -> str | None:
    """Return the prefix before the names of a CLIP; None if no name is a CLIP's."""
    found = [match.group("prefix") for key in named if (match := _CLIP_NAME.match(key))]
    return max(found, default=None)


def _remove_prefix(named: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    prefix = _find_prefix(named) or ""
    others = [key for key in named if not key.startswith(prefix)]
    if others:
        raise WeightsError(
            f"It is not a plain CLIP: its entries begin with {prefix[:100]!r}, but "
            f"{others[0][:100]!r} does not; save only the state dict of the CLIP in it."
        )
    return prefix, {key.removeprefix(prefix): value for key, value in named.items()}


def _refuse_other_models(named: Mapping[str, Any]) -> None:
    for pattern, model in _OTHER_MODELS:
        for key in named:
            if re.search(pattern, key):
                raise WeightsError(f"It contains {model}: it has the entry {key[:100]!r}.")


def _remove_text_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the `text.` before the names of open_clip's custom text encoders."""
    renamed = {key.removeprefix("text."): value for key, value in tensors.items()}
    if len(renamed) < len(tensors):
        raise WeightsError("It contains two text encoders, with and without the prefix 'text.'.")
    return renamed


def _match_shapes(named: dict[str, Tensor]) -> dict[str, Tensor]:
    projection = named.get("text_projection.weight")
    if projection is not None and projection.dim() == 2:  # open_clip may use a linear layer
        named["text_projection"] = named.pop("text_projection.weight").t()
    if named.get("logit_scale", torch.empty(0)).numel() == 1:
        named["logit_scale"] = named["logit_scale"].reshape(())
    return named
