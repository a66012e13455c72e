"""Find the weights file of a folder, and the description next to it."""

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
    """Return the path of the weights in a folder of Hugging Face or open_clip.

    Args:
        folder: the folder with the descriptions, if any.
        has: returns whether a file of this name exists, and may download it.

    Raises:
        WeightsError: no weights are found.
    """
    names: tuple[str, ...] = (*HUGGING_FACE_WEIGHTS, *OPEN_CLIP_WEIGHTS)
    if not hugging_face.describes_clip(folder) and has(open_clip_names.CONFIG):
        names = OPEN_CLIP_WEIGHTS
    for name in names:
        if has(name):
            return folder / name
    if has(ADAPTER):
        raise WeightsError(
            f"{folder} contains an adapter (LoRA or another of PEFT's), not a CLIP; merge it into "
            "its model and save that."
        )
    others = [name for name in OTHER_FRAMEWORKS if (folder / name).is_file()]
    if others:
        raise WeightsError(
            f"{folder} contains {others[0]}, weights of TensorFlow or Flax, not of PyTorch; load "
            "it with transformers 4 (from_tf=True or from_flax=True) and save it again."
        )
    raise WeightsError(
        f"The folder {folder} contains none of {', '.join(names)}; pass the path of a .pt, .bin or "
        ".safetensors file."
    )


def describe_weights(path: Path, layout: str) -> Description | None:
    """Read the description next to weights, first that of the library whose key names they have.

    Raises:
        WeightsError: the description is that of another kind of model.
        OSError: the description cannot be read.
    """
    folder = path.parent
    if layout == HUGGING_FACE_LAYOUT:
        return hugging_face.describe(folder) or open_clip_names.describe(folder)
    description = open_clip_names.describe(folder)
    if description is None and hugging_face.describes_clip(folder):
        return hugging_face.describe(folder)
    return description
