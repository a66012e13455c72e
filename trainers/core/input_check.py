"""Whether INPUT gives a CLIP the images, and the tokenizer the tokens, that it was trained with."""

import dataclasses
from typing import Any

from clip.loaded import ASSUMED, SET
from clip.simple_tokenizer import tokenizer
from clip.weights import LoadedCLIP
from dassl.config import CfgNode
from safeio.errors import UserError


def check_input(cfg: CfgNode, loaded: LoadedCLIP) -> None:
    """Refuse images of another size or normalisation than the tower's, and another vocabulary.

    Raises:
        UserError: the image size or the vocabulary is another, or the normalisation differs from
            what the weights' files say.
    """
    name, resolution = cfg.MODEL.BACKBONE.NAME, loaded.model.visual.input_resolution
    if tuple(cfg.INPUT.SIZE) != (resolution, resolution):
        height, width = cfg.INPUT.SIZE
        raise UserError(
            f"INPUT.SIZE is {height} x {width}, but the image tower of {name!r} takes "
            f"{resolution} x {resolution}; choose a config file of this backbone."
        )
    vocabulary, tokens = loaded.model.vocab_size, len(tokenizer().encoder)
    if vocabulary != tokens:
        raise UserError(
            f"The weights of {name!r} are those of {vocabulary:,} tokens, but the tokenizer of "
            f"OpenAI's CLIP has {tokens:,}; choose weights that were trained with it."
        )
    for key, fact, own in _normalisation(loaded):
        given = [float(value) for value in cfg.INPUT[key]]
        differs = max(abs(a - b) for a, b in zip(given, own, strict=True)) > 1e-3
        if differs and loaded.origins[fact] != ASSUMED:
            source = loaded.described_by or f"the images that {name!r} was trained with"
            raise UserError(
                f"INPUT.{key} is {given}, but it is {[round(value, 4) for value in own]} according "
                f"to {source}; choose a config file of this backbone, or set INPUT.{key}."
            )


def with_input(cfg: CfgNode, loaded: LoadedCLIP) -> LoadedCLIP:
    """With INPUT's normalisation where the weights do not say theirs."""
    chosen: dict[str, Any] = {
        fact: tuple(float(value) for value in cfg.INPUT[key])
        for key, fact, _ in _normalisation(loaded)
        if loaded.origins[fact] == ASSUMED
    }
    origins = {**loaded.origins, **dict.fromkeys(chosen, SET)}
    return dataclasses.replace(loaded, origins=origins, **chosen)


def _normalisation(loaded: LoadedCLIP) -> list[tuple[str, str, tuple[float, ...]]]:
    """Keys of INPUT, the facts that they stand for, and the weights' values."""
    return [
        ("PIXEL_MEAN", "pixel_mean", loaded.pixel_mean),
        ("PIXEL_STD", "pixel_std", loaded.pixel_std),
    ]
