"""Config files load, and their published names mean what the published files contain."""

from pathlib import Path
from typing import Any

import pytest

import datasets  # noqa: F401  (registers)
from dassl.config import CfgNode, load_config
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY, build
from nemesis.sweeps.grid import make_runs
from nemesis.sweeps.sweep_file import read_sweep
from safeio.errors import UserError
from tests.helpers.runs import ROOT
from trainers.config_names import BACKBONES, CONFIGS, TRAINERS, config_file, names_of, resolve_name

WORDS, NAME = "a photo of a", "MODEL.BACKBONE.NAME"
# The papers' backbones by their spelling in the published names.
PAPERS = {"rn50": "RN50", "rn101": "RN101", "vit_b16": "ViT-B/16", "vit_b32": "ViT-B/32"}
# Of files with other backbones than OpenAI's and `mini`.
OWN = {"mini_vit": "mini_vit", "timm_vit_b16": "timm:vit_base_patch16_224.augreg_in21k"}
# {end of the published name: (epochs, batch size, N_CTX, CTX_INIT)}
COOP = {
    f"{epochs}{ctxv1}": (int(epochs[3:] or 200), 32, 16, WORDS if ctxv1 else "")
    for epochs in ("", "_ep50", "_ep100")
    for ctxv1 in ("", "_ctxv1")
}
COCOOP = {f"_c{n}_ep10_batch1": (10, 1, n, "") for n in (4, 8, 16)}
COCOOP["_c4_ep10_batch1_ctxv1"] = (10, 1, 4, WORDS)


def load(trainer: str, name: str) -> CfgNode:
    return load_config(config_file=config_file(f"trainers/{trainer}", name))


def test_every_file_loads() -> None:
    methods = sorted(TRAINERS.rglob("*.yaml"))
    data = sorted((CONFIGS / "datasets").glob("*.yaml"))
    for path in methods:
        assert load_config(config_file=str(path)).OPTIM.NAME == "sgd"
        assert path.parent == TRAINERS or path.parent.name in TRAINER_REGISTRY
    names = {load_config(dataset_config_file=str(path)).DATASET.NAME for path in data}
    assert len(names) == len(data) and names <= set(DATASET_REGISTRY.registered_names())
    assert methods and data


def test_every_trainer_has_every_backbone_and_the_mini_config() -> None:
    for trainer in TRAINER_REGISTRY.registered_names():
        for name in names_of(trainer):
            assert {**BACKBONES, **OWN}.get(name, "mini") == load(trainer, name).MODEL.BACKBONE.NAME
        assert {*BACKBONES, "mini"} <= set(names_of(trainer))


@pytest.mark.parametrize("nemesis", ["", "Nemesis"])
@pytest.mark.parametrize("method", ["CoOp", "CoCoOp", "PLOT"])
def test_published_names(method: str, nemesis: str) -> None:
    for backbone, clip_name in PAPERS.items():
        for end, values in (COCOOP if method == "CoCoOp" else COOP).items():
            cfg = load(method + nemesis, backbone + end)
            own, batch = cfg.TRAINER[method.upper()], cfg.DATALOADER.TRAIN_X.BATCH_SIZE
            assert (cfg.OPTIM.MAX_EPOCH, batch, own.N_CTX, own.CTX_INIT) == values
            assert (0.002, clip_name) == (cfg.OPTIM.LR, cfg.MODEL.BACKBONE.NAME)


def test_coops_validation_config_differs_in_batches_and_split_alone() -> None:
    batches = {f"DATALOADER.{part}.BATCH_SIZE": 200 for part in ("TRAIN_X", "TEST")}
    rn50 = config_file("trainers/CoOp", "rn50")
    same = load_config(config_file=rn50, flag_overrides={**batches, "TEST.SPLIT": "val"})
    assert load("CoOp", "rn50_val") == load("PLOTNemesis", "rn50_val") == same


def test_a_path_as_published_scripts_give_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    path, settings = "configs/trainers/CoOp/rn50_ep50.yaml", "NAME 'RN50', OPTIM.MAX_EPOCH 50"
    cfg = load_config(config_file=path)
    assert cfg == load("CoOp", "rn50_ep50") and not Path(path).exists()
    assert cfg.notes == [f"{path} means configs/trainers/recipe.yaml, MODEL.BACKBONE.{settings}"]


