"""Settings that shapes do not determine: read from files, set, or assumed, and always reported."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from clip import download
from clip.weights import BUNDLED, load_clip
from dassl.config import load_config
from dassl.utils import reuse_loaded
from nemesis.inference.predictions import most_probable
from safeio.errors import UserError
from tests.helpers.runs import Capture, command, finish, refuse, results
from tests.helpers.tiny_transformers import their_clip, write_folder, write_json
from tests.helpers.weights_files import refused_path
from trainers.core.frozen_clip import load_frozen_clip

TEXT = {"context_length": 77, "vocab_size": 60, "width": 32, "heads": 4, "layers": 2}
VIT = {"image_size": 32, "layers": 2, "width": 160, "head_width": 80, "patch_size": 8}
RESNET = {"image_size": 32, "layers": [1, 1, 2, 1], "width": 4, "head_width": 32}
MEAN, STD = [0.5, 0.4, 0.3], [0.3, 0.2, 0.25]


def model_cfg(vision: dict[str, Any], quick: bool) -> dict[str, Any]:
    content = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT}
    return {**content, **({"quick_gelu": True} if quick else {})}


def their_model(vision: dict[str, Any], quick: bool, custom: bool = False) -> Any:
    torch.manual_seed(0)
    build = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    model = build(**model_cfg(vision, quick)).eval()
    with torch.no_grad():  # large enough for the activation and the heads to matter
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(2)
    return model


def write_open_clip(folder: Path, model: Any, vision: dict[str, Any], quick: bool) -> Path:
    folder.mkdir(exist_ok=True)
    images = {"mean": MEAN, "std": STD, "interpolation": "bicubic"}
    content = {"model_cfg": model_cfg(vision, quick), "preprocess_cfg": images}
    write_json(folder / "open_clip_config.json", content)
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder


def assert_same_features(ours: Any, theirs: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 32, 32, generator=draw)
    tokens = torch.zeros(2, 77, dtype=torch.long)
    tokens[0, :4] = torch.tensor([1, 5, 7, 59])
    tokens[1, :9] = torch.tensor([1, 9, 8, 7, 6, 5, 4, 3, 59])
    with torch.no_grad():
        for own, other in (
            (ours.encode_image(images), theirs.encode_image(images)),
            (ours.encode_text(tokens), theirs.encode_text(tokens)),
        ):
            own, other = (torch.nn.functional.normalize(value, dim=-1) for value in (own, other))
            torch.testing.assert_close(own, other, atol=2e-5, rtol=0)


@pytest.mark.parametrize("quick", [False, True], ids=["gelu", "quick_gelu"])
@pytest.mark.parametrize("vision", [VIT, RESNET], ids=["vit", "resnet"])
@pytest.mark.parametrize("custom", [False, True], ids=["plain", "custom text"])
def test_a_folder_of_open_clip(
    vision: dict[str, Any], quick: bool, custom: bool, tmp_path: Path
) -> None:
    theirs = their_model(vision, quick, custom)
    folder = write_open_clip(tmp_path / "theirs", theirs, vision, quick)
    loaded = load_clip(str(folder))
    assert_same_features(loaded.model, theirs)
    assert (list(loaded.pixel_mean), list(loaded.pixel_std)) == (MEAN, STD)
    assert set(loaded.origins.values()) == {"read"}
    assert loaded.facts["described_by"] == "open_clip_config.json"

    # A checkpoint of their training, with the description copied next to it.
    state = {f"module.{key}": value for key, value in theirs.state_dict().items()}
    torch.save({"epoch": 3, "name": "x", "state_dict": state}, folder / "epoch_3.pt")
    assert_same_features(load_clip(str(folder / "epoch_3.pt")).model, theirs)


def test_config_json_describes_other_files_next_to_it(tmp_path: Path) -> None:
    theirs = their_clip("gelu")
    folder = write_folder(tmp_path / "theirs", theirs)
    model = load_clip(str(folder)).model
    save_file(model.state_dict(), folder / "converted.safetensors")
    loaded = load_clip(str(folder / "converted.safetensors"))
    assert loaded.model.config == model.config
    write_json(folder / "config.json", {"learning_rate": 0.1})  # of another program
    assert "activation" in load_clip(str(folder / "converted.safetensors")).assumed


def _vision(**values: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda content: {**content, "vision_cfg": {**content["vision_cfg"], **values}}


CONTRADICTIONS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "image size": (_vision(image_size=64), "image_resolution is 64, but the tensors .* is 32"),
    "layers": (_vision(layers=3), "vision_layers is 3"),
    "patches": (_vision(patch_size=16), "vision_patch_size is 16"),
    "width": (_vision(width=80), "vision_width is 80"),
    "heads": (_vision(head_width=23), "6 heads cannot share"),
    "resnet": (_vision(layers=[1, 1, 1, 1], head_width=64), r"vision_layers is \(1, 1, 1, 1\)"),
    "embedding": (lambda content: {**content, "embed_dim": 32}, "embed_dim is 32"),
    "timm": (_vision(timm_model_name="vit"), r"not a plain CLIP \(vision_cfg.timm_model_name\)"),
    "coca": (lambda content: {**content, "multimodal_cfg": {}}, "not a plain CLIP"),
    "no towers": (lambda content: {"embed_dim": 3}, "not a group of settings"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_descriptions_that_do_not_fit(name: str, tmp_path: Path) -> None:
    change, part = CONTRADICTIONS[name]
    folder = write_open_clip(tmp_path / "theirs", their_model(VIT, False), VIT, False)
    content = {"model_cfg": change(model_cfg(VIT, False)), "preprocess_cfg": {}}
    write_json(folder / "open_clip_config.json", content)
    refused_path(folder, part)


@pytest.fixture
def plain_mini(tmp_path: Path) -> Path:
    """The bundled weights as a .pt that contains only tensors."""
    path = tmp_path / "my_clip.pt"
    torch.save(load_clip("mini").model.state_dict(), path)
    return path


KNOWN = {
    "activation": ("quick_gelu", "assumed"),
    "vision_heads": (12, "assumed"),
    "text_heads": (2, "set"),
    "image_size": (64, "read"),
    "pixel_mean": ([0.5, 0.5, 0.5], "set"),
}


def test_a_run_reports_what_is_assumed_and_set(
    plain_mini: Path, tmp_path: Path, data_root: Path
) -> None:
    run = tmp_path / "run"
    few = ("DATASET.NUM_SHOTS", "1", "INPUT.PIXEL_MEAN", "[0.5, 0.5, 0.5]")
    mine = [*command(run, data_root, *few, trainer="ZeroshotCLIP"), "MODEL.BACKBONE.NAME"]
    finish([*mine, str(plain_mini), "MODEL.CLIP.TEXT_HEADS", "2"])
    facts = results(run)["clip"]
    assert {key: tuple(facts[key].values()) for key in facts if key in KNOWN} == KNOWN
    assert facts["architecture"]["origin"] == "read"
    log = (run / "log.txt").read_text(encoding="utf-8")
    assert "activation quick_gelu (assumed)" in log
    assert "pixel_mean [0.5, 0.5, 0.5] (set)" in log
    warning = next(line for line in log.splitlines() if line.startswith("Warning: the activation"))
    assert "MODEL.CLIP.ACTIVATION, MODEL.CLIP.VISION_HEADS" in warning
    assert "TEXT_HEADS" not in warning


def _config(name: str | Path, *opts: Any) -> Any:
    size = ("INPUT.SIZE", "(64, 64)", "MODEL.BACKBONE.NAME", str(name))
    return load_config(opts=[*size, *map(str, opts)])


CPU = torch.device("cpu")


def test_settings_that_contradict_the_weights_are_refused(tmp_path: Path) -> None:
    shutil.copy(BUNDLED["mini"], tmp_path / "mine.safetensors")
    other = ("INPUT.PIXEL_MEAN", "[0.5, 0.5, 0.5]")
    with pytest.raises(UserError, match=r"is \[0.6, 0.6, 0.6\] according to the file's metadata"):
        load_frozen_clip(_config(tmp_path / "mine.safetensors", *other), CPU, "fp32")
    folder = write_folder(tmp_path / "theirs", their_clip())
    with pytest.raises(UserError, match=r"have 100 tokens, but the tokenizer .* has 49,408"):
        load_frozen_clip(_config(folder, "INPUT.SIZE", "(32, 32)"), CPU, "fp32")


def test_published_weights_are_known_by_their_hash(
    plain_mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = load_clip(str(plain_mini)).sha256
    monkeypatch.setitem(download.SHA256, "RN50", digest)
    loaded = load_clip(str(plain_mini))
    assert loaded.assumed == [] and loaded.facts["described_by"] == "OpenAI's RN50"
    cfg = _config(plain_mini, "INPUT.PIXEL_MEAN", "[0.5, 0.5, 0.5]")
    with pytest.raises(UserError, match="according to OpenAI's RN50"):
        load_frozen_clip(cfg, CPU, "fp32")


def test_a_changed_description_is_read_again(plain_mini: Path, capsys: Capture) -> None:
    """Also within one process, whose runs share their CLIP."""
    with reuse_loaded():
        first = load_frozen_clip(_config(plain_mini), CPU, "fp32")
        again = load_frozen_clip(_config(plain_mini), CPU, "fp32")
        config = vars(first.model.config)
        assert again.model is first.model
        vision = {"image_size": 64, "layers": list(config["vision_layers"])}
        vision |= {"width": config["vision_width"], "head_width": 64}
        text = {"context_length": config["context_length"], "vocab_size": config["vocab_size"]}
        text |= {"width": config["transformer_width"], "layers": config["transformer_layers"]}
        model = {"embed_dim": config["embed_dim"], "vision_cfg": vision}
        model["text_cfg"] = {**text, "heads": 2}
        write_json(plain_mini.parent / "open_clip_config.json", {"model_cfg": model})
        changed = load_frozen_clip(_config(plain_mini), CPU, "fp32")
    assert changed.model.config.activation == "gelu"
    assert "activation gelu (read)" in capsys.readouterr().out


def test_predictions_from_nan_are_refused() -> None:
    with pytest.raises(UserError, match="outputs are NaN or infinite"):
        most_probable(torch.full((1, 3), float("nan")), 2)


def test_nan_in_weights_ends_the_command_in_one_sentence(
    plain_mini: Path, tmp_path: Path, data_root: Path, capsys: Capture
) -> None:
    state = torch.load(plain_mini, weights_only=True)
    state["token_embedding.weight"][7, 0] = float("nan")
    torch.save(state, plain_mini)
    run = command(tmp_path / "run", data_root, trainer="ZeroshotCLIP")
    message = refuse([*run, "MODEL.BACKBONE.NAME", str(plain_mini)], capsys)
    assert "'token_embedding.weight' holds values that are NaN" in message
    assert not (tmp_path / "run" / "results.json").exists()
