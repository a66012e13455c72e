"""Low-rank adapters: merging, gradients of skipped ones, positions, refused settings."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from benchmarks.reference_clip import build_reference_clip
from benchmarks.reference_lora import ReferenceCLIPLoRA
from dassl.config import load_config
from dassl.engine.build import check_trainer
from nemesis.adapters.analysis import sampled_shapley, shapley
from tests.golden import images, labels
from tests.golden.harness import golden_trainer
from tests.helpers.refusals import refused
from trainers.core.lora_settings import LoRASettings

Options = tuple[Any, ...]
TRAINED = ("OPTIM.NAME", "adamw", "OPTIM.WARMUP_EPOCH", 0, "TRAINER.CLIPLORA.ITERS_PER_SHOT", 0)
ALL = ("TRAINER.CLIPLORA.PARAMS", ["q", "k", "v", "o"])
NO_DROPOUT = ("TRAINER.CLIPLORA.DROPOUT", 0.0)


def make(root: Path, *opts: Any, name: str = "CLIPLoRA", arch: str = "vit") -> Any:
    """A trainer whose B are random, so that A has a gradient."""
    torch.manual_seed(1)
    trainer = golden_trainer(name, arch, root, *TRAINED, *opts)
    with torch.no_grad():
        for adapter in trainer.adapters.by_key().values():
            adapter.B.normal_(std=0.3)
    return trainer


def step(trainer: Any, number: int = 0, arch: str = "vit") -> Any:
    return trainer.forward_backward({"img": images(arch, number), "label": labels(number)})


@pytest.mark.parametrize(("arch", "encoder"), [("vit", "both"), ("vit", "vision"), ("rn", "text")])
def test_merged_equals_unmerged(tmp_path: Path, arch: str, encoder: str) -> None:
    opts = (*ALL, "TRAINER.CLIPLORA.ENCODER", encoder)
    trainer = make(tmp_path, *opts, arch=arch)
    before = {key: value.clone() for key, value in trainer.model.frozen.state_dict().items()}
    with torch.no_grad():
        base = trainer.model.frozen.encode_image(images(arch)) if encoder == "vision" else None
        trainer.set_model_mode("eval")
        unmerged = trainer.model(images(arch))
        with trainer.cached_text_features():
            merged = trainer.model_inference(images(arch))
    torch.testing.assert_close(merged, unmerged, atol=4e-5, rtol=4e-6)  # the scale is 100
    if base is not None:
        changed = functional.normalize(base, dim=-1) - trainer.model.image_features(images(arch))
        assert changed.abs().max() > 1e-2
    after = trainer.model.frozen.state_dict()
    assert all(value.equal(after[key]) for key, value in before.items())


def test_the_shared_prefix_and_recomputing_change_no_gradient(tmp_path: Path) -> None:
    """Dropout draws the same numbers when the backward pass computes the states again."""
    gradients = []
    for memory in (4.0, 1e-9):
        trainer = make(tmp_path, "MODEL.CLIP.TEXT_MEMORY", memory)
        torch.manual_seed(2)
        step(trainer)
        gradients.append({k: one.grad for k, one in trainer.adapters.named_parameters()})
    first, second = gradients
    for key, gradient in first.items():
        torch.testing.assert_close(gradient, second[key], atol=1e-6, rtol=1e-5)
        assert gradient.any()


def test_the_reference_implementation_of_the_benchmark(tmp_path: Path) -> None:
    opts = (*NO_DROPOUT, "TRAINER.CLIPLORA.ENCODER", "text", "TRAINER.CLIPLORA.LOGIT_SCALE", 0.0)
    trainer = make(tmp_path, *opts)
    names, width = trainer.dm.dataset.classnames, 32
    reference = build_reference_clip(trainer.model.frozen)
    plain = ReferenceCLIPLoRA(reference, names, torch.zeros(4, width)).eval()
    adapters = trainer.adapters.by_key()
    blocks: Any = plain.clip_model.transformer.get_submodule("resblocks")
    with torch.no_grad():
        for number, block in enumerate(blocks):
            for at, name in enumerate("qkv"):
                block.attn.A[at].copy_(adapters[f"text.{number}.{name}"].A)
                block.attn.B[at].copy_(adapters[f"text.{number}.{name}"].B)
    loss = plain.loss(images("vit"), labels())
    loss.backward()
    torch.testing.assert_close(step(trainer)["loss"], loss.detach(), atol=2e-5, rtol=2e-5)
    for number, block in enumerate(blocks):
        ours = adapters[f"text.{number}.v"].A.grad
        torch.testing.assert_close(ours, block.attn.A[2].grad, atol=2e-5, rtol=2e-5)


def test_adapters_stay_in_fp32_and_nothing_else_learns(tmp_path: Path) -> None:
    trainer = make(tmp_path, "TRAINER.CLIPLORA.PREC", "bf16")
    assert trainer.model.frozen.dtype == torch.bfloat16
    step(trainer)
    assert {one.dtype for one in trainer.adapters.parameters()} == {torch.float32}
    assert all(one.grad is None for one in trainer.model.frozen.parameters())


def test_skipped_adapters_are_left_alone(tmp_path: Path) -> None:
    trainer = make(tmp_path, *NO_DROPOUT, "OPTIM.MAX_EPOCH", 8, name="CoTo")
    draws = iter([[0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 1, 0.0]])
    trainer.draw = lambda: torch.tensor(next(draws), dtype=torch.float32)
    step(trainer)
    skipped = [one for group in (0, 2) for one in trainer.groups[group]]
    before = [
        (p, p.clone(), {k: v.clone() for k, v in trainer.optim.state[p].items()})
        for adapter in skipped
        for p in adapter.parameters()
    ]
    step(trainer)  # nothing is active in the first draw, which is repeated
    lower, upper = trainer.model.adapted.visual.transformer.blocks
    seen: list[bool] = []
    for block in (lower, upper):
        block.register_forward_hook(lambda *hooked: seen.append(hooked[2].requires_grad))
    trainer.model.adapted.encode_image(images("vit"))
    assert seen == [False, True]  # no backward pass below the lowest active adapter
    for parameter, value, state in before:
        assert parameter.grad is None
        assert parameter.equal(value)
        assert all(trainer.optim.state[parameter][key].equal(old) for key, old in state.items())
    for adapter in trainer.groups[1] + trainer.groups[3]:
        assert adapter.A.grad is not None and adapter.A.grad.any()
    with torch.no_grad():
        skipping = trainer.model(images("vit"))
        with trainer.cached_text_features():
            assert not torch.allclose(trainer.model(images("vit")), skipping, atol=0.1)


POSITIONS = {
    "all": range(12),
    "bottom": range(4),
    "mid": range(4, 8),
    "up": range(8, 12),
    "half-bottom": range(6),
    "half-up": range(6, 12),
    "top3": range(9, 12),
}


@pytest.mark.parametrize("position", POSITIONS)
def test_positions_of_twelve_blocks(position: str) -> None:
    settings = LoRASettings("text", ("q",), position, (), 2, 1.0, 0.0, "sqrt")
    assert settings.blocks_of("text", 12) == list(POSITIONS[position])


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("R", 0), [r"CLIPLORA.R is 0", "at least 1"]),
        (("ALPHA", 0.0), ["ALPHA is 0"]),
        (("DROPOUT", 1.0), ["DROPOUT is 1"]),
        (("SCALING", "root"), ["SCALING is 'root'", "sqrt, rank"]),
        (("ENCODER", "image"), ["ENCODER is 'image'", "text, both|vision, text"]),
        (("PARAMS", ["q", "x"]), ["PARAMS is 'q, x'"]),
        (("PARAMS", []), ["PARAMS"]),
        (("POSITION", "middle"), ["POSITION is 'middle'", "half-up"]),
        (("BLOCKS", [0, 12]), [r"BLOCKS is \[0, 12\]", "vision tower has the blocks 0 to 11"]),
        (("BLOCKS", [1, 1]), ["each once"]),
        (("ENCODER", "both", "MODEL.BACKBONE.NAME", "RN50"), ["is a ResNet", "ENCODER text"]),
        (("INPUT.TRAIN_VIEWS", 4), ["TRAIN_VIEWS is 4", "ENCODER text"]),
        (("OPTIM.WARMUP_EPOCH", 1), ["one cosine", "WARMUP_EPOCH 0"]),
        (("TRAINER.COTO.INITIAL_P", 0.0), ["INITIAL_P is 0", "no adapter is ever drawn"]),
        (("TRAINER.COTO.MODULES", -1), ["MODULES is -1"]),
    ],
)
def test_refused_before_anything_is_loaded(options: Options, parts: list[str]) -> None:
    pairs = zip(options[::2], options[1::2], strict=True)
    named = [
        part
        for key, value in pairs
        for part in (key if "." in key else f"TRAINER.CLIPLORA.{key}", value)
    ]
    base = ["TRAINER.NAME", "CoTo", "MODEL.BACKBONE.NAME", "ViT-B/16", "OPTIM.LR_SCHEDULER"]
    with refused(*parts):
        check_trainer(load_config(opts=[*base, "cosine", *named]))


def test_a_tower_of_other_weights_is_checked_when_it_is_known(tmp_path: Path) -> None:
    with refused("is a ResNet"):
        make(tmp_path, arch="rn")
    with refused(r"BLOCKS is \[2\]", "0 to 1"):
        make(tmp_path, "TRAINER.CLIPLORA.BLOCKS", [2])
    with refused("POSITION mid selects no block"):
        make(tmp_path, "TRAINER.CLIPLORA.POSITION", "mid")


@pytest.mark.parametrize("players", [1, 3, 5])
def test_shapley_values_sum_to_the_gain(players: int) -> None:
    generator = torch.Generator().manual_seed(players)
    values = torch.rand(2**players, 2, generator=generator, dtype=torch.float64)
    gain = values[-1] - values[0]
    torch.testing.assert_close(shapley(values).sum(0), gain)
    sampled = sampled_shapley(lambda subset: values[subset].tolist(), players, 3, seed=0)
    torch.testing.assert_close(sampled.sum(0), gain)
    additive = torch.tensor([[float(bin(subset).count("1"))] for subset in range(2**players)])
    torch.testing.assert_close(shapley(additive.double()), torch.ones(players, 1).double())
