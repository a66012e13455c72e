"""Configuration: defaults, declared groups, layers and the messages for mistakes."""

import runpy
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


def test_coop_files_read_as_in_coop(tmp_path: Path) -> None:
    text = (
        'INPUT:\n  SIZE: (64, 64)\n  TRANSFORMS: ["random_flip", "normalize"]\n'
        "OPTIM:\n  LR: 2e-3\n  SGD_DAMPNING: 0\n"
    )
    cfg = load_config(config_file=write(tmp_path / "a.yaml", text))
    assert get_cfg_default().OPTIM.LR == 0.0003
    assert (cfg.INPUT.SIZE, cfg.INPUT.TRANSFORMS) == ((64, 64), ("random_flip", "normalize"))
    assert (cfg.OPTIM.LR, cfg.OPTIM.SGD_DAMPNING) == (0.002, 0.0)


def test_later_layers_win(tmp_path: Path) -> None:
    dataset = write(tmp_path / "d.yaml", {"OPTIM": {"LR": 0.1, "GAMMA": 0.2}, "SEED": 1})
    method = write(tmp_path / "m.yaml", {"OPTIM": {"LR": 0.3}, "SEED": 2, "VERSION": 2})
    cfg = load_config(dataset, method, {"SEED": 3, "VERSION": 3}, ["VERSION", "4"])
    assert (cfg.OPTIM.GAMMA, cfg.OPTIM.LR, cfg.SEED, cfg.VERSION) == (0.2, 0.3, 3, 4)
    with pytest.raises(AttributeError):
        cfg.SEED = 5
    assert load_config(flag_overrides=lambda node: node.update(SEED=9)).SEED == 9


def test_base_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path / "base.yaml", {"SEED": 1, "VERSION": 5})
    top = write(tmp_path / "sub" / "top.yaml", {"_BASE_": "../base.yaml", "SEED": 2})
    cfg = load_config(config_file=top)
    assert (cfg.SEED, cfg.VERSION) == (2, 5)


def test_resolved_config_can_be_read_back(tmp_path: Path) -> None:
    cfg = load_config(opts=["INPUT.SIZE", "(8, 9)", "DATASET.NAME", "None", "OPTIM.LR", "1"])
    assert cfg.DATASET.NAME == "None" and type(cfg.OPTIM.LR) is float
    assert load_config(config_file=write(tmp_path / "c.yaml", cfg.dump())) == cfg
    assert to_dict(cfg)["INPUT"]["SIZE"] == [8, 9]


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("OPTIM.LR", "fast", "type float such as 0.0003, not 'fast'"),
        ("OPTIM.LR", "None", "type float"),
        ("SEED", "1.5", "int"),
        ("USE_CUDA", "1", "bool"),
        ("OPTIM", "1", "is a group of keys"),
        ("OPTIM.LR.X", "1", "unknown"),
        ("INPUT.SIZE", "(64,)", "height and width"),
        ("INPUT.SIZE", "(64, 'a')", "tuple"),
        ("INPUT.PIXEL_MEAN", "['a', 0, 0]", "list"),
        ("INPUT.TRANSFORMS", "random_flip", "tuple"),
        ("DATALOADER.TRAIN_X.BATCH_SIZE", "0", "at least 1"),
        ("OPTIM.LR", "-1", "at least 0"),
        ("TEST.FINAL_MODEL", "x", "last_step, best_val"),
        ("DATASET.SUBSAMPLE_CLASSES", "old", "all, base, new"),
        ("SEED", str(2**64), "64 bits"),
        # The names of Nemesis' released code, and misspelt ones.
        ("TRAINER.CoOpNemesis.A", "1", 'did you mean "TRAINER.NEMESIS.OMEGA"?'),
        ("TRAINER.CoCoOpNemesis.CW", "1", 'did you mean "TRAINER.NEMESIS.TAU"?'),
        ("TRAINER.CoCoOpNemesis.CTX_INIT", "1", 'did you mean "TRAINER.COCOOP.CTX_INIT"?'),
        ("TRAINER.PLOTNemesis.N", "1", 'did you mean "TRAINER.PLOT.N"?'),
        ("TRAINER.COOP.NT", "1", 'did you mean "TRAINER.NEMESIS.NORM"?'),
        ("trainer.coop.n_ctx", "1", 'did you mean "TRAINER.COOP.N_CTX"?'),
        ("COOP.N_CTX", "1", 'did you mean "TRAINER.COOP.N_CTX"?'),
        ("DATSET.NUM_SHOTS", "1", 'did you mean "DATASET.NUM_SHOTS"?'),
        ("OPTIM.SGD_DAMPENING", "1", 'did you mean "OPTIM.SGD_DAMPNING"?'),
        ("LR", "1", 'did you mean "OPTIM.LR"?'),
        # No hint is better than a wrong one.
        ("TRAINER.LASP.PROMPT_DEPTH", "1", "no trainer declares TRAINER.LASP"),
        ("TRAINER.DEPT.W", "1", "no trainer declares TRAINER.DEPT"),
        ("TRAINER.CoOpNemesis.DEPTH", "1", "no trainer declares TRAINER.CoOpNemesis"),
        ("TRAINER.COCOOP.CSC", "1", "accepted: TRAINER.COCOOP.N_CTX, "),
        ("TRAINER.COOP.N", "1", "accepted: TRAINER.COOP.N_CTX, "),
        ("INPUT.MEAN", "1", "INPUT.PIXEL_MEAN"),
    ],
)
def test_bad_overrides(key: str, value: str, part: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(opts=[key, value])
    message = str(caught.value)
    assert key in message and part in message
    assert ("did you mean" in message) == ("did you mean" in part)
    with pytest.raises(UserError, match="pairs"):
        load_config(opts=[key])


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("OPTIM: {LR: [", "is not a YAML file"),
        ("- 1\n- 2", "mapping"),
        ("a: !!python/object/apply:os.getcwd []", "is not a YAML file"),
        ("OPTIM: 3", "group of keys"),
        ("TRAINER: {COOP: {NCTX: 4}}", 'COOP.NCTX" is unknown; did you mean "TRAINER.COOP.N_CTX'),
        ("SEED: {A: 1}", '"SEED" takes'),
        ("_BASE_: nowhere.yaml", "nowhere.yaml does not exist"),
        ("_BASE_: 3", "_BASE_"),
        ("_BASE_: x.yaml", "form a cycle"),
    ],
)
def test_bad_files(tmp_path: Path, content: str, part: str) -> None:
    path = write(tmp_path / "x.yaml", content)
    with pytest.raises(UserError) as caught:
        load_config(config_file=path)
    assert part in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_declared_groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Only here: the processes that other tests start would not know a run with this group.
    monkeypatch.setattr(defaults, "_declared", dict(defaults._declared))
    for _ in range(2):
        declare_config("TRAINER.TOYCONFIG", {"N": 16, "DEEP": {"NAME": "x"}})
    cfg = load_config(opts=["TRAINER.TOYCONFIG.N", "4", "TRAINER.TOYCONFIG.DEEP.NAME", "1"])
    assert (cfg.TRAINER.TOYCONFIG.N, cfg.TRAINER.TOYCONFIG.DEEP.NAME) == (4, "1")
    assert get_cfg_default().TRAINER.TOYCONFIG.N == 16
    toy = write(tmp_path / "toy.py", 'declare_config("TRAINER.TOYCONFIG", {"N": 17})')
    with pytest.raises(ValueError, match=rf"{Path(__file__).name} and .*toy\.py"):
        runpy.run_path(toy, {"declare_config": declare_config})
    with pytest.raises(ValueError, match="engine"):
        declare_config("OPTIM", {"LR": 1.0})
    with pytest.raises(UserError, match=r"TRAINER\.TOYCONFIG\.N"):
        load_config(opts=["TRAINER.TOYCONFIG.M", "4"])
    cfg = get_cfg_default()
    cfg.TRAINER.OTHER = CfgNode()
    clean_cfg(cfg, "ToyConfig")
    assert set(cfg.TRAINER) == {"NAME", "TOYCONFIG"}


