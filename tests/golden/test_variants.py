"""The golden tests accept new cases, and fail for wrong and unknown ones."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.golden.cases import BUNDLED
from tests.golden.variants import make_all
from tests.helpers.runs import ROOT


def run_golden(*folders: Path) -> tuple[dict[str, int], str]:
    """Numbers of passed and failed tests on these folders, and the output of pytest."""
    where = os.pathsep.join(map(str, folders))
    words = ["-n", "0", "-q", "-p", "no:cacheprovider", "tests/golden/test_golden.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=ROOT,
        env={**os.environ, "NEMESIS_GOLDEN_DIR": where},
        capture_output=True,
        text=True,
        timeout=550,
    )
    found = re.findall(r"(\d+) (passed|failed|error)", done.stdout.splitlines()[-1])
    return {outcome: int(count) for count, outcome in found}, done.stdout


@pytest.mark.slow
def test_new_cases_pass_and_wrong_or_unknown_ones_fail(tmp_path: Path) -> None:
    made, foreign = tmp_path / "made", tmp_path / "foreign"
    made.mkdir()
    foreign.mkdir()
    cases = list(make_all(made).cases())
    assert {case.arch for case in cases} == {"vit", "rn"}

    wrong = next(case for case in BUNDLED.cases() if case.kind == "pun")
    arrays: dict[str, Any] = {**wrong.expected, "loss": wrong.expected["loss"] * 1.001}
    np.savez(foreign / "wrong.npz", **arrays)
    unknown = {**wrong.entry, "name": "b", "kind": "telepathy"}
    entries = [{**wrong.entry, "name": "a", "file": "wrong.npz"}, unknown]
    (foreign / "cases.json").write_text(json.dumps({"classes": ["a"], "cases": entries}))
    (foreign / "moods.json").write_text("{}")

    counts, printed = run_golden(made, foreign)
    assert counts == {"passed": len(cases), "failed": 3}
    assert "telepathy is not a known kind of golden case" in printed
    assert "moods.json is not a known record" in printed


@pytest.mark.slow
def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    counts, _ = run_golden(tmp_path / "missing")
    assert counts == {"error": 1}
