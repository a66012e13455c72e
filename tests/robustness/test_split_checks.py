"""Split files: shared, missing and misspelt images, bad entries, empty parts, and domains."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dassl.data import DataManager
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum, build_dataset
from dassl.engine import build_trainer
from safeio.errors import UserError
from tests.helpers.dassl_toy import Squares, make_split, run, toy_command, toy_config
from tests.helpers.own_images import fill
from tests.helpers.run_folders import content
from tests.helpers.runs import Capture, command, finish, refuse, results

pytestmark = pytest.mark.usefixtures("toys")

BEST_VAL = ("TEST.FINAL_MODEL", "best_val")
EPOCH = ("OPTIM.MAX_EPOCH", "1")
ALL = ("DATASET.NUM_SHOTS", "-1")
Split = dict[str, list[list[Any]]]
Change = Callable[[Split], object]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The toy's images with its split file."""
    return make_split(tmp_path / "data")


def split_path(root: Path) -> Path:
    return root / "squares" / "split_squares.json"


def edit(root: Path, change: Change) -> None:
    split = json.loads(split_path(root).read_text())
    change(split)
    split_path(root).write_text(json.dumps(split))


def error_of(root: Path, *opts: str) -> str:
    with pytest.raises(UserError) as caught:
        DataManager(toy_config(root, root, *opts))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Shared and repeated images


def add(part: str, *entries: list[Any]) -> Change:
    return lambda split: split[part].extend(entries)


SHARED: list[tuple[Change, str, dict[str, int]]] = [
    (lambda s: s["test"].extend(s["train"][:3]), "3 in train and test", {"train_and_test": 3}),
    (lambda s: s["val"].append(s["train"][0]), "1 in train and val", {"train_and_val": 1}),
    (lambda s: s["test"].extend(s["test"][:2]), "2 twice in test", {"twice_in_test": 2}),
    (add("test", ["./red/00.png", 0, "red"]), "1 in train and test", {"train_and_test": 1}),
    (add("test", ["red//./00.png", 1, "green"]), "1 in train and test", {"train_and_test": 1}),
    (add("test", ["link/00.png", 0, "red"]), "1 in train and test", {"train_and_test": 1}),
    (
        lambda s: s.update(val=[*s["val"], s["test"][0]], train=[*s["train"], s["train"][0]]),
        "1 twice in train, 1 in val and test",
        {"twice_in_train": 1, "val_and_test": 1},
    ),
]


@pytest.mark.parametrize(("change", "words", "counts"), SHARED)
def test_shared_images_are_warned_of_and_recorded(
    change: Change, words: str, counts: dict[str, int], root: Path, tmp_path: Path, capsys: Capture
) -> None:
    (root / "squares" / "images" / "link").symlink_to(root / "squares" / "images" / "red")
    edit(root, change)
    run(root, tmp_path / "run", *ALL, *EPOCH)
    printed = capsys.readouterr().out
    assert printed.count("Warning: ") == 1
    assert f"{split_path(root)}: the same image is listed more than once: {words}\n" in printed
    assert results(tmp_path / "run")["split_check"] == counts


def test_links_to_a_training_image_are_shared_images(root: Path, capsys: Capture) -> None:
    images = root / "squares" / "images"
    (images / "red" / "soft.png").symlink_to(images / "red" / "00.png")
    os.link(images / "red" / "01.png", images / "red" / "hard.png")
    edit(root, add("test", *([f"red/{n}.png", 0, "red"] for n in ("soft", "hard"))))
    trainer = build_trainer(toy_config(root, root, *ALL))
    assert trainer.dm.split_check == {}
    capsys.readouterr()
    trainer.check_train()
    assert trainer.dm.split_check == {"train_and_test": 2}
    assert capsys.readouterr().out.count("2 in train and test") == 1
    trainer.check_train()
    assert not capsys.readouterr().out


def test_names_that_differ_in_case_are_different_files(root: Path) -> None:
    images = root / "squares" / "images" / "red"
    if (images / "00.PNG").exists():
        pytest.skip("this file system ignores case")
    (images / "00.PNG").write_bytes((images / "01.png").read_bytes())
    edit(root, add("test", ["red/00.PNG", 0, "red"]))
    assert build_dataset(toy_config(root, root)).split_check == {}
    (images / "00.PNG").unlink()
    (images / "00.PNG").symlink_to(images / "00.png")
    assert build_dataset(toy_config(root, root)).split_check == {"train_and_test": 1}