@given(st.floats(0, 1e300), st.integers(-(2**63), 2**63 - 1), st.booleans(), st.text())
def test_values_survive_the_command_line(real: float, whole: int, flag: bool, text: str) -> None:
    opts = ["OPTIM.LR", repr(real), "SEED", str(whole), "VERBOSE", str(flag), "DATASET.NAME", text]
    cfg = load_config(opts=opts)
    assert (real, whole, flag, text) == (cfg.OPTIM.LR, cfg.SEED, cfg.VERBOSE, cfg.DATASET.NAME)


def with_foreign_keys(**defaults: Any) -> CfgNode:
    """Defaults and a group that another train.py adds in `extend_cfg`, with YACS' own nodes."""
    cfg = get_cfg_default()
    cfg.TRAINER.Theirs = YacsNode(defaults)
    return cfg


TEXTS = ["0.5", "1", "-2e-3", "True", "None", "(1, 2)", "['a', 'b']", "two", "'0.5'", "{'a': 1}"]
# YACS holds no dictionaries as values.
VALUES = [0.5, 1, -0.002, True, None, (1, 2), ["a", "b"], "two", "0.5", "{'a': 1}"]


@pytest.mark.parametrize(("text", "value"), list(zip(TEXTS, VALUES, strict=True)))
def test_a_key_without_a_type_reads_the_literal(text: str, value: Any, tmp_path: Path) -> None:
    typed, from_file = with_foreign_keys(BETA=None), with_foreign_keys(BETA=None)
    typed.merge_from_list(["TRAINER.Theirs.BETA", text])
    # As text in a YAML file, also below a _BASE_ that gives a value of another type.
    write(tmp_path / "base.yaml", "TRAINER: {Theirs: {BETA: 1}}")
    layers = {"_BASE_": "base.yaml", "TRAINER": {"Theirs": {"BETA": text}}}
    from_file.merge_from_file(write(tmp_path / "top.yaml", layers))
    for cfg in (typed, from_file):
        assert value == cfg.TRAINER.Theirs.BETA and type(value) is type(cfg.TRAINER.Theirs.BETA)
        cfg = cfg.clone()
        cfg.merge_from_list(["TRAINER.Theirs.BETA", "0.25"])
        assert cfg.TRAINER.Theirs.BETA == 0.25


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
