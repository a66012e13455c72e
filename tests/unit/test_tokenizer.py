"""Properties of the tokenizer and `clip.tokenize`; tests/golden has the published answers."""

import string

from hypothesis import given, settings
from hypothesis import strategies as st

import clip
from clip.simple_tokenizer import SimpleTokenizer, tokenizer

SOT, EOT = 49406, 49407


def test_context_length() -> None:
    rows = clip.tokenize("a dog", context_length=5)
    assert rows.shape == (1, 5)
    assert rows[0, -1] == 0
    assert rows[0, 3] == EOT


def test_vocabulary() -> None:
    words = SimpleTokenizer()
    assert len(words.encoder) == len(words.decoder) == 49408
    assert words.encoder["<|startoftext|>"] == SOT
    assert words.encoder["<|endoftext|>"] == EOT
    assert all(words.decoder[number] == token for token, number in words.encoder.items())


@settings(deadline=None, max_examples=100)
@given(st.text(alphabet=string.printable.replace("&", "") + "äßéñ", max_size=40))
def test_decoding_undoes_encoding(text: str) -> None:
    ids = tokenizer().encode(text)
    assert tokenizer().encode(tokenizer().decode(ids)) == ids
