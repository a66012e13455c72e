"""Configuration: defaults, declared groups, layers and the messages for mistakes."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from yacs.config import CfgNode as YacsNode

import trainers  # noqa: F401  (declares the keys of the methods)
from dassl.config import (
    CfgNode,
    clean_cfg,
    complete_config,
    declare_config,
    defaults,
    get_cfg_default,
    load_config,
    to_dict,
)
from safeio.errors import UserError


def write(path: Path, content: Any) -> str:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


def test_defaults_are_fresh_each_time() -> None:
    first = get_cfg_default()
    first.OPTIM.LR = 7.0
    assert get_cfg_default().OPTIM.LR == 0.0003
    assert first.DATASET.SUBSAMPLE_CLASSES == "all"


def test_coop_files_read_as_in_coop(tmp_path: Path) -> None:
    text = (
        "INPUT:\n  SIZE: (64, 64)\n  PIXEL_MEAN: [0.1, 0.2, 0.3]\n"
        "  TRANSFORMS: [random_flip, normalize]\n"
        "OPTIM:\n  LR: 2e-3\n  MAX_EPOCH: 50\n  SGD_DAMPNING: 0\n"
    )
    cfg = load_config(config_file=write(tmp_path / "a.yaml", text))
    assert cfg.INPUT.SIZE == (64, 64)
    assert cfg.INPUT.TRANSFORMS == ("random_flip", "normalize")
    assert cfg.OPTIM.LR == 0.002
    assert cfg.OPTIM.SGD_DAMPNING == 0.0


def test_later_layers_win(tmp_path: Path) -> None:
    dataset = write(tmp_path / "d.yaml", {"OPTIM": {"LR": 0.1, "GAMMA": 0.2}, "SEED": 1})
    method = write(tmp_path / "m.yaml", {"OPTIM": {"LR": 0.3}, "SEED": 2, "VERSION": 2})
    cfg = load_config(dataset, method, {"SEED": 3, "VERSION": 3}, ["VERSION", "4"])
    assert (cfg.OPTIM.GAMMA, cfg.OPTIM.LR, cfg.SEED, cfg.VERSION) == (0.2, 0.3, 3, 4)
    with pytest.raises(AttributeError):
        cfg.SEED = 5

    def flags(node: CfgNode) -> None:
        node.SEED = 9

    assert load_config(flag_overrides=flags).SEED == 9


def test_base_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path / "base.yaml", {"SEED": 1, "VERSION": 5})
    top = write(tmp_path / "sub" / "top.yaml", {"_BASE_": "../base.yaml", "SEED": 2})
    cfg = load_config(config_file=top)
    assert (cfg.SEED, cfg.VERSION) == (2, 5)
    write(tmp_path / "base.yaml", {"_BASE_": "sub/top.yaml"})
    with pytest.raises(UserError, match="form a cycle"):
        load_config(config_file=top)


def test_resolved_config_can_be_read_back(tmp_path: Path) -> None:
    cfg = load_config(opts=["INPUT.SIZE", "(8, 9)", "DATASET.NAME", "None", "OPTIM.LR", "1"])
    assert cfg.DATASET.NAME == "None"
    assert load_config(config_file=write(tmp_path / "c.yaml", cfg.dump())) == cfg
    assert to_dict(cfg)["INPUT"]["SIZE"] == [8, 9]


@pytest.mark.parametrize(
    ("opts", "parts"),
    [
        (["OPTIM.LRR", "1"], ['"OPTIM.LRR"', '"OPTIM.LR"']),
        (["DATASET.NUM_SHOT", "1"], ['"DATASET.NUM_SHOTS"']),
        (["NUM_SHOTS", "1"], ['"DATASET.NUM_SHOTS"']),
        (["OPTIM.LR", "fast"], ["OPTIM.LR", "float", "'fast'"]),
        (["SEED", "1.5"], ["SEED", "int"]),
        (["USE_CUDA", "1"], ["USE_CUDA", "bool"]),
        (["OPTIM", "1"], ["OPTIM", "group of keys"]),
        (["OPTIM.LR.X", "1"], ["OPTIM.LR.X", "unknown"]),
        (["SEED"], ["pairs"]),
        (["INPUT.SIZE", "(64,)"], ["INPUT.SIZE", "height and width"]),
        (["INPUT.SIZE", "(64, 'a')"], ["INPUT.SIZE", "tuple"]),
        (["INPUT.PIXEL_MEAN", "['a', 0, 0]"], ["INPUT.PIXEL_MEAN", "list"]),
        (["INPUT.TRANSFORMS", "random_flip"], ["INPUT.TRANSFORMS", "tuple"]),
        (["DATALOADER.TRAIN_X.BATCH_SIZE", "0"], ["DATALOADER.TRAIN_X.BATCH_SIZE", "at least 1"]),
        (["OPTIM.LR", "-1"], ["OPTIM.LR", "at least 0"]),
        (["TEST.FINAL_MODEL", "best"], ["TEST.FINAL_MODEL", '"best_val"']),
        (["DATASET.SUBSAMPLE_CLASSES", "old"], ["DATASET.SUBSAMPLE_CLASSES", "all, base, new"]),
        (["SEED", str(2**64)], ["SEED", "64 bits"]),
    ],
)
def test_bad_overrides(opts: list[str], parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_config(opts=opts)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("OPTIM: {LR: [", "is not a YAML file"),
        ("- 1\n- 2", "mapping"),
        ("a: !!python/object/apply:os.getcwd []", "is not a YAML file"),
        ("OPTIM: {NAM: sgd}", '"OPTIM.NAM" is unknown; did you mean "OPTIM.NAME"'),
        ("OPTIM: 3", "group of keys"),
        ("SEED: {A: 1}", '"SEED" takes'),
        ("_BASE_: nowhere.yaml", "nowhere.yaml does not exist"),
        ("_BASE_: 3", "_BASE_"),
    ],
)
def test_bad_files(tmp_path: Path, content: str, part: str) -> None:
    path = write(tmp_path / "x.yaml", content)
    with pytest.raises(UserError) as caught:
        load_config(config_file=path)
    assert part in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_missing_file() -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_config(config_file="/no/such.yaml")


def test_declared_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    # Only here: the processes that other tests start would not know a run with this group.
    monkeypatch.setattr(defaults, "_declared", dict(defaults._declared))
    declare_config("TRAINER.TOYCONFIG", {"N": 16, "DEEP": {"NAME": "x"}})
    declare_config("TRAINER.TOYCONFIG", {"N": 16, "DEEP": {"NAME": "x"}})
    cfg = load_config(opts=["TRAINER.TOYCONFIG.N", "4", "TRAINER.TOYCONFIG.DEEP.NAME", "1"])
    assert (cfg.TRAINER.TOYCONFIG.N, cfg.TRAINER.TOYCONFIG.DEEP.NAME) == (4, "1")
    assert get_cfg_default().TRAINER.TOYCONFIG.N == 16
    with pytest.raises(ValueError, match="declared twice"):
        declare_config("TRAINER.TOYCONFIG", {"N": 17})
    with pytest.raises(ValueError, match="engine"):
        declare_config("OPTIM", {"LR": 1.0})
    with pytest.raises(UserError, match=r"TRAINER\.TOYCONFIG\.N"):
        load_config(opts=["TRAINER.TOYCONFIG.M", "4"])
    cfg = get_cfg_default()
    cfg.TRAINER.OTHER = CfgNode()
    clean_cfg(cfg, "ToyConfig")
    assert set(cfg.TRAINER) == {"NAME", "TOYCONFIG"}


@given(st.floats(0, 1e300), st.integers(-(2**63), 2**63 - 1), st.booleans())
def test_numbers_survive_the_command_line(number: float, whole: int, flag: bool) -> None:
    opts = ["OPTIM.LR", repr(number), "SEED", str(whole), "VERBOSE", str(flag)]
    cfg = load_config(opts=opts)
    assert (number, whole, flag) == (cfg.OPTIM.LR, cfg.SEED, cfg.VERBOSE)


@given(st.text())
def test_text_keys_take_any_text(text: str) -> None:
    assert text == load_config(opts=["DATASET.NAME", text]).DATASET.NAME


def with_reference_keys(**defaults: Any) -> CfgNode:
    """Defaults and a group that somebody's train.py adds in `extend_cfg`, with YACS' own nodes."""
    cfg = get_cfg_default()
    cfg.TRAINER.Theirs = YacsNode()
    for key, value in defaults.items():
        cfg.TRAINER.Theirs[key] = value
    return cfg


LITERALS = [
    ("0.5", 0.5),
    ("1", 1),
    ("-2e-3", -0.002),
    ("True", True),
    ("None", None),
    ("(1, 2)", (1, 2)),
    ("['a', 'b']", ["a", "b"]),
    ("two", "two"),
    ("'0.5'", "0.5"),
    ("{'a': 1}", "{'a': 1}"),  # YACS holds no dictionaries as values
]


@pytest.mark.parametrize(("text", "value"), LITERALS)
def test_a_key_without_a_type_reads_the_literal(text: str, value: Any, tmp_path: Path) -> None:
    cfg = with_reference_keys(BETA=None)
    cfg.merge_from_list(["TRAINER.Theirs.BETA", text])
    assert value == cfg.TRAINER.Theirs.BETA and type(value) is type(cfg.TRAINER.Theirs.BETA)
    # As text in a YAML file, also below a _BASE_ that gives a value of another type.
    write(tmp_path / "base.yaml", "TRAINER: {Theirs: {BETA: 1}}")
    layers = {"_BASE_": "base.yaml", "TRAINER": {"Theirs": {"BETA": text}}}
    cfg = with_reference_keys(BETA=None)
    cfg.merge_from_file(write(tmp_path / "top.yaml", layers))
    assert value == cfg.TRAINER.Theirs.BETA and type(value) is type(cfg.TRAINER.Theirs.BETA)
    cfg = cfg.clone()
    cfg.merge_from_list(["TRAINER.Theirs.BETA", "0.25"])
    assert cfg.TRAINER.Theirs.BETA == 0.25


def test_a_key_with_a_type_keeps_it() -> None:
    cfg = with_reference_keys(A=1.0)
    cfg.merge_from_list(["TRAINER.Theirs.A", "3"])
    assert type(cfg.TRAINER.Theirs.A) is float
    with pytest.raises(UserError, match="float"):
        cfg.merge_from_list(["TRAINER.Theirs.A", "None"])


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("TRAINER.CoOpNemesis.A", "TRAINER.NEMESIS.OMEGA"),
        ("TRAINER.CoOpNemesis.NT", "TRAINER.NEMESIS.NORM"),
        ("TRAINER.CoOpNemesis.NP", "TRAINER.NEMESIS.N"),
        ("TRAINER.CoOpNemesis.CW", "TRAINER.NEMESIS.TAU"),
        ("TRAINER.CoOpNemesis.BETA", "TRAINER.NEMESIS.BETA"),
        ("TRAINER.CoOpNemesis.N_CTX", "TRAINER.COOP.N_CTX"),
        ("TRAINER.CoOpNemesis.CSC", "TRAINER.COOP.CSC"),
        ("TRAINER.CoCoOpNemesis.CW", "TRAINER.NEMESIS.TAU"),
        ("TRAINER.CoCoOpNemesis.CTX_INIT", "TRAINER.COCOOP.CTX_INIT"),
        ("TRAINER.PLOTNemesis.N", "TRAINER.PLOT.N"),
        ("TRAINER.PLOTNemesis.NP", "TRAINER.NEMESIS.N"),
        ("TRAINER.NEMESIS.A", "TRAINER.NEMESIS.OMEGA"),
        ("TRAINER.COOP.NT", "TRAINER.NEMESIS.NORM"),
        ("trainer.coop.n_ctx", "TRAINER.COOP.N_CTX"),
        ("COOP.N_CTX", "TRAINER.COOP.N_CTX"),
        ("DATSET.NUM_SHOTS", "DATASET.NUM_SHOTS"),
        ("OPTIM.SGD_DAMPENING", "OPTIM.SGD_DAMPNING"),
        ("LR", "OPTIM.LR"),
    ],
)
def test_the_hint_for_a_key_of_other_code(key: str, meant: str, tmp_path: Path) -> None:
    nested: Any = 1
    for name in reversed(key.split(".")):
        nested = {name: nested}
    path = write(tmp_path / "theirs.yaml", nested)
    for mistake in (lambda: load_config(opts=[key, "1"]), lambda: load_config(config_file=path)):
        with pytest.raises(UserError) as caught:
            mistake()
        assert f'"{key}" is unknown; did you mean "{meant}"?' in str(caught.value)


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("TRAINER.MAPLE.PROMPT_DEPTH", "no trainer declares TRAINER.MAPLE"),
        ("TRAINER.MAPLE.N_CTX", "no trainer declares TRAINER.MAPLE"),
        ("TRAINER.KGCOOP.W", "no trainer declares TRAINER.KGCOOP"),
        ("TRAINER.CoOpNemesis.DEPTH", "no trainer declares TRAINER.CoOpNemesis"),
        ("TRAINER.COCOOP.CSC", "accepted: TRAINER.COCOOP.N_CTX, "),
        ("TRAINER.PLOT.TOP_PERCENT", "accepted: TRAINER.PLOT.N, "),
        ("TRAINER.COOP.N", "accepted: TRAINER.COOP.N_CTX, "),
        ("INPUT.MEAN", "INPUT.PIXEL_MEAN"),
        ("TRAINER", "is a group of keys"),
    ],
)
def test_no_hint_is_better_than_a_wrong_one(key: str, part: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(opts=[key, "1"])
    assert part in str(caught.value)
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_configuration_of_dassls_own_defaults_is_completed(frozen: bool) -> None:
    theirs = YacsNode({"SEED": 5, "INPUT": {"SIZE": (32, 32)}, "TRAINER": {"NAME": "X"}})
    theirs.TRAINER.Theirs = YacsNode({"BETA": None})
    if frozen:
        theirs.freeze()
    before = str(theirs)
    cfg = complete_config(theirs)
    assert (cfg.SEED, cfg.INPUT.SIZE, cfg.TRAINER.Theirs.BETA) == (5, (32, 32), None)
    assert cfg.DATALOADER.ON_BAD_IMAGE == get_cfg_default().DATALOADER.ON_BAD_IMAGE
    assert cfg.TRAINER.NEMESIS == get_cfg_default().TRAINER.NEMESIS
    assert cfg.is_frozen() is frozen
    assert str(theirs) == before
    assert complete_config(cfg) is cfg
