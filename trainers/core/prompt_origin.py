"""Where learned prompts come from, and whether they fit what they are tested with.

Prompts mean something only to the text tower that they were learned with, at the place that they
had in the text and, where every class has its own (CSC), for that class. A checkpoint says so under
`prompt`; for older ones prompt.safetensors does, or config.yaml, and for CoOp's own the embeddings
of the class names that it saves beside its prompts.
"""

import hashlib
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
from clip.weights import LoadedCLIP
from dassl.config.node import read_yaml_layers
from dassl.engine import CONFIG
from safeio.errors import UserError
from safeio.untrusted import sentence, shown

from .prompt_file import PROMPT_FILE, read_prompt_metadata
from .prompt_learner import CLASSNAME_BUFFERS

FLAG = "--ignore-mismatch"
ORIGIN = "prompt"  # its key in a checkpoint
PREFIX, SUFFIX = CLASSNAME_BUFFERS
NAMES_SHOWN = 3

FINGERPRINTS = {"weights_fp16": torch.float16, "weights_bf16": torch.bfloat16}

# What must be the same as in training, as it stands in the metadata: how it is called, and which
# setting decides.
SETTINGS = {
    "class_token_position": ("the class token position", "TRAINER.{node}.CLASS_TOKEN_POSITION"),
    "activation": ("the activation", "MODEL.CLIP.ACTIVATION"),
    "text_heads": ("the number of text heads", "MODEL.CLIP.TEXT_HEADS"),
    "class_specific": ("a prompt for each class (CSC)", "TRAINER.{node}.CSC"),
    "image_heads": ("the number of image heads", "MODEL.CLIP.VISION_HEADS"),
}


@dataclass(frozen=True)
class Fit:
    """How a checkpoint's prompts fit.

    Attributes:
        rows: which of its class-specific prompts stands for which class; None takes all in order.
        mismatch: what does not fit, in words; empty if everything does.
    """

    rows: list[int] | None = None
    mismatch: str = ""


def describe_prompts(
    cfg: Any, node: Any, loaded: LoadedCLIP, classnames: Sequence[str]
) -> dict[str, Any]:
    """What prompts that are learned here mean: the metadata of checkpoints and prompt files.

    Args:
        cfg: the whole configuration.
        node: the method's own part.
        loaded: the frozen CLIP.
        classnames: by label.
    """
    config = loaded.model.config
    return {
        "trainer": cfg.TRAINER.NAME,
        "backbone": cfg.MODEL.BACKBONE.NAME,
        "weights_sha256": loaded.sha256 or "",
        **fingerprints(loaded.model),
        "activation": config.activation,
        "text_heads": config.text_heads,
        "image_heads": config.image_heads,
        "class_token_position": node.get("CLASS_TOKEN_POSITION", "end"),
        "class_specific": bool(node.get("CSC", False)),
        "classnames": list(classnames),
    }


def fingerprints(model: CLIP) -> dict[str, str]:
    """SHA-256 of the weights as fp16 and as bf16: the same for the same weights in any file.

    Of every matrix it takes one row in 16. Convolutions are left out, since those of a frozen
    ResNet hold its batch norms. A model in lower precision has the one of its own precision alone.
    """
    parts = [value[::16] for value in model.parameters() if value.dim() == 2]
    parts += [model.ln_final.weight, model.ln_final.bias, model.logit_scale]
    found = {}
    for key, dtype in FINGERPRINTS.items():
        if model.dtype in (dtype, torch.float32):
            digest = hashlib.sha256()
            for part in parts:
                digest.update(
                    part.detach().to(dtype).cpu().flatten().view(torch.uint8).numpy().tobytes()
                )
            found[key] = digest.hexdigest()
    return found


def known_origin(state: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint itself says of its prompts: entries of `describe_prompts`, or none."""
    recorded = state.get(ORIGIN)
    entries = recorded.items() if isinstance(recorded, dict) else ()
    return {key: value for key, value in entries if isinstance(value, str | int | list)}


def read_origin(path: Path, state: Mapping[str, Any], node: str) -> dict[str, Any]:
    """What is known of a checkpoint's prompts: entries of `describe_prompts`, perhaps none.

    Args:
        path: of the checkpoint, in a model's folder in a run's folder.
        state: its content.
        node: name of the method's configuration node.

    Raises:
        UserError: prompt.safetensors or config.yaml is damaged.
    """
    run_dir = path.parent.parent
    if recorded := known_origin(state):
        return recorded
    if (run_dir / PROMPT_FILE).is_file():
        return read_prompt_metadata(run_dir / PROMPT_FILE)
    if (run_dir / CONFIG).is_file():
        return _from_config(read_yaml_layers(run_dir / CONFIG)[-1][1], node)
    return {}


def _from_config(config: Mapping[str, Any], node: str) -> dict[str, Any]:
    """What a configuration says of the prompts; the data that it names stands for its classes."""
    try:
        method = config["TRAINER"][node]
        origin = {
            "backbone": config["MODEL"]["BACKBONE"]["NAME"],
            "class_token_position": method.get("CLASS_TOKEN_POSITION", "end"),
            "data": data_of(config),
        }
    except (KeyError, TypeError, AttributeError):
        return {}
    return origin


def data_of(config: Mapping[str, Any]) -> str:
    """Which dataset's classes a configuration is about, in words."""
    dataset = config["DATASET"]
    half = dataset["SUBSAMPLE_CLASSES"]
    return f"{dataset['NAME']}" + (f" ({half})" if half != "all" else "")


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
                f"{name} was {shown(origin[key])} in training and is {here[key]} now ({where})"
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
    before = shown(origin["backbone"]) if "backbone" in origin else "another one"
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
        before, now = sentence(origin["data"]), here["data"]
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


def check_shape(path: Path, ctx: Tensor, own: Tensor, node: str, by_words: bool) -> None:
    """Refuse prompts of another shape than the learner's, in the words of the settings.

    Args:
        path: of the checkpoint.
        ctx: its prompts, (*sets, L, D).
        own: the learner's.
        node: name of the method's configuration node.
        by_words: CTX_INIT says how many vectors there are, not N_CTX.

    Raises:
        UserError: says what the checkpoint holds and what the setting is.
    """
    if ctx.shape == own.shape:
        return
    theirs, ours = (" x ".join(map(str, tensor.shape)) for tensor in (ctx, own))
    fault = f"prompts of shape {theirs}, but TRAINER.{node} makes them {ours}"
    rest = ctx.shape[:-2] + ctx.shape[-1:] == own.shape[:-2] + own.shape[-1:]
    if ctx.dim() == own.dim() and rest:
        setting = "CTX_INIT gives" if by_words else "N_CTX is"
        fault = f"{ctx.shape[-2]} context vectors, but TRAINER.{node}.{setting} {own.shape[-2]}"
    raise UserError(f'"{path}" holds {fault}; take the settings of the training')
