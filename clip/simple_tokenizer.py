"""CLIP's lower-cased byte-pair tokenizer.

Byte-pair encoding: Sennrich et al., ACL 2016; on bytes as in GPT-2. OpenAI published the merges
file with CLIP.
"""

import gzip
import html
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import ftfy
import regex

NUM_MERGES = 49152 - 256 - 2
START, END = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"
MERGES = Path(__file__).parent / "bpe_simple_vocab_16e6.txt.gz"

_WORDS = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>"
    r"|'s|'t|'re|'ve|'m|'ll|'d"
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)


@lru_cache
def bytes_to_unicode() -> dict[int, str]:
    """Return a printable character for each of the 256 bytes, in the vocabulary's order.

    Bytes that are printable in Latin-1 map to themselves; the others, such as white space and
    control characters, map to the code points from 256 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    table = {byte: chr(byte) for byte in printable}
    table.update({byte: chr(256 + index) for index, byte in enumerate(others)})
    return table


@lru_cache(maxsize=4096)  # the class names of a process's runs
def clean_text(text: str) -> str:
    """Repair broken Unicode, resolve HTML entities (also doubly escaped), tidy white space."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split())


class SimpleTokenizer:
    """Convert text to token ids and back.

    Attributes:
        encoder: the id of every token.
        decoder: the token of every id.
        bpe_ranks: the rank of every merge; the lowest rank merges first.
    """

    def __init__(self) -> None:
        with gzip.open(MERGES, "rt", encoding="utf-8") as file:
            lines = file.read().split("\n")[1 : NUM_MERGES + 1]  # the first line is a version
        merges = [(left, right) for left, right in (line.split() for line in lines)]
        characters = list(bytes_to_unicode().values())
        tokens = characters + [character + END_OF_WORD for character in characters]
        tokens += ["".join(merge) for merge in merges]
        tokens += [START, END]
        self.byte_encoder = bytes_to_unicode()
        self.byte_decoder = {character: byte for byte, character in self.byte_encoder.items()}
        self.encoder = {token: number for number, token in enumerate(tokens)}
        self.decoder = dict(enumerate(tokens))
        self.bpe_ranks = {merge: rank for rank, merge in enumerate(merges)}
        self._words: dict[str, list[int]] = {
            special: [self.encoder[special]] for special in (START, END)
        }

    def bpe(self, word: str) -> list[str]:
        """Split one word, spelled in `bytes_to_unicode`'s characters, into tokens."""
        parts = [*word[:-1], word[-1] + END_OF_WORD]
        while len(parts) > 1:
            pairs = set(pairwise(parts))
            best = min(pairs, key=lambda pair: self.bpe_ranks.get(pair, len(self.bpe_ranks)))
            if best not in self.bpe_ranks:
                break
            parts = _merge(parts, best)
        return parts

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without start and end tokens."""
        ids: list[int] = []
        for word in _WORDS.findall(clean_text(text).lower()):
            if word not in self._words:
                spelled = "".join(self.byte_encoder[byte] for byte in word.encode("utf-8"))
                self._words[word] = [self.encoder[token] for token in self.bpe(spelled)]
            ids.extend(self._words[word])
        return ids

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of token ids, with a space after every word."""
        text = "".join(self.decoder[int(token)] for token in tokens)
        data = bytearray(self.byte_decoder[character] for character in text)
        return data.decode("utf-8", errors="replace").replace(END_OF_WORD, " ")


@lru_cache
def tokenizer() -> SimpleTokenizer:
    """Return the published tokenizer, loaded at the first call."""
    return SimpleTokenizer()


def _merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for part in parts:
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
        else:
            merged.append(part)
    return merged
