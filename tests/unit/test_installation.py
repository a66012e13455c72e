"""`pip install -e .` must not put our `clip` and `datasets` in the way of other people's."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _elsewhere(code: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)


def test_hugging_face_datasets_still_imports_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    code = "import datasets; print(datasets.__file__); datasets.Dataset.from_dict({'a': [1]})"
    result = _elsewhere(code, tmp_path)
    assert result.returncode == 0, result.stderr
    assert ROOT / "datasets" not in Path(result.stdout.strip()).parents


@pytest.mark.parametrize("name", ["safeio", "clip", "dassl", "trainers", "nemesis"])
def test_our_packages_are_not_installed(name: str, tmp_path: Path) -> None:
    code = f"import importlib.util as u; print(u.find_spec({name!r}))"
    assert str(ROOT) not in _elsewhere(code, tmp_path).stdout


def test_the_framework_is_used_from_its_checkout() -> None:
    import datasets

    assert Path(datasets.__file__ or "").is_relative_to(ROOT)