def test_repeated_shots_are_not_shared_images(root: Path, capsys: Capture) -> None:
    repeat = ("DATASET.NUM_SHOTS", "9", "DATASET.REPEAT_SHOTS", "True")
    trainer = build_trainer(toy_config(root, root, *repeat))
    trainer.check_train()
    assert len(trainer.dm.items["train_x"]) == 36 and trainer.dm.split_check == {}
    assert "Warning" not in capsys.readouterr().out


# Bad content

LABELS: tuple[Any, ...] = (0.5, True, False, None, -1, "0.5", "zero", float("nan"), [0], {})
NOT_LISTS: tuple[Any, ...] = (None, {}, "red/03.png", 0)
NOT_A_SPLIT = "is not a split file with the lists train, val and test"


def second(part: str, path: str, label: Any = 0) -> Change:
    return lambda split: split[part].insert(1, [path, label, "red"])


BAD: list[tuple[Change, str]] = [
    *((second("train", "red/03.png", label), "entry 2 is not [relative path") for label in LABELS),
    *((lambda s, value=value: s.update(val=value), NOT_A_SPLIT) for value in NOT_LISTS),
    *(
        (second("test", path), f'entry 2: The path "{path}" leads out of')
        for path in ("red/../../x.png", "/etc/passwd", "C:\\x", "..\\x")
    ),
    (second("test", "red/../red/03.png"), '"red/../red/03.png" contains ".." and is refused'),
    (second("test", ""), 'The path "" is not a valid file path'),
    (lambda s: s.update(train=[], val=[], test=[]), " has no images; a task needs images of two"),
    (
        lambda s: s.update({p: [[e[0], e[1], e[2] * (e[1] > 0)] for e in s[p]] for p in s}),
        "a class name is empty",
    ),
    (lambda s: s.update({p: [e for e in s[p] if e[1] == 0] for p in s}), 'single class, "red"'),
]


@pytest.mark.parametrize(("change", "part"), BAD)
def test_bad_content_is_refused(change: Change, part: str, root: Path) -> None:
    edit(root, change)
    error = error_of(root)
    assert str(split_path(root)) in error and part in error


@pytest.mark.parametrize("text", ["[]", "{", '{"train": []}', "null"])
def test_files_that_are_not_splits_are_refused(text: str, root: Path) -> None:
    split_path(root).write_text(text)
    assert str(split_path(root)) in error_of(root)


def test_equivalent_spellings_are_accepted(root: Path, tmp_path: Path) -> None:
    """Labels as floats or text, other separators, absolute paths, a byte order mark, line ends."""
    images = root / "squares" / "images"
    before = Squares(toy_config(root, root)).train_x
    original = json.loads(split_path(root).read_text())
    changes: list[Callable[[str, int], list[Any]]] = [
        lambda path, label: [path, float(label)],
        lambda path, label: [path, str(label)],
        lambda path, label: [path.replace("/", "\\"), label],
        lambda path, label: [f"{images}/{path}", label],
    ]
    for change in changes:
        train = [[*change(path, label), name] for path, label, name in original["train"]]
        split_path(root).write_text(json.dumps({**original, "train": train}))
        assert Squares(toy_config(root, root)).train_x == before
    (tmp_path / "link").symlink_to(root)
    through_link = Squares(toy_config(tmp_path / "link", root)).train_x or []
    assert all(item.impath.startswith(str(tmp_path / "link")) for item in through_link)
    text = json.dumps(original, indent=1).replace("\n", "\r\n")
    for end in (b"", b"\n\n\r\n \n"):
        split_path(root).write_bytes(b"\xef\xbb\xbf" + text.encode() + end)
        assert Squares(toy_config(root, root)).train_x == before


def test_a_bad_split_is_not_saved(root: Path) -> None:
    class Outside(Squares):
        split_file = "split_outside.json"

        def make_split(self) -> dict[str, list[Datum]]:
            split = super().make_split()
            split["test"].append(Datum(f"{self.images}/../a.png", 0, classname="red"))
            return split

    with pytest.raises(UserError, match="leads out of"):
        Outside(toy_config(root, root))
    assert not (root / "squares" / "split_outside.json").exists()


# Missing images


