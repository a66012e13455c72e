"""Config files load, and their published names mean what the published files contain."""

from pathlib import Path
from typing import Any

import pytest

import datasets  # noqa: F401  (registers)
from dassl.config import CfgNode, identifying_settings, load_config
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY, build, check_trainer
from nemesis.sweeps.grid import make_runs
from nemesis.sweeps.sweep_file import read_sweep
from safeio.errors import UserError
from tests.helpers.runs import ROOT
from trainers.config_names import BACKBONES, CONFIGS, TRAINERS, config_file, names_of, resolve_name

WORDS, NAME = "a photo of a", "MODEL.BACKBONE.NAME"
# The papers' backbones by their spelling in the published names.
PAPERS = {"rn50": "RN50", "rn101": "RN101", "vit_b16": "ViT-B/16", "vit_b32": "ViT-B/32"}
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
        assert load_config(config_file=str(path)).OPTIM.NAME in ("sgd", "adam", "adamw")
        assert path.parent == TRAINERS or path.parent.name in TRAINER_REGISTRY
    names = {load_config(dataset_config_file=str(path)).DATASET.NAME for path in data}
    assert len(names) == len(data) and names <= set(DATASET_REGISTRY.registered_names())
    assert methods and data


def test_every_trainer_has_every_backbone_and_the_mini_config() -> None:
    timm = {"timm_vit_b16": "timm:vit_base_patch16_224.augreg_in21k"}
    backbones = {**BACKBONES, "mini_vit": "mini_vit", "mini": "mini", **timm}
    for trainer in TRAINER_REGISTRY.registered_names():
        for name in names_of(trainer):
            stem = max(filter(name.startswith, backbones), key=len)
            assert backbones[stem] == load(trainer, name).MODEL.BACKBONE.NAME
        assert {*BACKBONES, "mini", "mini_vit"} <= set(names_of(trainer))


@pytest.mark.parametrize("nemesis", ["", "Nemesis"])
@pytest.mark.parametrize("method", ["CoOp", "CoCoOp", "PLOT"])
def test_published_names(method: str, nemesis: str) -> None:
    for backbone, clip_name in PAPERS.items():
        for end, values in (COCOOP if method == "CoCoOp" else COOP).items():
            cfg = load(method + nemesis, backbone + end)
            own, batch = cfg.TRAINER[method.upper()], cfg.DATALOADER.TRAIN_X.BATCH_SIZE
            assert (cfg.OPTIM.MAX_EPOCH, batch, own.N_CTX, own.CTX_INIT) == values
            assert (0.002, clip_name) == (cfg.OPTIM.LR, cfg.MODEL.BACKBONE.NAME)


# {method: {published name: (n_t, n_v, d_t, d_v, learning rate, epochs)}}, all with "a photo of a".
TOWERS: dict[str, dict[str, tuple[int, int, int, int, float, int]]] = {
    "VPT": {"vit_b16_c2_ep5_batch4_4": (0, 8, 0, 12, 0.0025, 5)},
    "IVLP": {
        "vit_b16_c2_ep5_batch4_2+2ctx": (2, 2, 12, 12, 0.0035, 5),
        "vit_b16_c2_ep5_batch4_4ctx_language_only": (4, 2, 12, 0, 0.0025, 5),
        "vit_b16_c2_ep20_batch4_4+4ctx": (4, 4, 9, 9, 0.0025, 20),
    },
    "MaPLe": {
        "vit_b16_c2_ep5_batch4_2ctx": (2, 2, 9, 9, 0.0035, 5),
        "vit_b16_c2_ep5_batch4_2ctx_cross_datasets": (2, 2, 3, 3, 0.0026, 2),
    },
    "PromptSRC": {
        "vit_b16_c2_ep20_batch4_4+4ctx": (4, 4, 9, 9, 0.0025, 20),
        "vit_b16_c2_ep20_batch4_4+4ctx_cross_datasets": (4, 4, 3, 3, 0.0025, 20),
        "vit_b16_c2_ep50_batch4_4+4ctx_few_shot": (4, 4, 9, 9, 0.0025, 50),
    },
}


