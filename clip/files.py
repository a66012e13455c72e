"""The weights file of a folder, and the description beside it."""

from collections.abc import Callable
from pathlib import Path

from . import hugging_face, open_clip_names
from .description import Description
from .errors import WeightsError
from .state_dicts import HUGGING_FACE_LAYOUT

HUGGING_FACE_WEIGHTS = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
DESCRIPTIONS = (hugging_face.CONFIG, *hugging_face.PREPROCESSORS, open_clip_names.CONFIG)
ADAPTER = "adapter_config.json"
OTHER_FRAMEWORKS = ("tf_model.h5", "flax_model.msgpack")


def choose_weights(folder: Path, has: Callable[[str], bool]) -> Path:
    """The weights in a folder as Hugging Face or open_clip makes it.

    Args:
        folder: where the descriptions lie, as far as there are any.
        has: whether there is a file of this name; may fetch it.

    Raises:
        WeightsError: there are none.
    """
    names: tuple[str, ...] = (*HUGGING_FACE_WEIGHTS, *OPEN_CLIP_WEIGHTS)
    if not hugging_face.describes_clip(folder) and has(open_clip_names.CONFIG):
        names = OPEN_CLIP_WEIGHTS
    for name in names:
        if has(name):
            return folder / name
    if has(ADAPTER):
        raise WeightsError(
            f"{folder} holds an adapter (LoRA or another of PEFT's), not a CLIP; merge it into its "
            "model and save that."
        )
    others = [name for name in OTHER_FRAMEWORKS if (folder / name).is_file()]
    if others:
        raise WeightsError(
            f"{folder} holds {others[0]}, weights of TensorFlow or Flax, but none of PyTorch; load "
            "it with transformers 4 (from_tf=True or from_flax=True) and save it again."
        )
    raise WeightsError(
        f"{folder} is no file of weights, and a folder without any of {', '.join(names)}; give the "
        "path of a .pt, .bin or .safetensors file."
    )


def describe_beside(path: Path, layout: str) -> Description | None:
    """The description in config.json (and preprocessor_config.json) or open_clip_config.json.

    Args:
        path: the file of weights.
        layout: of its names; a description of the same origin counts first.

    Raises:
        WeightsError: the description is that of another kind of model.
        OSError: it cannot be read.
    """
    folder = path.parent
    if layout == HUGGING_FACE_LAYOUT:
        return hugging_face.describe(folder) or open_clip_names.describe(folder)
    own = open_clip_names.describe(folder)
    if own is None and hugging_face.describes_clip(folder):
        own = hugging_face.describe(folder)
    return own
