"""Convert a pretraining checkpoint to a bundled CLIP, `clip/MODEL.safetensors`.

Run from the repository's root: `python -m tools.mini.export`, with `--model mini_vit` for the
second CLIP.  fp16, OpenAI's key names; only the rows of the token embedding that the pretraining
used are saved, the others load as zeros.  `mini_vit` has the text encoder of `mini`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from clip.config import CLIPConfig
from tools.mini import pretrain, pretrain_vit
from tools.mini.styles import STYLES, WORK
from tools.mini.training import PIXEL_MEAN, PIXEL_STD

WEIGHTS = Path("clip")
IMAGE_ENCODER = "visual."
LICENCE = (
    "The weights were trained on emoji and icons under {licences}; every set's credit is in "
    "datasets/emoji/LICENSES.md."
)


@dataclass(frozen=True)
class Model:
    """A bundled CLIP.

    Attributes:
        config: its architecture.
        checkpoint: the default checkpoint of its pretraining.
        tensors: returns the file's tensors from the content of the checkpoint.
        training: description of the training; numbers and date are filled in.
    """

    config: CLIPConfig
    checkpoint: Path
    tensors: Callable[[dict[str, Any]], dict[str, Tensor]]
    training: str


def all_tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    """Return all tensors, with the token embedding as rows and their token ids."""
    tensors: dict[str, Tensor] = {}
    for key, value in state["learner"].items():
        name = key.removeprefix("clip.")
        if name != key:
            tensors[name] = value.half() if value.is_floating_point() else value
    rows = tensors.pop("token_embedding.weight")
    tensors["token_embedding.weight.rows"] = rows
    tensors["token_embedding.weight.index"] = torch.tensor(state["vocabulary"])
    return tensors


def with_text_encoder_of_mini(state: dict[str, Any]) -> dict[str, Tensor]:
    """Return the image encoder's tensors and all others from the file of `mini`."""
    mini = load_file(WEIGHTS / "mini.safetensors")
    others = {key: value for key, value in mini.items() if not key.startswith(IMAGE_ENCODER)}
    return others | {key: value.half() for key, value in state["learner"].items()}


MODELS = {
    "mini": Model(
        pretrain.CONFIG,
        WORK / "pretrain.pt",
        all_tensors,
        "tools/mini/pretrain.py: contrastive loss and shared concept centres, {pairs:,} pairs of "
        "scenes and captions{note}, AdamW {rate}, cosine, {date}",
    ),
    "mini_vit": Model(
        pretrain_vit.CONFIG,
        WORK / "pretrain_vit.pt",
        with_text_encoder_of_mini,
        "tools/mini/pretrain_vit.py: text encoder of mini; image encoder trained to its "
        "features and distilled from mini's, {pairs:,} scenes{note}, Muon and AdamW {rate}, {date}",
    ),
}


def description(model: Model, state: dict[str, Any], date: str, note: str) -> dict[str, str]:
    """Return the file's metadata: architecture, pixel statistics, licence and training."""
    licences = sorted({s.licence for s in STYLES if s.role == "train"})
    return {
        "config": json.dumps(asdict(model.config)),
        "pixel_mean": json.dumps([PIXEL_MEAN] * 3),
        "pixel_std": json.dumps([PIXEL_STD] * 3),
        "licence": LICENCE.format(licences=", ".join(licences)),
        "training": model.training.format(
            pairs=state["pairs"],
            rate=state["recipe"]["rate"],
            date=date,
            note=note and f" ({note})",
        ),
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="mini")
    parser.add_argument("--checkpoint", type=Path, help="default: in build/mini")
    parser.add_argument("--output", type=Path, help="default: clip/MODEL.safetensors")
    parser.add_argument("--date", required=True, help="end of the pretraining, YYYY-MM-DD")
    parser.add_argument("--note", default="", help="note on the recipe for the metadata")
    options = parser.parse_args()
    model = MODELS[options.model]
    output: Path = options.output or WEIGHTS / f"{options.model}.safetensors"
    state = torch.load(options.checkpoint or model.checkpoint, weights_only=True)
    tensors = {name: tensor.contiguous() for name, tensor in model.tensors(state).items()}
    scratch = output.with_suffix(".tmp")
    save_file(tensors, scratch, description(model, state, options.date, options.note))
    scratch.chmod(0o644)
    scratch.replace(output)
    print(f"{output}: {output.stat().st_size:,} bytes, {state['pairs']:,} pairs")


if __name__ == "__main__":
    main()
