"""What docs/weights.md shows works: its commands run on tiny models under the names it uses."""

import re
import shlex
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from PIL import Image

import train
from tests.helpers.runs import ROOT, results
from tests.helpers.tiny_transformers import write_folder, write_json

PAGE = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")
COMMANDS = {
    arguments[arguments.index("--output-dir") + 1].removeprefix("output/"): arguments
    for arguments in (
        shlex.split(match)[2:]
        for match in re.findall(r"^ {4}\S*python train\.py .*", PAGE.replace("\\\n", ""), re.M)
    )
}
OPENAI_MEAN, OPENAI_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
MODEL_CFG: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 224, "layers": 1, "width": 24, "head_width": 2, "patch_size": 32},
    "text_cfg": {"width": 16, "heads": 8, "layers": 1},
}
# What each command's model must be found to have.
FOUND = {
    "transformers": ("gelu", "read", "read"),
    "hub": ("gelu", "read", "read"),
    "open_clip": ("gelu", "read", "read"),
    "checkpoint": ("gelu", "set", "set"),
}


def _of_transformers(folder: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    text = {"hidden_size": 16, "intermediate_size": 64, "num_attention_heads": 8}
    vision = {"hidden_size": 24, "intermediate_size": 96, "num_attention_heads": 12}
    one = {"num_hidden_layers": 1, "hidden_act": "gelu"}
    config = CLIPConfig(text_config=text | one, vision_config=vision | one, projection_dim=8)
    write_folder(folder, CLIPModel(config))
    images = {"image_mean": OPENAI_MEAN, "image_std": OPENAI_STD}
    write_json(folder / "preprocessor_config.json", images)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's weights and data."""
    root = tmp_path_factory.mktemp("project")
    (root / "configs").symlink_to(ROOT / "configs")
    weights = root / "weights"
    _of_transformers(weights / "clip-vit-base-patch32")
    cached = root / "cache" / "models--openai--clip-vit-base-patch32"
    _of_transformers(cached / "snapshots" / ("0" * 40))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0" * 40)

    theirs = open_clip.CLIP(**MODEL_CFG)
    (weights / "open_clip_vit_b32").mkdir()
    write_json(weights / "open_clip_vit_b32" / "open_clip_config.json", {"model_cfg": MODEL_CFG})
    torch.save(theirs.state_dict(), weights / "open_clip_vit_b32" / "open_clip_pytorch_model.bin")
    state = {f"module.{key}": value for key, value in theirs.state_dict().items()}
    torch.save({"epoch": 32, "state_dict": state}, weights / "epoch_32.pt")

    for part in ("train", "val", "test"):
        for number, name in enumerate(("cat", "dog")):
            folder = root / "DATA" / "pets" / part / name
            folder.mkdir(parents=True)
            for index in range(2):
                Image.new("RGB", (40, 30), (90 * number, 50 * index, 7)).save(
                    folder / f"{index}.png"
                )
    return root


def test_the_page_has_its_commands() -> None:
    assert set(FOUND) == set(COMMANDS)
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
    assert "(weights.md)" in (ROOT / "docs" / "howto.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FOUND)
def test_a_command_runs(name: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    downloads = ("MODEL.CLIP.DOWNLOAD_ROOT", str(project / "cache"))
    assert train.main([*COMMANDS[name], *downloads, "DATALOADER.NUM_WORKERS", "0"]) == 0
    run = results(project / "output" / name)
    activation, origin, heads = FOUND[name]
    assert run["status"] == "finished"
    assert run["clip"]["activation"] == {"value": activation, "origin": origin}
    assert run["clip"]["vision_heads"] == {"value": 12, "origin": heads}
    assert run["clip"]["text_heads"]["value"] == 8
    normalised = "set" if name in ("checkpoint", "open_clip") else "read"
    assert run["clip"]["pixel_mean"]["origin"] == normalised
