"""The identities of runs last: a finished run is found again after new settings have come."""

import hashlib
import json
from pathlib import Path

import pytest

import datasets  # noqa: F401  (registers the datasets)
import trainers  # noqa: F401  (registers the methods)
from dassl.config import declare_config, defaults, get_cfg_default, identifying_settings, to_dict
from dassl.config.node import read_yaml_layers
from nemesis.sweeps.grid import make_runs
from nemesis.sweeps.runs import digest_of
from nemesis.sweeps.sweep_file import PAPER, read_sweep

SWEEPS = Path("configs/sweeps")
# {file: {profile: [number of runs, SHA-256 of their folders and identities]}}, of 2026-11-22.
RECORDED = json.loads(Path("tests/data/sweep_identities.json").read_text())


def profiles(path: Path) -> set[str]:
    return {PAPER}.union(*(layer.get("profiles", {}) for _, layer in read_yaml_layers(path)))


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_shipped_sweeps_name_the_same_runs_as_ever(name: str) -> None:
    assert profiles(SWEEPS / name) == set(RECORDED[name])
    for profile, (number, digest) in RECORDED[name].items():
        runs = make_runs(read_sweep(SWEEPS / name, profile))
        lines = sorted(f"{run.name} {run.digest}" for run in runs)
        assert len(lines) == number
        assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == digest


def test_a_new_setting_counts_where_it_differs_from_its_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(defaults, "_declared", dict(defaults._declared))
    before = to_dict(get_cfg_default())
    declare_config("TRAINER.LATER", {"RATE": 1.0, "INNER": {"DEPTH": 2}})
    try:
        after = get_cfg_default()
        assert "LATER" in after.TRAINER
        assert digest_of(to_dict(after)) == digest_of(before)
        after.TRAINER.LATER.INNER.DEPTH = 3
        changed = digest_of(to_dict(after))
        assert changed != digest_of(before)
        assert identifying_settings(after)["TRAINER"]["LATER"] == {"INNER": {"DEPTH": 3}}
    finally:
        defaults.plain_defaults.cache_clear()
    # Without the file that declares them, defaults are unknown, so all values count.
    monkeypatch.undo()
    assert identifying_settings(after)["TRAINER"]["LATER"] == {"RATE": 1.0, "INNER": {"DEPTH": 3}}


def test_where_a_run_is_written_is_not_what_it_is() -> None:
    cfg = get_cfg_default()
    before = digest_of(to_dict(cfg))
    cfg.OUTPUT_DIR, cfg.RESUME = "elsewhere", "there"
    assert digest_of(to_dict(cfg)) == before
    cfg.SEED = 7
    assert digest_of(to_dict(cfg)) != before
