"""Evaluate the zero-shot accuracy of a small CLIP on the bundled benchmark, by task and style.

Run from the repository's root: `python -m tools.mini.evaluate`; `--model mini_vit` evaluates the
second CLIP, `--templates` compares sentence templates on validation scenes (the datasets' template
was selected this way), `--drawings STYLE` classifies a style's drawings among all concepts of the
pretraining.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from clip import tokenize
from clip.weights import LoadedCLIP, load_clip
from dassl.data.datasets import DATASET_REGISTRY
from datasets.emoji import (
    PARTS,
    SOURCE_STYLES,
    STYLES,
    TARGET_TEST,
    EmojiDataset,
    concepts_of,
    read_drawings,
)
from datasets.scenes import Atlas, Chance, compose, scene_key
from tools.mini.batches import Corpus
from tools.mini.captions import TEMPLATES
from tools.mini.styles import WORK

BATCH = 256  # scenes
GREY = 0.75
TARGETS = tuple(style for style in STYLES if style not in SOURCE_STYLES)


def tasks() -> Iterator[type[EmojiDataset]]:
    """Yield the emoji datasets."""
    for name in DATASET_REGISTRY.registered_names():
        dataset = DATASET_REGISTRY.get(name)
        if issubclass(dataset, EmojiDataset):
            yield dataset


@torch.no_grad()
def image_features(
    loaded: LoadedCLIP, group: str, style: str, numbers: Sequence[int]
) -> tuple[Float[Tensor, "n embed"], Tensor]:
    """Return normalised features of a style's scenes, and their labels."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (loaded.pixel_mean, loaded.pixel_std))
    classes = [(k, c.slug) for k, c in enumerate(concepts_of(group)) if style in c.styles]
    atlas = Atlas.of(read_drawings(style, [slug for _, slug in classes]))
    rows = np.repeat(np.arange(len(classes)), len(numbers))
    keys = [scene_key(style, slug, number) for _, slug in classes for number in numbers]
    features = []
    for start in range(0, len(rows), BATCH):
        part = slice(start, start + BATCH)
        scenes = torch.from_numpy(compose(atlas[rows[part]], Chance.of(keys[part])))
        pixels = (scenes.permute(0, 3, 1, 2) / 255 - mean) / std
        features.append(functional.normalize(loaded.model.encode_image(pixels), dim=-1))
    return torch.cat(features), torch.tensor([label for label, _ in classes])[rows]


@torch.no_grad()
def text_features(loaded: LoadedCLIP, group: str, template: str) -> Float[Tensor, "classes embed"]:
    """Return normalised features of all class names in a template."""
    tokens = tokenize([template.format(c.name) for c in concepts_of(group)])
    return functional.normalize(loaded.model.encode_text(tokens), dim=-1)


def accuracy(images: tuple[Tensor, Tensor], texts: Tensor) -> float:
    """Return the top-1 accuracy in %."""
    features, labels = images
    return 100 * ((features @ texts.t()).argmax(1) == labels).float().mean().item()


def _sources(
    load: Callable[[str, Sequence[int]], tuple[Tensor, Tensor]], part: str
) -> tuple[Tensor, Tensor]:
    parts = [load(style, PARTS[part]) for style in SOURCE_STYLES]
    return torch.cat([f for f, _ in parts]), torch.cat([labels for _, labels in parts])


def compare_templates(loaded: LoadedCLIP) -> None:
    """Print the validation accuracy of every pretraining template over all tasks."""
    templates = list(dict.fromkeys(TEMPLATES))
    results: dict[str, list[float]] = {}
    for task in tasks():
        images = _sources(partial(image_features, loaded, task.group), "val")
        for template in templates:
            texts = text_features(loaded, task.group, template)
            results.setdefault(template, []).append(accuracy(images, texts))
    for template, values in sorted(results.items(), key=lambda item: -float(np.mean(item[1]))):
        print(f"{np.mean(values):6.2f}  {template}  {[round(v, 1) for v in values]}")


def table(loaded: LoadedCLIP) -> None:
    """Print every task's number of classes and zero-shot accuracies as Markdown."""
    columns = ["validation", "test", *TARGETS]
    print("| task | classes | " + " | ".join(columns) + " |")
    print("|---" * (2 + len(columns)) + "|")
    for task in tasks():
        load = partial(image_features, loaded, task.group)
        texts = text_features(loaded, task.group, task.templates[0])
        values = [accuracy(_sources(load, part), texts) for part in ("val", "test")]
        values += [accuracy(load(style, TARGET_TEST), texts) for style in TARGETS]
        cells = " | ".join(f"{value:.1f}" for value in values)
        print(f"| {task.__name__} | {len(texts)} | {cells} |", flush=True)


@torch.no_grad()
def name_drawings(loaded: LoadedCLIP, style: str) -> None:
    """Print the accuracy of a style's drawings among all concepts, as scenes and on plain grey.

    Needs the output of `render`, since not every concept belongs to a task.
    """
    corpus = Corpus.load(WORK)
    scenes, labels = corpus.probe(style)
    drawings = torch.from_numpy(corpus.drawings[np.flatnonzero(corpus.styles == style)]) / 255
    colour, alpha = drawings[..., :3], drawings[..., 3:]
    on_grey = (colour * alpha + GREY * (1 - alpha)).permute(0, 3, 1, 2)
    on_grey = functional.interpolate(on_grey, size=(52, 52), mode="bilinear", antialias=True)
    pictures = {
        "scenes": scenes.permute(0, 3, 1, 2) / 255,
        "plain grey": functional.pad(on_grey, (6, 6, 6, 6), value=GREY),
    }
    tokens = tokenize([f"a photo of a {concept.name}." for concept in corpus.concepts])
    texts = functional.normalize(loaded.model.encode_text(tokens), dim=-1)
    mean, std = (torch.tensor(v)[:, None, None] for v in (loaded.pixel_mean, loaded.pixel_std))
    for ground, pixels in pictures.items():
        parts = [loaded.model.encode_image((part - mean) / std) for part in pixels.split(BATCH)]
        features = functional.normalize(torch.cat(parts), dim=-1)
        value = accuracy((features, labels), texts)
        print(f"{style}, 1 of {len(corpus.concepts):,}, {ground}: {value:.1f}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini", help="name or path of a CLIP")
    parser.add_argument("--templates", action="store_true", help="compare sentence templates")
    parser.add_argument("--drawings", metavar="STYLE", help="classify a style among all concepts")
    options = parser.parse_args()
    loaded = load_clip(options.model)
    print(json.dumps({"weights": loaded.source, "sha256": loaded.sha256}))
    if options.drawings:
        name_drawings(loaded, options.drawings)
    else:
        (compare_templates if options.templates else table)(loaded)


if __name__ == "__main__":
    main()
