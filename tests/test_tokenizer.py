"""The tokenizer against the published one's recorded answers, and `clip.tokenize`."""

import json
import string
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import clip
from clip.clip import tokenizer
from clip.simple_tokenizer import SimpleTokenizer
from tests.golden import FOLDER

GOLDEN: dict[str, Any] = json.loads((FOLDER / "tokenizer.json").read_text())
TEXTS = list(zip(GOLDEN["strings"], GOLDEN["encode"], strict=True))


@pytest.mark.parametrize(("text", "ids"), TEXTS, ids=[repr(text) for text, _ in TEXTS])
def test_golden_encode(text: str, ids: list[int]) -> None:
    assert tokenizer().encode(text) == ids


@pytest.mark.parametrize("index", range(len(TEXTS)))
def test_golden_decode_and_tokenize(index: int) -> None:
    text, ids = TEXTS[index]
    assert tokenizer().decode(ids) == GOLDEN["decode"][index]
    assert clip.tokenize(text)[0].tolist() == GOLDEN["tokenize_77"][index]


def test_several_texts_make_rows() -> None:
    rows = clip.tokenize(GOLDEN["strings"])
    assert rows.dtype == torch.int32
    assert rows.tolist() == GOLDEN["tokenize_77"]


def test_too_long_texts_are_refused_or_cut() -> None:
    text = GOLDEN["too_long"]["text"]
    with pytest.raises(RuntimeError) as raised:
        clip.tokenize(text)
    start, end = GOLDEN["too_long"]["error"].split(" ... ")  # the record leaves the middle out
    assert str(raised.value).startswith(start)
    assert str(raised.value).endswith(end)
    assert clip.tokenize(text, truncate=True)[0].tolist() == GOLDEN["too_long"]["truncated"]


def test_context_length() -> None:
    rows = clip.tokenize("a dog", context_length=5)
    assert rows.shape == (1, 5)
    assert rows[0, -1] == 0
    assert rows[0, 3] == GOLDEN["eot"]


def test_vocabulary() -> None:
    words = SimpleTokenizer()
    assert len(words.encoder) == len(words.decoder) == 49408
    assert words.encoder["<|startoftext|>"] == GOLDEN["sot"]
    assert words.encoder["<|endoftext|>"] == GOLDEN["eot"]
    assert all(words.decoder[number] == token for token, number in words.encoder.items())


@settings(deadline=None, max_examples=100)
@given(st.text(alphabet=string.printable.replace("&", "") + "äßéñ", max_size=40))
def test_decoding_undoes_encoding(text: str) -> None:
    ids = tokenizer().encode(text)
    assert tokenizer().encode(tokenizer().decode(ids)) == ids