def remove(root: Path, part: str, count: int) -> list[str]:
    dataset = Squares(toy_config(root, root, *ALL))
    paths = [item.impath for item in getattr(dataset, part)[-count:]]
    for path in paths:
        Path(path).unlink()
    return paths


@pytest.mark.parametrize(
    ("part", "words"), [("train_x", "5 of the 24 training"), ("val", "5 of the 12 validation")]
)
def test_missing_images_are_found_before_the_first_epoch(
    part: str, words: str, root: Path, tmp_path: Path
) -> None:
    paths = remove(root, part, 5)
    remove(root, "test", 1)
    with pytest.raises(UserError) as caught:
        run(root, tmp_path / "run", *ALL)
    error = str(caught.value)
    assert f"{words} images" in error and "1 of the 12 test images" in error and "\n" not in error
    assert paths[0] in error and "and 3 more" in error
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_only_opened_images_have_to_exist(root: Path, tmp_path: Path) -> None:
    done = run(root, tmp_path / "trained", *EPOCH)
    remove(root, "test", 12)
    run(root, tmp_path / "untested", *EPOCH, "TEST.NO_TEST", "True")
    with pytest.raises(UserError, match="12 of the 12 test images cannot be opened: No such file"):
        done.__class__(toy_config(root, tmp_path / "a")).evaluate()
    assert build_trainer(toy_config(root, root, "TEST.SPLIT", "val")).evaluate() >= 0
    remove(root, "val", 12)
    with pytest.raises(UserError, match="12 of the 12 validation images cannot be opened"):
        build_trainer(toy_config(root, root, "TEST.SPLIT", "val")).evaluate()


def test_broken_links_and_folders_are_missing_images(root: Path, tmp_path: Path) -> None:
    first, second, third = map(Path, remove(root, "test", 3))
    first.symlink_to(tmp_path / "nowhere")
    second.mkdir()
    third.symlink_to(root / "squares" / "images" / "red" / "03.png")
    with pytest.raises(UserError, match="2 of the 12 test images"):
        build_trainer(toy_config(root, root)).check_evaluation()
    skip = error_of(root, "DATALOADER.ON_BAD_IMAGE", "skip")  # which is for broken images alone
    assert "2 of the 12 test images cannot be opened" in skip


