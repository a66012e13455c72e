"""The prompt encoder equals the padded reference, prompt by prompt, forward and backward."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clip import packed_transformer, text_encoding
from clip.clip import tokenize
from clip.errors import PromptError
from clip.prompt_layout import (
    POSITIONS,
    arrange_prompt,
    build_trie,
    first_group_by_content,
    lay_out,
)
from clip.text_encoding import SoftPromptEncoder
from tests.golden import tiny_clip
from tests.helpers.oracle import reference_encoder

WORDS = st.sampled_from(
    ["dog", "golden", "retriever", "ferrari", "737-800", "crop", "jalapeño", "kite (bird of prey)"]
)
NAMES = st.lists(WORDS, min_size=1, max_size=6).map("_".join)


def contexts(groups: int, sets: tuple[int, ...], length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randn(groups, *sets, length, 32, generator=generator)


def reference(names: list[str], ctx: torch.Tensor, position: str) -> torch.Tensor:
    encode = reference_encoder(tiny_clip("vit"), names, ctx.shape[-2], position)
    return torch.stack([encode(group) for group in ctx])


def assert_equal(ours: torch.Tensor, oracle: torch.Tensor) -> None:
    """Equal up to 2e-5 of the largest number."""
    torch.testing.assert_close(ours, oracle, atol=2e-5 * float(oracle.detach().abs().max()), rtol=0)


@settings(max_examples=20, deadline=None)
@example(0, 40, 0, ["kite (bird of prey)", "golden dog"], 4, 17, "middle", True)
@given(
    whole=st.sampled_from([0, 30, 10_000]),
    at_once=st.sampled_from([1, 40, 100_000]),
    memory=st.sampled_from([1 << 30, 0]),
    names=st.lists(NAMES, min_size=1, max_size=4),
    length=st.integers(1, 9),
    groups=st.integers(1, 5),
    position=st.sampled_from(POSITIONS),
    class_specific=st.booleans(),
)
def test_features_and_gradients_equal_the_reference(
    whole: int,
    at_once: int,
    memory: int,
    names: list[str],
    length: int,
    groups: int,
    position: str,
    class_specific: bool,
) -> None:
    ctx = contexts(groups, (len(names),) if class_specific else (), length).requires_grad_()
    weights = torch.randn(groups, len(names), 32, generator=torch.Generator().manual_seed(0))
    encoder = SoftPromptEncoder(tiny_clip("vit"), names, length, position)
    encoder.memory_limit = memory

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(packed_transformer.WHOLE_GROUP, "cpu", whole)
        patch.setitem(text_encoding.BYTES_AT_ONCE, "cpu", at_once * ctx.shape[-1] * 4)
        ours = encoder(ctx)
        (ours_gradient,) = torch.autograd.grad((ours * weights).sum(), ctx)
        with torch.no_grad():
            shared = encoder(ctx)
    oracle = reference(names, ctx, position)
    assert_equal(ours, oracle)
    assert_equal(shared, oracle)
    (gradient,) = torch.autograd.grad((oracle * weights).sum(), ctx)
    assert_equal(ours_gradient, gradient)


@settings(max_examples=15, deadline=None)
@given(
    names=st.lists(NAMES, min_size=1, max_size=3),
    corrupted=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    position=st.sampled_from(POSITIONS),
    class_specific=st.booleans(),
)
def test_corrupted_groups_equal_the_reference(
    names: list[str], corrupted: list[int], position: str, class_specific: bool
) -> None:
    original = contexts(1, (len(names),) if class_specific else (), 6)
    ctx = original.repeat(len(corrupted), *[1] * (original.dim() - 1))
    for group, place in zip(ctx, corrupted, strict=True):
        group[..., place, :] *= 0.5
    ours = SoftPromptEncoder(tiny_clip("vit"), names, 6, position)(ctx)
    assert_equal(ours, reference(names, ctx, position))


def rows(names: list[str], position: str, ctx: torch.Tensor) -> int:
    """Number of states that the encoder computes."""
    prompts = [arrange_prompt(name, ctx.shape[2], position) for name in names]
    trie = build_trie(prompts, class_specific=ctx.shape[1] > 1)
    return len(lay_out(trie, first_group_by_content(ctx)).node)


def test_shared_states_are_computed_once() -> None:
    names = ["dog", "golden dog", "golden cat"]  # `golden` is shared, `dog .` and `cat .` are not
    own = 3 + 1 + 3 + 3
    ctx = contexts(1, (1,), 4)
    assert rows(names, "end", ctx) == 1 + 4 + own
    assert rows(names, "front", ctx) == 1 + 4 + 3 * 6  # the names' 4 states, then everything apart
    assert rows(names, "end", contexts(1, (3,), 4)) == 1 + 3 * 4 + 3 + 4 + 4

    corrupted = ctx.repeat(4, 1, 1, 1)
    for place in range(4):
        corrupted[place, :, place] *= 0.5
    # Group j differs from vector j on: 4, 3, 2 and 1 vectors, SOS and 3 before the last.
    assert rows(names, "end", corrupted) == 1 + 3 + (4 + 3 + 2 + 1) + 4 * own
    assert rows(names, "end", ctx.repeat(5, 1, 1, 1)) == 1 + 4 + own


@pytest.mark.parametrize("position", POSITIONS)
def test_bfloat16_stays_near_fp32(position: str) -> None:
    names = ["airplane", "golden_retriever"]
    ctx = contexts(2, (), 4)
    exact = SoftPromptEncoder(tiny_clip("vit"), names, 4, position)(ctx)
    rounded = SoftPromptEncoder(tiny_clip("vit").to(torch.bfloat16), names, 4, position)(ctx)
    similarity = torch.cosine_similarity(exact, rounded.float(), dim=-1)
    assert similarity.min() > 0.999


def test_layout_by_hand() -> None:
    ids, slots = arrange_prompt("golden_retriever", 3, "middle")
    assert ids == [49406, 0, 3878, 28394, 0, 0, 269, 49407]
    assert slots == [1, 4, 5]


def test_a_bracket_at_the_end_and_the_full_stop_are_one_token() -> None:
    ids, _ = arrange_prompt("kite (bird of prey)", 2)
    whole = tokenize("X X kite (bird of prey).")[0].tolist()
    assert ids[3:] == whole[3 : len(ids)]


def test_wrong_prompts() -> None:
    with pytest.raises(PromptError, match=r"class 'a_dog_dog.*holds 77"):
        SoftPromptEncoder(tiny_clip("vit"), ["cat", "a" + "_dog" * 70], 16)
    with pytest.raises(PromptError, match=r"end, middle, front"):
        SoftPromptEncoder(tiny_clip("vit"), ["cat"], 4, "start")


@pytest.mark.parametrize("position", POSITIONS)
def test_a_group_that_overflows_affects_no_other(position: str) -> None:
    encoder = SoftPromptEncoder(tiny_clip("vit"), ["dog", "golden cat"], 4, position)
    good = contexts(2, (), 4).requires_grad_()
    bad = torch.full_like(good[:1], torch.inf)
    together = encoder(torch.cat([good[:1], bad, good[1:]]))
    (gradient,) = torch.autograd.grad(together[[0, 2]].square().sum(), good)
    alone = encoder(good)
    (expected,) = torch.autograd.grad(alone.square().sum(), good)
    assert_equal(together[[0, 2]], alone)
    assert_equal(gradient, expected)
