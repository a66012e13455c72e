"""Datasets with a split file: reading and making it, few-shot samples, refused files."""

import json
import multiprocessing
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum, SplitDataset, build_dataset
from dassl.data.datasets.splits import safe_join, split_all, subsample_classes
from safeio.errors import UserError
from tests.helpers.dassl_toy import Squares, make_images, toy_config

pytestmark = pytest.mark.usefixtures("toys")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_images(tmp_path / "data")


def test_the_split_is_made_once_with_relative_paths(root: Path) -> None:
    data = Squares(toy_config(root, root, "DATASET.NUM_SHOTS", "-1"))
    assert [len(part or []) for part in (data.train_x, data.val, data.test)] == [24, 12, 12]
    assert data.classnames == ["red", "green", "blue", "dark grey"]
    path = root / "squares" / "split_squares.json"
    content = json.loads(path.read_text())
    assert content["train"][0] == ["red/00.png", 0, "red"]
    content["train"] = content["train"][1:]
    path.write_text(json.dumps(content))
    again = Squares(toy_config(root, root, "DATASET.NUM_SHOTS", "-1"))
    assert again.train_x == (data.train_x or [])[1:]


def test_fewshot_items_are_saved(root: Path) -> None:
    cfg = toy_config(root, root, "DATASET.NUM_SHOTS", "5")
    first = Squares(cfg)
    assert len(first.train_x or []) == 20
    assert len(first.val or []) == 12  # 3 per class exist, at most 4 are sampled
    path = root / "squares" / "split_fewshot" / "shot_5-seed_1.json"
    assert path.is_file()
    again = Squares(cfg)
    assert (again.train_x, again.val) == (first.train_x, first.val)
    other = Squares(toy_config(root, root, "DATASET.NUM_SHOTS", "5", "SEED", "2"))
    assert other.train_x != first.train_x
    path.write_text("{")
    assert Squares(cfg).train_x == first.train_x


def test_fewshot_items_equal_coops(root: Path) -> None:
    """CoOp seeds Python's generator and samples from train, then from val."""
    everything = Squares(toy_config(root, root, "DATASET.NUM_SHOTS", "-1"))
    rng = Random(7)
    train = everything.generate_fewshot_dataset(everything.train_x or [], num_shots=2, rng=rng)
    val = everything.generate_fewshot_dataset(everything.val or [], num_shots=2, rng=rng)
    ours = Squares(toy_config(root, root, "DATASET.NUM_SHOTS", "2", "SEED", "7"))
    assert (ours.train_x, ours.val) == (train, val)


def test_fewshot_items_are_sampled_again_for_another_split(root: Path) -> None:
    cfg = toy_config(root, root, "DATASET.NUM_SHOTS", "3")
    Squares(cfg)
    path = root / "squares" / "split_squares.json"
    content = json.loads(path.read_text())
    content["train"] = [entry for entry in content["train"] if not entry[0].endswith("00.png")]
    path.write_text(json.dumps(content))
    drawn = Squares(cfg).train_x or []
    assert not [item for item in drawn if item.impath.endswith("00.png")]


