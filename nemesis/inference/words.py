"""Nearest words of CLIP's vocabulary to learned context vectors."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clip.simple_tokenizer import tokenizer
from dassl.utils import check_availability
from nemesis.report.table import Table, number

from .classifier import Classifier

CHUNK = 64  # vectors per distance computation, to bound memory
Vector = dict[str, Any]


def nearest_words(
    vectors: Float[Tensor, "vectors width"], vocabulary: Float[Tensor, "words width"], count: int
) -> tuple[Int[Tensor, "vectors count"], Float[Tensor, "vectors count"]]:
    """Return the nearest tokens of each vector and their Euclidean distances, ascending.

    Rows of zeros, which represent tokens without an embedding, are ignored.

    Args:
        vectors: learned context vectors.
        vocabulary: the token embedding.
        count: maximum number of tokens per vector.
    """
    known = (vocabulary != 0).any(dim=1).nonzero()[:, 0]
    # In single precision, cdist's matrix product would lose the digits that rank near neighbours.
    rows, count = vocabulary[known].double(), min(count, len(known))
    parts = [
        torch.cdist(part.double(), rows).topk(count, dim=1, largest=False)
        for part in vectors.split(CHUNK)
    ]
    words = torch.cat([known[part.indices] for part in parts])
    return words, torch.cat([part.values for part in parts]).float()


@torch.no_grad()
def words_of_prompts(
    classifier: Classifier, top_k: int = 3, classes: Sequence[str] = ()
) -> list[Vector]:
    """Return every learned vector with its nearest words.

    Args:
        classifier: of a method that learns context vectors.
        top_k: words per vector.
        classes: classes to include if prompts are class-specific; default all.

    Returns:
        One {"class", "set", "position", "norm", "words": [{"word", "distance"}, ...]} per vector;
        class is None if all classes share the prompt, set is None if there is one set.

    Raises:
        UserError: the method learns no context vectors, or none for a class in `classes`.
    """
    trainer, names = classifier.prompt_trainer(), classifier.classnames
    for name in classes:
        check_availability(name, names)
    ctx = classifier.context
    specific = bool(trainer.method_cfg.get("CSC", False))
    prompts = ctx if specific else ctx.unsqueeze(0)  # (C or 1, [P,] L, D)
    several = prompts.dim() == 4
    owners = [(k, name) for k, name in enumerate(names) if not classes or name in classes]
    places, vectors = [], []
    for row, owner in owners if specific else [(0, None)]:
        for k, part in enumerate(prompts[row] if several else prompts[row : row + 1]):
            one = {"class": owner, "set": k if several else None}
            places += [{**one, "position": j} for j in range(len(part))]
            vectors.append(part)
    chosen = torch.cat(vectors)
    nearest = nearest_words(chosen, trainer.loaded_clip.model.token_embedding.weight, top_k)
    rows = zip(places, chosen.norm(dim=1).tolist(), *(n.tolist() for n in nearest), strict=True)
    return [{**place, "norm": norm, "words": _words(*found)} for place, norm, *found in rows]


def _words(tokens: Sequence[int], distances: Sequence[float]) -> list[dict[str, Any]]:
    decoder = tokenizer().decoder
    return [
        {"word": decoder[token], "distance": distance}
        for token, distance in zip(tokens, distances, strict=True)
    ]


def word_table(vectors: Sequence[Vector], title: str) -> Table:
    """Make a table with a row per vector; columns class and set are omitted if they are None."""
    columns = [key for key in ("class", "set") if vectors and vectors[0][key] is not None]
    rows = [
        [
            *(vector[key] for key in columns),
            vector["position"],
            number(vector["norm"], 3),
            *(f"{_shown(word['word'])} ({word['distance']:.3f})" for word in vector["words"]),
        ]
        for vector in vectors
    ]
    count = len(vectors[0]["words"]) if vectors else 0
    header = [*columns, "position", "norm", *(f"word {n + 1} (distance)" for n in range(count))]
    return Table("words", title, header, rows)


def _shown(token: str) -> str:
    """Return a word, or the beginning of one with a hyphen; CLIP marks ends by </w>."""
    return token.removesuffix("</w>") if token.endswith("</w>") else f"{token}-"
