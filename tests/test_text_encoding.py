"""The group encoder equals the plain padded pass, prompt by prompt, forward and backward."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clip.errors import PromptError
from clip.text_encoding import POSITIONS, SoftPromptEncoder, arrange_prompt
from tests.golden import tiny_clip
from tests.oracle import plain_text_features

WORDS = st.sampled_from(["dog", "golden", "retriever", "ferrari", "737-800", "crop", "jalapeño"])
NAMES = st.lists(WORDS, min_size=1, max_size=6).map("_".join)


@settings(max_examples=30, deadline=None)
@given(
    names=st.lists(NAMES, min_size=1, max_size=4),
    length=st.integers(1, 9),
    groups=st.integers(1, 3),
    position=st.sampled_from(POSITIONS),
    class_specific=st.booleans(),
)
def test_equals_the_plain_pass(
    names: list[str], length: int, groups: int, position: str, class_specific: bool
) -> None:
    model = tiny_clip("vit")
    sets = (len(names),) if class_specific else ()
    generator = torch.Generator().manual_seed(length)
    ctx = torch.randn(groups, *sets, length, 32, generator=generator).requires_grad_()
    weights = torch.randn(groups, len(names), 32, generator=generator)

    ours = SoftPromptEncoder(model, names, length, position)(ctx)
    plain = torch.stack([plain_text_features(model, names, group, position) for group in ctx])
    torch.testing.assert_close(ours, plain, atol=2e-5, rtol=2e-5)
    (ours_gradient,) = torch.autograd.grad((ours * weights).sum(), ctx)
    (plain_gradient,) = torch.autograd.grad((plain * weights).sum(), ctx)
    torch.testing.assert_close(ours_gradient, plain_gradient, atol=2e-5, rtol=2e-5)


def test_bfloat16_stays_near_fp32() -> None:
    names = ["airplane", "golden_retriever"]
    ctx = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(0))
    exact = SoftPromptEncoder(tiny_clip("vit"), names, 4)(ctx)
    rounded = SoftPromptEncoder(tiny_clip("vit").to(torch.bfloat16), names, 4)(ctx)
    similarity = torch.cosine_similarity(exact, rounded.float(), dim=-1)
    assert similarity.min() > 0.999


def test_layout_by_hand() -> None:
    ids, slots, eos = arrange_prompt("golden_retriever", 3, "middle")
    assert ids == [49406, 0, 3878, 28394, 0, 0, 269, 49407]
    assert slots == [1, 4, 5]
    assert eos == 7


def test_a_prompt_that_does_not_fit_names_its_class() -> None:
    with pytest.raises(PromptError, match=r"class 'a_dog_dog.*holds 77"):
        SoftPromptEncoder(tiny_clip("vit"), ["cat", "a" + "_dog" * 70], 16)


def test_an_unknown_position_lists_the_known_ones() -> None:
    with pytest.raises(PromptError, match=r"end, middle, front"):
        SoftPromptEncoder(tiny_clip("vit"), ["cat"], 4, "start")