@pytest.mark.parametrize(
    ("path", "base", "settings"),
    [
        ("CoOpNemesis/mini_ctx16", "CoOp/mini_ctx16", {}),
        ("CoCoOpNemesis/mini", "CoCoOp/mini", {}),
        ("ZeroshotCLIP2/mini", "mini", {}),
        ("PLOTNemesis/mini_csc", "PLOTNemesis/mini", {"TRAINER.PLOT.CSC": True}),
        ("PLOT/mini_nctx8", "PLOT/mini", {"TRAINER.PLOT.N_CTX": 8, "TRAINER.PLOT.CTX_INIT": ""}),
        ("ZeroshotCLIP/vit_l14_ep3", "recipe", {NAME: "ViT-L/14", "OPTIM.MAX_EPOCH": 3}),
        ("rn50x4", "recipe", {NAME: "RN50x4", "INPUT.SIZE": (288, 288)}),
    ],
)
def test_rules(path: str, base: str, settings: dict[str, Any]) -> None:
    content = {"_BASE_": str(TRAINERS / f"{base}.yaml"), **settings}
    assert resolve_name(TRAINERS / f"{path}.yaml") == content


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("CoOp/rn5_ep50", ['"rn5_ep50" starts with', 'did you mean "rn50"?', "vit_b16"]),
        ("CoOp/rn50_epp50", ['the word "epp50"', 'did you mean "epN"?', "ctxv1, csc"]),
        ("PLOT/rn50_ep", ['the word "ep"', 'did you mean "epN"?']),
        ("ZeroshotCLIP/rn50_ctxv1", ['the word "ctxv1"', "available: epN, batchN, val"]),
        ("CoCoOp/mini_csc", ['the word "csc"']),
        ("CoOpp/rn50", ['did you mean "CoOp"?']),
    ],
)
def test_a_bad_name(path: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load(*path.split("/"))
    assert f"configs/trainers/{path}.yaml does not exist: " in str(caught.value)
    assert all(part in str(caught.value) for part in parts)


def test_elsewhere_a_missing_file_is_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "CoOp/rn50.yaml", TRAINERS / "CoOp/rn50.yml", TRAINERS / "a/b/c.yaml"):
        with pytest.raises(UserError, match=r"ml does not exist$"):
            load_config(config_file=str(path))
    with pytest.raises(UserError, match='did you mean "emoji_food"'):
        config_file("datasets", "emoji_fod")
    assert config_file("datasets", "EmojiFood") == config_file("datasets", "emoji_food")
    own = tmp_path / "own.yaml"
    own.write_text(f"_BASE_: {TRAINERS}/PLOTNemesis/rn50_ep50.yaml\nSEED: 3\n")
    assert load_config(config_file=str(own)).OPTIM.MAX_EPOCH == 50


def test_the_strength_of_nemesis_depends_on_the_dataset() -> None:
    strong = (50, "constant")
    expected = {"imagenet": (10, "logistic"), "oxford_pets": strong, "food101": strong}
    for dataset, values in {**expected, "caltech101": (1, "logistic")}.items():
        node = load_config(config_file("datasets", dataset)).TRAINER.NEMESIS
        assert values == (node.OMEGA, node.SCHEDULE)
    method = config_file("trainers/PLOTNemesis", "mini")  # its OMEGA overrides the dataset's
    assert load_config(config_file("datasets", "food101"), method).TRAINER.NEMESIS.OMEGA == 0.05


def test_the_head_of_a_run_states_where_settings_come_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "build_trainer", lambda *arguments: None)
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(
        "{output: runs, datasets: [oxford_pets], shots: [1], seeds: [1], config: rn50_ep50,"
        "methods: {CoOp: , CoOpNemesis: {set: {TRAINER.NEMESIS.SCHEDULE: logistic}}}}"
    )
    heads = []
    for run in make_runs(read_sweep(sweep)):
        build.build_and_seed(run.cfg())
        heads.append(capsys.readouterr().out.partition("** Config **")[0].splitlines())
    (of_coop,), (omega, of_nemesis) = heads
    assert omega.startswith("Note: ")
    assert omega.endswith("configs/datasets/oxford_pets.yaml sets TRAINER.NEMESIS.OMEGA 50.0")
    assert of_coop.endswith("OPTIM.MAX_EPOCH 50") and of_nemesis.endswith("OPTIM.MAX_EPOCH 50")