@pytest.mark.parametrize("nemesis", ["", "Nemesis"])
@pytest.mark.parametrize("method", TOWERS)
def test_published_names_of_prompts_in_both_encoders(method: str, nemesis: str) -> None:
    for name, values in TOWERS[method].items():
        cfg = load(method + nemesis, name)
        text, vision = object.__new__(TRAINER_REGISTRY.get(method)).shapes(cfg)
        sizes = (text.length, vision.length, text.depth, vision.depth)
        assert (*sizes, cfg.OPTIM.LR, cfg.OPTIM.MAX_EPOCH) == values
        parts = (cfg.DATALOADER.TRAIN_X, cfg.DATALOADER.TEST)
        assert [part.BATCH_SIZE for part in parts] == [4, 100]
        assert cfg.TRAINER[method.upper()].get("CTX_INIT", WORDS) == WORDS
        assert cfg.MODEL.BACKBONE.NAME == "ViT-B/16"


@pytest.mark.parametrize(
    ("end", "usual", "on_eurosat"),
    [
        ("ep20_batch4_4+4ctx", (15, 1), (15, 1)),
        ("ep20_batch4_4+4ctx_cross_datasets", (6, 10), (6, 10)),
        ("ep50_batch4_4+4ctx_few_shot", (30, 30), (45, 5)),
    ],
)
def test_the_aggregation_depends_on_the_protocol_and_the_dataset(
    end: str, usual: tuple[int, int], on_eurosat: tuple[int, int]
) -> None:
    """And for methods without it, no dataset's value counts."""
    method = config_file("trainers/PromptSRC", f"vit_b16_c2_{end}")
    for dataset, expected in (("caltech101", usual), ("eurosat", on_eurosat)):
        data = config_file("datasets", dataset)
        for trainer in ("PromptSRC", "PromptSRCNemesis"):
            node = load_config(data, method, {"TRAINER.NAME": trainer}).TRAINER.PROMPTSRC
            assert expected == (node.GPA_MEAN, node.GPA_STD)
        other = load_config(data, flag_overrides={"TRAINER.NAME": "CoOp"})
        assert "PROMPTSRC" not in identifying_settings(other)["TRAINER"]


@pytest.mark.parametrize("nemesis", ["", "Nemesis"])
@pytest.mark.parametrize(
    ("method", "name", "values"),
    [
        ("KgCoOp", "vit_b16_ep100_ctxv1", (100, 128, 4, WORDS, "sgd")),
        ("KgCoOp", "vit_b16", (100, 128, 4, WORDS, "sgd")),
        ("ProGrad", "rn50_ep50", (50, 32, 16, "", "sgd")),
        ("ProGrad", "vit_b16_ep100", (100, 32, 16, "", "sgd")),
        ("TCP", "vit_b16_ep50", (50, 32, 4, "", "adam")),
        ("TCP", "vit_b16_ep100_ctxv1", (100, 32, 4, WORDS, "adam")),
    ],
)
def test_names_of_methods_with_a_teacher(
    method: str, name: str, values: tuple[Any, ...], nemesis: str
) -> None:
    cfg = load(method + nemesis, name)
    own, batch = cfg.TRAINER[method.upper()], cfg.DATALOADER.TRAIN_X.BATCH_SIZE
    assert values == (cfg.OPTIM.MAX_EPOCH, batch, own.N_CTX, own.CTX_INIT, cfg.OPTIM.NAME)
    assert (1e-3 if method == "TCP" else 1e-8) == cfg.OPTIM.ADAM_EPS
    assert own.get("WORDS", True) and own.get("W", 8.0) == 8.0


def test_templates_of_the_datasets() -> None:
    """Every template has a place for the name; the words of ProGrad fit its 16 vectors."""
    for path in sorted((CONFIGS / "datasets").glob("*.yaml")):
        for method in ("KgCoOp", "ProGrad", "TCP"):
            settings = {"TRAINER.NAME": method, "MODEL.BACKBONE.NAME": "ViT-B/16"}
            recipe = config_file(f"trainers/{method}", "vit_b16")
            check_trainer(load_config(str(path), recipe, settings))
    pets = load_config(config_file("datasets", "oxford_pets")).TRAINER
    assert pets.TCP.STUDENT == "X X X X {}, a type of pet."
    assert pets.PROGRAD.TEACHER == "a type of pet, a photo of a {}."


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
        ("CoOpNemesis/mini_vit", "CoOpNemesis/mini", {NAME: "mini_vit"}),
        ("PLOT/mini_vit_ep3", "PLOT/mini", {NAME: "mini_vit", "OPTIM.MAX_EPOCH": 3}),
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
