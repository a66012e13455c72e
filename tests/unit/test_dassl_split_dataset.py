"""Datasets with a split file: splits are made once, few shots are drawn as in CoOp."""

import json
import multiprocessing
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum, SplitDataset, build_dataset
from dassl.data.datasets.splits import safe_join, split_all, subsample_classes
from safeio.errors import UserError
from tests.helpers.dassl_toy import Squares, make_images, toy_config

pytestmark = pytest.mark.usefixtures("toys")
ALL = ("DATASET.NUM_SHOTS", "-1")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_images(tmp_path / "data")


def squares(root: Path, *opts: str) -> Any:
    return Squares(toy_config(root, root, *opts))


def test_the_split_is_made_once_and_relative(root: Path) -> None:
    data = squares(root, *ALL)
    assert [len(part) for part in (data.train_x, data.val, data.test)] == [24, 12, 12]
    assert data.classnames == ["red", "green", "blue", "dark grey"]
    path = root / "squares" / "split_squares.json"
    content = json.loads(path.read_text())
    assert content["train"][0] == ["red/00.png", 0, "red"]
    content["train"] = content["train"][1:]
    path.write_text(json.dumps(content))
    assert squares(root, *ALL).train_x == data.train_x[1:]


def test_few_shots_are_those_of_coop_and_saved(root: Path) -> None:
    """CoOp seeds Python's generator and draws from it, first of train and then of val."""
    five = ("DATASET.NUM_SHOTS", "5")
    everything, first = squares(root, *ALL), squares(root, *five)
    assert len(first.train_x) == 20
    assert len(first.val) == 12  # there are 3 a class, of the 4 that would be drawn
    path = root / "squares" / "split_fewshot" / "shot_5-seed_1.json"
    again = squares(root, *five)
    assert (again.train_x, again.val) == (first.train_x, first.val)
    path.write_text("{")
    assert squares(root, *five).train_x == first.train_x
    rng = Random(7)
    draw = everything.generate_fewshot_dataset
    train = draw(everything.train_x, num_shots=2, rng=rng)
    val = draw(everything.val, num_shots=2, rng=rng)
    ours = squares(root, "DATASET.NUM_SHOTS", "2", "SEED", "7")
    assert (ours.train_x, ours.val) == (train, val)
    # They are drawn again for another split.
    split = root / "squares" / "split_squares.json"
    content = json.loads(split.read_text())
    content["train"] = [entry for entry in content["train"] if not entry[0].endswith("00.png")]
    split.write_text(json.dumps(content))
    assert not [i for i in squares(root, *five).train_x if i.impath.endswith("00.png")]


def _draw(root: Path, barrier: Any, queue: Any) -> None:
    barrier.wait()
    data = squares(root, "DATASET.NUM_SHOTS", "2")
    queue.put([item.impath for item in data.train_x + data.val])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_two_processes_draw_the_same(root: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_draw, args=(root, barrier, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    first, second = queue.get(timeout=60), queue.get(timeout=60)
    for process in processes:
        process.join()
    assert first == second
    assert not list((root / "squares").rglob("*.tmp"))


def test_halves_of_the_classes_and_target_domains(root: Path) -> None:
    base, new = (squares(root, "DATASET.SUBSAMPLE_CLASSES", half) for half in ("base", "new"))
    assert base.classnames == ["red", "green"]
    assert new.classnames == ["blue", "dark grey"]
    assert {item.label for item in new.test} == {0, 1}
    with pytest.raises(UserError, match="all, base, new"):
        subsample_classes([], subsample="old")

    class Nights(Squares):
        def target_test(self, domains: object) -> list[Datum]:
            return [Datum("night.png", 1, classname="green")]

    cfg = toy_config(root, root, "DATASET.TARGET_DOMAINS", "['night']")
    assert [item.impath for item in Nights(cfg).test or []] == ["night.png"]
    with pytest.raises(UserError, match=r"Squares has no target domains.*night"):
        Squares(cfg)


def test_missing_folders_are_named(root: Path, tmp_path: Path) -> None:
    for name in ("", str(tmp_path / "nowhere")):
        with pytest.raises(UserError, match=r"data root.*squares/"):
            squares(root, "DATASET.ROOT", name)
    for folder in ("empty", "empty/squares"):
        (tmp_path / folder).mkdir()
        with pytest.raises(UserError, match=r"empty/squares/images is missing"):
            Squares(toy_config(tmp_path / "empty", root))

    class NoSplit(Squares):
        split_file = "split_zhou.json"
        make_split = SplitDataset.make_split

    with pytest.raises(UserError, match=r"split_zhou.json is missing; NoSplit needs it"):
        NoSplit(toy_config(root, root))


def test_a_read_only_data_folder_is_accepted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    assert len(squares(root).train_x) == 16
    assert not (root / "squares" / "split_fewshot" / "shot_4-seed_1.json").exists()


@given(st.text())
def test_joined_paths_stay_inside(relative: str) -> None:
    folder = Path("/data/images")
    try:
        joined = Path(safe_join(folder, relative))
    except UserError:
        return
    assert joined.is_relative_to(folder)
    assert ".." not in joined.parts


@given(st.lists(st.integers(0, 6), min_size=1))
def test_halves_are_a_partition(labels: list[int]) -> None:
    data = [Datum(str(i), label, classname=str(label)) for i, label in enumerate(labels)]
    (base,) = subsample_classes(data, subsample="base")
    (new,) = subsample_classes(data, subsample="new")
    assert sorted(item.impath for item in base + new) == sorted(item.impath for item in data)
    assert not {item.classname for item in base} & {item.classname for item in new}
    assert DatasetBase.get_num_classes(base) - DatasetBase.get_num_classes(new) in (0, 1)


def test_datum_and_base_class() -> None:
    bad: dict[Any, Any] = {(Path("x"),): TypeError, ("x", 1.0): TypeError, ("",): ValueError}
    for arguments, error in bad.items():
        with pytest.raises(error):
            Datum(*arguments)
    data = [Datum("a", 1, 1, "one"), Datum("b", 0, 0, "zero"), Datum("c", 1, 0, "one")]
    base = DatasetBase(train_x=data)
    assert (base.num_classes, base.classnames) == (2, ["zero", "one"])
    assert list(base.split_dataset_by_domain(data)) == [1, 0]
    assert len(base.generate_fewshot_dataset(data, num_shots=2)) == 3
    assert len(base.generate_fewshot_dataset(data, num_shots=2, repeat=True)) == 4
    base.domains = ["day", "night"]
    with pytest.raises(UserError, match="night"):
        base.check_input_domains(["day"], ["nigth"])
    many = [Datum(f"{label}/{i}", label) for label in range(3) for i in range(10)]
    split = split_all(many)
    assert [len(split[part]) for part in ("train", "val", "test")] == [15, 6, 9]
    assert {item for part in split.values() for item in part} == set(many)
    with pytest.raises(UserError, match="too few"):
        split_all(many[:2])


def test_an_unknown_dataset_is_refused(root: Path) -> None:
    with pytest.raises(UserError, match=r'did you mean "Squares"\?.*Available: .*Squares'):
        build_dataset(toy_config(root, root, "DATASET.NAME", "Sqares"))
    with pytest.raises(KeyError, match="already registered"):
        DATASET_REGISTRY.register(Squares)
