"""The commands of docs/ run on small folders of pictures and tiny models of the same names."""

import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel

import train
from clip.weights import BUNDLED
from datasets.emoji import concepts_of, write_scenes
from tests.helpers.own_images import write_csv
from tests.helpers.pages import code_with, runs_of
from tests.helpers.runs import ROOT, finish_in, results
from tests.helpers.tiny_transformers import write_cache, write_folder, write_json

SHORT = ("OPTIM.MAX_EPOCH", "2", "DATALOADER.NUM_WORKERS", "0")
HOWTO, WEIGHTS, MIGRATION = (runs_of(f"{p}.md") for p in ("extend", "weights", "migration"))
OWN_FILES = {"my_pets": ("CoOp",), "anchored": ("Anchored", "AnchoredNemesis")}
CLASSES = [concept.slug for concept in concepts_of("activities")[:3]]


# docs/extend.md


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with the files of docs/extend.md, and its data folder."""
    root = tmp_path_factory.mktemp("checkout")
    for shared in ("train.py", "safeio", "clip", "dassl", "configs"):
        (root / shared).symlink_to(ROOT / shared)
    for copied in ("trainers", "datasets"):
        shutil.copytree(ROOT / copied, root / copied)
    (root / "datasets/my_pets.py").write_text(code_with("class MyPets"), encoding="utf-8")
    (root / "trainers/anchored.py").write_text(code_with("class Anchored("), encoding="utf-8")
    (root / "weights").mkdir()
    shutil.copy(BUNDLED["mini"], root / "weights" / "my_clip.safetensors")
    make_data(root / "DATA")
    return root


def make_data(data: Path) -> None:
    """Three classes of eight scenes in each layout of the page."""
    scenes = data / "scenes"
    scenes.mkdir(parents=True)
    write_scenes("noto", CLASSES, scenes)
    rows = [["path", "label"]]
    for number, name in enumerate(CLASSES):
        for index, path in enumerate(sorted((scenes / name).iterdir())[:8]):
            part = ("train", "train", "val", "test")[index % 4]
            for relative in (
                f"pets/{part}/{name}/{index}.jpg",
                f"birds/{name}/{index}.jpg",
                f"plants/pictures/{name}_{index}.jpg",
                f"my_pets/images/{name}_{index}.jpg",
            ):
                target = data / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                with Image.open(path) as image:
                    image.save(target)
            rows.append([f"pictures/{name}_{index}.jpg", f"class {number}"])
    rows.append(["pictures/broken.jpg", "class 0"])
    (data / "plants" / "pictures" / "broken.jpg").write_text("no image")
    write_csv(data / "plants" / "labels.csv", rows)
    shutil.rmtree(scenes)


@pytest.mark.parametrize("name", [n for n in HOWTO if n not in ("laion", *OWN_FILES)])
def test_own_data_and_weights(name: str, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)
    assert train.main([*HOWTO[name], *SHORT]) == 0
    run, log = (
        results(checkout / "output" / name),
        (checkout / f"output/{name}/log.txt").read_text(),
    )
    assert run["status"] == "finished" and run["dataset"] == "Folder" and run["num_test"] >= 6
    if name == "plants":
        assert run["skipped_images"] == log.count("broken.jpg: ")  # 0 if it is not drawn
        assert (checkout / "DATA" / "plants" / "split_labels.json").is_file()
    if name == "birds":
        assert (checkout / "DATA" / "birds" / "split_Folder.json").is_file()
        assert "a photo of a" in log and ", a type of bird." in log


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN_FILES)
def test_own_dataset_and_trainer_files(name: str, checkout: Path) -> None:
    for trainer in OWN_FILES[name]:
        output = checkout / "output" / f"{name}_{trainer}"
        arguments = [*HOWTO[name], *SHORT]
        arguments[arguments.index("--trainer") + 1] = trainer
        arguments[arguments.index("--output-dir") + 1] = str(output)
        finish_in(checkout, arguments)
        assert results(output)["trainer"] == trainer
        assert name != "anchored" or '"distance": ' in (output / "history.jsonl").read_text()


# docs/migration.md


@pytest.mark.slow
def test_migration(tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands run one after the other."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    data_root.mkdir(exist_ok=True)
    (tmp_path / "DATA").symlink_to(data_root)
    for words in MIGRATION.values():
        short = [word.replace("model.pth.tar-14", "model.pth.tar-1") for word in words]
        assert train.main([*short, "OPTIM.MAX_EPOCH", "1", "DATASET.NUM_SHOTS", "1"]) == 0
    log = (tmp_path / "output" / "further" / "log.txt").read_text(encoding="utf-8")
    assert "Loaded pretrained weights from output/first/prompt_learner" in log
    assert log.count("* accuracy: ") == 1 and "* perclass_acc: " in log


# docs/weights.md

MODEL_CFG: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 224, "layers": 1, "width": 24, "head_width": 2, "patch_size": 32},
    "text_cfg": {"width": 16, "heads": 8, "layers": 1},
}
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def of_transformers() -> CLIPModel:
    text = {"hidden_size": 16, "intermediate_size": 64, "num_attention_heads": 8}
    vision = {"hidden_size": 24, "intermediate_size": 96, "num_attention_heads": 12}
    one = {"num_hidden_layers": 1, "hidden_act": "gelu"}
    towers: Any = {"text_config": text | one, "vision_config": vision | one}
    return CLIPModel(CLIPConfig(**towers, projection_dim=8))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights and data of docs/weights.md."""
    root = tmp_path_factory.mktemp("project")
    (root / "configs").symlink_to(ROOT / "configs")
    weights = root / "weights"
    images = {"image_mean": MEAN, "image_std": STD}
    for folder in (
        write_folder(weights / "clip-vit-base-patch32", of_transformers()),
        write_cache(root / "cache", of_transformers(), "openai/clip-vit-base-patch32"),
    ):
        write_json(folder / "preprocessor_config.json", images)
    state, folder = open_clip.CLIP(**MODEL_CFG).state_dict(), weights / "open_clip_vit_b32"
    folder.mkdir()
    write_json(folder / "open_clip_config.json", {"model_cfg": MODEL_CFG})
    torch.save(state, folder / "open_clip_pytorch_model.bin")
    parallel = {f"module.{key}": value for key, value in state.items()}
    torch.save({"epoch": 32, "state_dict": parallel}, weights / "epoch_32.pt")

    for part in ("train", "val", "test"):
        for number, name in enumerate(("cat", "dog")):
            pets = root / "DATA" / "pets" / part / name
            pets.mkdir(parents=True)
            for index in range(2):
                colour = (90 * number, 50 * index, 7)
                Image.new("RGB", (40, 30), colour).save(pets / f"{index}.png")
    return root


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_of_other_programs(
    name: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    more = ("MODEL.CLIP.DOWNLOAD_ROOT", str(project / "cache"), "DATALOADER.NUM_WORKERS", "0")
    assert train.main([*WEIGHTS[name], *more]) == 0
    run = results(project / "output" / name)
    origin = "set" if name == "checkpoint" else "read"
    assert run["status"] == "finished"
    assert run["clip"]["activation"] == {"value": "gelu", "origin": origin}
    assert run["clip"]["vision_heads"] == {"value": 12, "origin": origin}
    assert run["clip"]["text_heads"]["value"] == 8
    normalised = "set" if name in ("checkpoint", "open_clip") else "read"
    assert run["clip"]["pixel_mean"]["origin"] == normalised
