"""Captions for the pretraining, as token ids.

A third have 4 to 16 filler words around the name, so that names also occur at late positions, as
behind learned context vectors; a fifth are keyword lists; the others are sentence templates.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clip.simple_tokenizer import END, END_OF_WORD, START, SimpleTokenizer
from tools.mini.concepts import Concept

TEMPLATES = (
    "a photo of a {}.", "a photo of a {}.", "a picture of a {}.", "a drawing of a {}.",
    "an emoji of a {}.", "an icon of a {}.", "a cartoon {}.", "{}", "{}.", "a {}.", "the {}.",
    "this is a {}.", "there is a {} in the picture.", "a scene with a {}.", "a small {}.",
    "a {} on a colorful background.",
)  # fmt: skip
FILLER_WORDS = 5000  # the vocabulary's most frequent whole words
LONGEST = 60  # tokens; longer keyword lists are truncated


class Caption(NamedTuple):
    """Token ids with start and end, and whether they contain the concept's name."""

    ids: list[int]
    named: bool


class Captioner:
    """Sampler of captions for concepts."""

    def __init__(self, concepts: Sequence[Concept]) -> None:
        tokenizer = SimpleTokenizer()
        self.start, self.end = tokenizer.encoder[START], tokenizer.encoder[END]
        self.comma, self.stop = tokenizer.encode(",")[0], tokenizer.encode(".")[0]
        self.names = [[tokenizer.encode(name) for name in (c.name, *c.aliases)] for c in concepts]
        self.keywords = [[tokenizer.encode(word) for word in c.keywords] for c in concepts]
        parts = [template.split("{}") for template in TEMPLATES]
        self.templates = [tuple(tokenizer.encode(p) for p in pair) for pair in parts]
        whole = re.compile("[a-z]{2,}" + re.escape(END_OF_WORD))
        words = [i for token, i in tokenizer.encoder.items() if whole.fullmatch(token)]
        self.fillers = np.array(words[:FILLER_WORDS])

    def vocabulary(self) -> list[int]:
        """Return all token ids that captions can contain, sorted."""
        used = {self.start, self.end, self.comma, self.stop, *self.fillers.tolist()}
        for encoded in (*self.names, *self.keywords, *self.templates):
            used.update(i for ids in encoded for i in ids)
        return sorted(used)

    def fill(self, concept: int, template: int = 0) -> list[int]:
        """Return the name in a template, for evaluation."""
        front, back = self.templates[template]
        return [self.start, *front, *self.names[concept][0], *back, self.end]

    def draw(self, concept: int, rng: np.random.Generator) -> Caption:
        """Sample a caption."""
        kind = rng.random()
        named = True
        name = self._name(concept, rng)
        if kind < 1 / 3:
            ids = self._filled(name, rng)
        elif kind < 1 / 3 + 1 / 5:
            ids, named = self._keyword_list(concept, name, rng)
        else:
            front, back = self.templates[rng.integers(len(self.templates))]
            ids = [*front, *name, *back]
        return Caption([self.start, *ids[: LONGEST - 2], self.end], named)

    def _name(self, concept: int, rng: np.random.Generator) -> list[int]:
        names = self.names[concept]
        if len(names) == 1 or rng.random() < 0.7:
            return names[0]
        return names[rng.integers(1, len(names))]

    def _filled(self, name: list[int], rng: np.random.Generator) -> list[int]:
        words = self.fillers[rng.integers(len(self.fillers), size=rng.integers(4, 17))].tolist()
        where = rng.random()
        before = len(words) if where < 0.7 else 0 if where < 0.85 else len(words) // 2
        stop = [self.stop] if rng.random() < 0.8 else []
        return [*words[:before], *name, *words[before:], *stop]

    def _keyword_list(
        self, concept: int, name: list[int], rng: np.random.Generator
    ) -> tuple[list[int], bool]:
        words = list(self.keywords[concept])
        named = not words or rng.random() < 0.5
        if named:
            words.append(name)
        ids: list[int] = []
        for k in rng.permutation(len(words)):
            ids += [*words[k], self.comma]
        return ids[:-1], named