def test_a_missing_test_image_costs_no_run(root: Path, tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / "run"
    finish(toy_command(root, output, *EPOCH))
    before = content(output)
    (path,) = remove(root, "test", 1)
    for folder, flags in (
        (output, ("--overwrite",)),
        (tmp_path / "tested", ("--eval-only", "--model-dir", str(output))),
        (tmp_path / "built", ("--no-train",)),
    ):
        error = refuse(toy_command(root, folder, *EPOCH, flags=flags), capsys)
        assert "1 of the 12 test images cannot be opened" in error and path in error
        assert content(output) == before
    finish(toy_command(root, output, *EPOCH, "TEST.NO_TEST", "True", flags=("--overwrite",)))


# Empty parts


@pytest.mark.parametrize("shots", ["2", "-1"])
def test_test_images_do_not_choose_the_model(shots: str, root: Path, tmp_path: Path) -> None:
    edit(root, lambda s: s.update(val=[]))
    with pytest.raises(UserError, match=r"TEST\.FINAL_MODEL best_val needs validation images"):
        run(root, tmp_path / "run", *BEST_VAL, "DATASET.NUM_SHOTS", shots)
    assert not (tmp_path / "run" / "config.yaml").exists()
    few = (*EPOCH, "DATASET.NUM_SHOTS", shots)
    run(root, tmp_path / "last", *few)
    run(root, tmp_path / "untested", *BEST_VAL, "TEST.NO_TEST", "True", *few)
    build_trainer(toy_config(root, tmp_path / "eval", *BEST_VAL)).evaluate()


def test_results_state_which_images_were_tested_on(root: Path, tmp_path: Path) -> None:
    on_val = ("TEST.SPLIT", "val", *EPOCH)
    run(root, tmp_path / "val", *on_val)
    assert results(tmp_path / "val")["split"] == "val"
    edit(root, lambda s: s.update(val=[]))
    run(root, tmp_path / "test", *on_val)
    assert results(tmp_path / "test")["split"] == "test"


@pytest.mark.parametrize(("part", "word"), [("test", "test"), ("train", "training")])
def test_an_empty_part_is_found_before_training(
    part: str, word: str, root: Path, tmp_path: Path
) -> None:
    edit(root, lambda s: s.update({part: []}))
    with pytest.raises(UserError, match=f"Squares has no {word} images"):
        run(root, tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()
    if part == "test":
        run(root, tmp_path / "none", "TEST.NO_TEST", "True", *EPOCH)
        run(root, tmp_path / "val", "TEST.SPLIT", "val", *EPOCH)


def test_datasets_of_one_class_or_none(root: Path) -> None:
    class Lists(DatasetBase):
        images: ClassVar[list[Datum]] = []

        def __init__(self, cfg: Any) -> None:
            super().__init__(train_x=self.images, test=self.images)

    DATASET_REGISTRY._objects = {**dict(DATASET_REGISTRY.items()), "Lists": Lists}
    assert "Lists has no images" in error_of(root, "DATASET.NAME", "Lists")
    Lists.images = [Datum("a.png", 0, classname="red")]
    assert 'Lists has a single class, "red"' in error_of(root, "DATASET.NAME", "Lists")
    # Class names without images have no accuracy that would be 100%.
    opts = ("DATASET.NAME", "ClassNames", "DATASET.CLASSNAMES", "['cat']")
    assert DataManager(toy_config(root, root, *opts)).num_classes == 1


# Domains


@pytest.mark.parametrize("flag", ["--source-domains", "--target-domains"])
def test_unknown_domains_are_refused(
    flag: str, tmp_path: Path, data_root: Path, capsys: Capture
) -> None:
    error = refuse([flag, "notto", *command(tmp_path / "run", data_root)], capsys)
    assert '"notto" is not available; did you mean "noto"?' in error
    assert "Available: noto, openmoji, openmoji-black, emojione-v1, fxemoji" in error
    fill(tmp_path / "pets")
    pets = ("DATASET.FOLDER.PATH", "pets")
    error = refuse([flag, "noto", *command(tmp_path, tmp_path, *pets, dataset="folder")], capsys)
    assert "Folder has no" in error and "noto" in error and flag in error


def test_source_domains_of_the_benchmark(tmp_path: Path, data_root: Path) -> None:
    def styles(*domains: str) -> set[str]:
        emoji = ("DATASET.NAME", "EmojiActivities", "DATASET.NUM_SHOTS", "1")
        chosen = ("DATASET.SOURCE_DOMAINS", str(list(domains)))
        cfg = toy_config(data_root, tmp_path, *emoji, *chosen)
        dataset = build_dataset(cfg)
        assert build_dataset(cfg).train_x == dataset.train_x
        assert len({item.label for item in dataset.train_x}) == dataset.num_classes
        return {Path(i.impath).parts[-3] for i in [*dataset.train_x, *dataset.val]}

    assert styles("noto") == {"noto"}
    assert styles("openmoji") == {"openmoji"}
    assert styles("openmoji", "noto") == styles() == {"noto", "openmoji"}
    with pytest.raises(UserError, match=r"fxemoji.*Available: noto, openmoji"):
        styles("fxemoji")


def test_domains_of_third_party_datasets(root: Path) -> None:
    """They may ignore the domains, or know them without listing them."""
    images = [Datum(f"{n}.png", n % 2, n // 2, str(n % 2)) for n in range(4)]

    class Foreign(DatasetBase):
        def __init__(self, cfg: Any) -> None:
            super().__init__(train_x=images, test=images)

    class Listed(Foreign):
        domains = ["day", "night"]

    class Blind(Foreign):
        def __init__(self, cfg: Any) -> None:
            DatasetBase.__init__(self, train_x=images[:2], test=images[:2])

    day = ("DATASET.SOURCE_DOMAINS", "['day']", "DATASET.NAME", "Foreign")

    def build(kind: type[DatasetBase], *opts: str) -> Any:
        DATASET_REGISTRY._objects = {**dict(DATASET_REGISTRY.items()), "Foreign": kind}
        return build_dataset(toy_config(root, root, *day, *opts))

    assert build(Foreign).train_x == build(Listed).train_x == images
    with pytest.raises(UserError, match='did you mean "night"'):
        build(Listed, "DATASET.TARGET_DOMAINS", "['nigth']")
    with pytest.raises(UserError, match="Blind has no domains"):
        build(Blind)
    listed = build(Listed)
    listed.is_input_domain_valid(["day"])
    listed.check_input_domains(["day"], ["night"])