def draw(root: str, barrier: object, queue: object) -> None:
    cfg = toy_config(Path(root), Path(root), "DATASET.NUM_SHOTS", "2")
    barrier.wait()  # type: ignore[attr-defined]
    data = Squares(cfg)
    queue.put([item.impath for item in (data.train_x or []) + (data.val or [])])  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_two_processes_draw_the_same(root: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(2), context.Queue()
    processes = [context.Process(target=draw, args=(str(root), barrier, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    first, second = queue.get(timeout=60), queue.get(timeout=60)
    for process in processes:
        process.join()
    assert first == second
    assert not list((root / "squares").rglob("*.tmp"))


def test_base_and_new(root: Path) -> None:
    base = Squares(toy_config(root, root, "DATASET.SUBSAMPLE_CLASSES", "base"))
    new = Squares(toy_config(root, root, "DATASET.SUBSAMPLE_CLASSES", "new"))
    assert base.classnames == ["red", "green"]
    assert new.classnames == ["blue", "dark grey"]
    assert {item.label for item in new.test or []} == {0, 1}
    with pytest.raises(UserError, match="all, base, new"):
        subsample_classes([], subsample="old")


def test_target_domains(root: Path) -> None:
    cfg = toy_config(root, root, "DATASET.TARGET_DOMAINS", "['night']")
    with pytest.raises(UserError, match=r"Squares has no target domains.*night"):
        Squares(cfg)

    class Nights(Squares):
        def target_test(self, domains: object) -> list[Datum]:
            return [Datum("night.png", 1, classname="green")]

    assert [item.impath for item in Nights(cfg).test or []] == ["night.png"]


def test_missing_folders(root: Path, tmp_path: Path) -> None:
    for name in ("", str(tmp_path / "nowhere")):
        with pytest.raises(UserError, match=r"data root.*squares/"):
            Squares(toy_config(root, root, "DATASET.ROOT", name))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty/squares/images is missing"):
        Squares(toy_config(tmp_path / "empty", root))
    (tmp_path / "empty" / "squares").mkdir()
    with pytest.raises(UserError, match=r"squares/images is missing"):
        Squares(toy_config(tmp_path / "empty", root))

    class NoSplit(Squares):
        split_file = "split_zhou.json"
        make_split = SplitDataset.make_split

    with pytest.raises(UserError, match=r"split_zhou.json is missing; NoSplit needs it"):
        NoSplit(toy_config(root, root))


def test_a_read_only_data_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    assert len(Squares(toy_config(root, root)).train_x or []) == 16
    assert not (root / "squares" / "split_fewshot" / "shot_4-seed_1.json").exists()


@pytest.mark.parametrize(
    "entry", ["../../etc/passwd", "/etc/passwd", "a/../../b", "..\\x", "C:\\x", ""]
)
def test_hostile_paths_are_refused(root: Path, entry: str) -> None:
    split = {"train": [[entry, 0, "red"]], "val": [], "test": []}
    (root / "squares" / "split_squares.json").write_text(json.dumps(split))
    with pytest.raises(UserError, match="refused"):
        Squares(toy_config(root, root))


@pytest.mark.parametrize(
    "content",
    ["[]", "{", '{"train": []}', '{"train": [[1, 2]], "val": [], "test": []}', "null"],
)
def test_broken_split_files(root: Path, content: str) -> None:
    (root / "squares" / "split_squares.json").write_text(content)
    with pytest.raises(UserError, match=r"split_squares.json"):
        Squares(toy_config(root, root))


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


def test_split_all() -> None:
    data = [Datum(f"{label}/{i}", label) for label in range(3) for i in range(10)]
    split = split_all(data)
    assert [len(split[part]) for part in ("train", "val", "test")] == [15, 6, 9]
    assert {item for part in split.values() for item in part} == set(data)
    with pytest.raises(UserError, match="too few"):
        split_all(data[:2])


def test_datum_and_base() -> None:
    with pytest.raises(TypeError):
        Datum(Path("x"))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Datum("x", 1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="path"):
        Datum("")
    data = [Datum("a", 1, 1, "one"), Datum("b", 0, 0, "zero"), Datum("c", 1, 0, "one")]
    base = DatasetBase(train_x=data)
    assert (base.num_classes, base.classnames) == (2, ["zero", "one"])
    assert list(base.split_dataset_by_domain(data)) == [1, 0]
    assert len(base.generate_fewshot_dataset(data, num_shots=2)) == 3
    assert len(base.generate_fewshot_dataset(data, num_shots=2, repeat=True)) == 4
    base.domains = ["day", "night"]
    with pytest.raises(UserError, match="night"):
        base.check_input_domains(["day"], ["nigth"])


def test_unknown_dataset(root: Path) -> None:
    with pytest.raises(UserError, match=r'did you mean "Squares"\?.*Available: .*Squares'):
        build_dataset(toy_config(root, root, "DATASET.NAME", "Sqares"))
    with pytest.raises(KeyError, match="already registered"):
        DATASET_REGISTRY.register(Squares)
