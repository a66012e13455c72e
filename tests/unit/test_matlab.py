"""MATLAB files as the publishers write them, read without scipy's reader."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from dassl.data.datasets.annotations import read_mat
from safeio.errors import UserError
from tests.helpers.refusals import refused


@pytest.mark.parametrize("compressed", [False, True])
def test_numbers_cells_and_structs(compressed: bool, tmp_path: Path) -> None:
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
    wanted = [("00001.jpg", 196), ("2.jpg", 1)]
    assert read_mat(path, "annotations", ("fname", "class")) == wanted
    for key, fields in (("missing", ()), ("labels", ("fname",)), ("annotations", ("bbox",))):
        with refused(key):
            read_mat(path, key, fields)


def test_scipys_reader_is_not_asked(tmp_path: Path) -> None:
    """It ends the process with a segmentation fault for some files in which a few bytes differ."""
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
