"""Locks between processes, MATLAB files, and the installation."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from dassl.data.datasets.annotations import read_mat
from safeio import locks
from safeio.errors import UserError
from safeio.locks import exclusive
from tests.helpers.refusals import refused
from tests.helpers.runs import ROOT


def test_a_held_lock_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".lock"
    with exclusive(path) as first, exclusive(path) as second:
        assert (first, second) == (True, False)
    with exclusive(path) as again:
        assert again


def test_waiting_for_a_held_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = threading.Event()
    monkeypatch.setattr(locks, "print", lambda *_: waits.set(), raising=False)
    order: list[str] = []

    def second() -> None:
        with exclusive(tmp_path / ".lock", "waiting"):
            order.append("second")

    thread = threading.Thread(target=second)
    with exclusive(tmp_path / ".lock", "not printed"):
        assert not waits.is_set()
        thread.start()
        assert waits.wait(60)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]


@pytest.mark.parametrize("compressed", [False, True])
def test_matlab_numbers_cells_and_structs(compressed: bool, tmp_path: Path) -> None:
    path = tmp_path / "annotations.mat"
    content = {
        "labels": np.array([[3, 1, 2]], dtype=np.uint8),
        "distances": np.array([[0.5], [2.0]]),
        "class_names": np.array([["AM General", "Zoë", "1"]], dtype=object),
        "annotations": [{"class": 196, "fname": "00001.jpg"}, {"class": 1, "fname": "2.jpg"}],
    }
    savemat(path, content, do_compression=compressed)
    assert read_mat(path, "labels") == [3, 1, 2]
    assert read_mat(path, "distances") == [0.5, 2.0]
    assert read_mat(path, "class_names") == ["AM General", "Zoë", "1"]
    expected = [("00001.jpg", 196), ("2.jpg", 1)]
    assert read_mat(path, "annotations", ("fname", "class")) == expected
    for key, fields in (("missing", ()), ("labels", ("fname",)), ("annotations", ("bbox",))):
        with refused(key):
            read_mat(path, key, fields)


def test_every_changed_byte_of_a_matlab_file(tmp_path: Path) -> None:
    """Scipy's reader ends the process with a segmentation fault for some of these files."""
    path = tmp_path / "labels.mat"
    savemat(path, {"labels": [[1, 2, 3]]})
    whole = path.read_bytes()
    for place in range(128, len(whole)):
        for value in (0, 0x0E, 0x7F, 0xFF):
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            try:
                read_mat(path, "labels")
            except UserError as error:
                assert str(path) in str(error)


def _elsewhere(code: str, folder: Path) -> str:
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_installation_hides_no_package_of_others(tmp_path: Path) -> None:
    names = ["safeio", "clip", "dassl", "trainers", "nemesis"]
    code = f"import importlib.util as u; print([u.find_spec(name) for name in {names}])"
    assert str(ROOT) not in _elsewhere(code, tmp_path)
    pytest.importorskip("datasets")  # ours, from the checkout
    code = "import datasets; print(datasets.__file__); datasets.Dataset.from_dict({'a': [1]})"
    assert ROOT / "datasets" not in Path(_elsewhere(code, tmp_path)).parents


def test_the_framework_is_used_from_its_checkout() -> None:
    import datasets

    assert Path(datasets.__file__ or "").is_relative_to(ROOT)
