"""The second bundled CLIP: its encoders, and that methods run on it."""

from pathlib import Path

import pytest
import torch

from clip.vision_transformer import VisionTransformer
from clip.weights import load_clip
from tests.helpers.runs import SHORT, command, finish, results


def test_it_is_the_first_with_a_vision_transformer() -> None:
    first, second = (load_clip(name).model for name in ("mini", "mini_vit"))
    assert isinstance(second.visual, VisionTransformer)
    assert (second.config.image_resolution, second.config.vision_patch_size) == (64, 8)
    text = {k: v for k, v in first.state_dict().items() if not k.startswith("visual.")}
    for name, value in text.items():
        torch.testing.assert_close(second.state_dict()[name], value, rtol=0, atol=0)


# Only the class token was trained to match names, so PLOT's local features are far from them.
@pytest.mark.slow
@pytest.mark.parametrize(("trainer", "least"), [("CoOp", 50), ("PLOTNemesis", 4)])
def test_methods_learn_on_it(trainer: str, least: float, tmp_path: Path, data_root: Path) -> None:
    finish(command(tmp_path / "run", data_root, *SHORT, trainer=trainer, config="mini_vit"))
    found = results(tmp_path / "run")
    assert found["accuracy"] > least and found["backbone"] == "mini_vit"
