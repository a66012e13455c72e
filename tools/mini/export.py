"""Convert a pretraining checkpoint to the bundled CLIP, `clip/mini.safetensors`.

Run from the repository's root: `python -m tools.mini.export`.  fp16, OpenAI's key names; only the
rows of the token embedding that the pretraining used are saved, the others load as zeros.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tools.mini.pretrain import CONFIG, PIXEL_MEAN, PIXEL_STD
from tools.mini.styles import STYLES, WORK

TARGET = Path("clip/mini.safetensors")
LICENCE = (
    "The weights were trained on emoji and icons under {licences}; every set's credit is in "
    "datasets/emoji/LICENSES.md."
)
TRAINING = (
    "tools/mini/pretrain.py: contrastive loss and shared concept centres, {pairs:,} pairs of "
    "scenes and captions{note}, AdamW {rate}, cosine, {date}"
)


def packed(state: dict[str, Any]) -> dict[str, Tensor]:
    """Return the tensors in fp16, with the token embedding as rows and their token ids."""
    tensors: dict[str, Tensor] = {}
    for key, value in state["learner"].items():
        name = key.removeprefix("clip.")
        if name != key:
            tensors[name] = value.half() if value.is_floating_point() else value
    rows = tensors.pop("token_embedding.weight")
    tensors["token_embedding.weight.rows"] = rows
    tensors["token_embedding.weight.index"] = torch.tensor(state["vocabulary"])
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def description(state: dict[str, Any], date: str, note: str) -> dict[str, str]:
    """Return the file's metadata: architecture, pixel statistics, licence and training."""
    licences = sorted({s.licence for s in STYLES if s.role == "train"})
    recipe = state["recipe"]
    return {
        "config": json.dumps(asdict(CONFIG)),
        "pixel_mean": json.dumps([PIXEL_MEAN] * 3),
        "pixel_std": json.dumps([PIXEL_STD] * 3),
        "licence": LICENCE.format(licences=", ".join(licences)),
        "training": TRAINING.format(
            pairs=state["pairs"], rate=recipe["rate"], date=date, note=note and f" ({note})"
        ),
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=WORK / "pretrain.pt")
    parser.add_argument("--output", type=Path, default=TARGET)
    parser.add_argument("--date", required=True, help="end of the pretraining, YYYY-MM-DD")
    parser.add_argument("--note", default="", help="note on the recipe for the metadata")
    options = parser.parse_args()
    state = torch.load(options.checkpoint, weights_only=True)
    scratch = options.output.with_suffix(".tmp")
    save_file(packed(state), scratch, description(state, options.date, options.note))
    scratch.chmod(0o644)
    scratch.replace(options.output)
    print(f"{options.output}: {options.output.stat().st_size:,} bytes, {state['pairs']:,} pairs")


if __name__ == "__main__":
    main()
