"""Pretraining data: rendered drawings of the training styles as scenes with captions."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datasets.scenes import Atlas, Chance, compose, scene_key
from tools.mini.captions import Captioner
from tools.mini.concepts import Concept
from tools.mini.styles import STYLES


class PairBatch(NamedTuple):
    """Images (B, 64, 64, 3), concepts (B), compact token ids (B, L), lengths (B), named (B)."""

    images: Tensor
    concepts: Tensor
    ids: Tensor
    lengths: Tensor
    named: Tensor


@dataclass(frozen=True)
class Corpus:
    """All drawings and names.

    Attributes:
        drawings: RGBA, uint8 (N, 72, 72, 4).
        styles: Style of each drawing.
        labels: Concept of each drawing.
        concepts: Names, groups and keywords.
        captioner: Samples captions.
        vocabulary: Token ids in use; a compact id is an index into it.
    """

    drawings: np.ndarray
    styles: np.ndarray
    labels: np.ndarray
    concepts: list[Concept]
    captioner: Captioner
    vocabulary: list[int]

    @classmethod
    def load(cls, folder: Path) -> Corpus:
        """Read the output of `render`."""
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        concepts = [
            Concept(**{**c, "aliases": tuple(c["aliases"]), "keywords": tuple(c["keywords"])})
            for c in manifest["concepts"]
        ]
        captioner = Captioner(concepts)
        return cls(
            drawings=np.load(folder / "drawings.npy"),
            styles=np.array([d["style"] for d in manifest["drawings"]]),
            labels=np.array([d["concept"] for d in manifest["drawings"]]),
            concepts=concepts,
            captioner=captioner,
            vocabulary=captioner.vocabulary(),
        )

    @property
    def groups(self) -> Tensor:
        """Group number of every concept."""
        names = sorted({c.group for c in self.concepts})
        return torch.tensor([names.index(c.group) for c in self.concepts])

    def training_rows(self) -> np.ndarray:
        """Return the indices of the drawings for pretraining."""
        allowed = [s.name for s in STYLES if s.role == "train" and not s.share_alike]
        return np.flatnonzero(np.isin(self.styles, allowed))

    def probe(self, style: str) -> tuple[Tensor, Tensor]:
        """Return one fixed scene per concept of a style, and the concepts."""
        rows = np.flatnonzero(self.styles == style)
        keys = [scene_key(style, self.concepts[k].code, -1) for k in self.labels[rows]]
        scenes = compose(Atlas.of(self.drawings[rows]), Chance.of(keys))
        return torch.from_numpy(scenes), torch.from_numpy(self.labels[rows])

    def pad(self, texts: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Return compact ids (B, L), padded with 0, and lengths (B)."""
        lengths = torch.tensor([len(t) for t in texts])
        ids = np.zeros((len(texts), int(lengths.max())), dtype=np.int64)
        for row, text in zip(ids, texts, strict=True):
            row[: len(text)] = np.searchsorted(self.vocabulary, text)
        return torch.from_numpy(ids), lengths

    def evaluation_captions(self) -> tuple[Tensor, Tensor]:
        """Return the evaluation's caption of every concept."""
        return self.pad([self.captioner.fill(k) for k in range(len(self.concepts))])


class Batches:
    """Random batches up to a total number of pairs, composed in a background thread."""

    def __init__(self, corpus: Corpus, size: int, seed: int, done: int, total: int) -> None:
        self.corpus, self.size, self.seed = corpus, size, seed
        self.steps = range(done // size, -(-total // size))
        rows = corpus.training_rows()
        order = np.argsort(corpus.labels[rows], kind="stable")
        self.rows = rows[order]
        self.first = np.searchsorted(corpus.labels[self.rows], np.arange(len(corpus.concepts) + 1))
        self.atlas = Atlas.of(corpus.drawings[self.rows])

    def make(self, step: int) -> PairBatch:
        """Return the batch of a step; it depends only on the seed and the step."""
        rng = np.random.default_rng([self.seed, step])
        known = np.flatnonzero(np.diff(self.first))
        concepts = rng.choice(known, self.size)
        starts, ends = self.first[concepts], self.first[concepts + 1]
        rows = starts + (rng.random(self.size) * (ends - starts)).astype(np.int64)
        images = compose(self.atlas[rows], Chance.draw(rng, self.size))
        captions = [self.corpus.captioner.draw(int(k), rng) for k in concepts]
        ids, lengths = self.corpus.pad([c.ids for c in captions])
        named = torch.tensor([c.named for c in captions])
        return PairBatch(torch.from_numpy(images), torch.from_numpy(concepts), ids, lengths, named)

    def __iter__(self) -> Iterator[PairBatch]:
        ready: queue.Queue[PairBatch | None] = queue.Queue(maxsize=4)

        def work() -> None:
            for step in self.steps:
                ready.put(self.make(step))
            ready.put(None)

        threading.Thread(target=work, daemon=True).start()
        while (batch := ready.get()) is not None:
            yield batch
