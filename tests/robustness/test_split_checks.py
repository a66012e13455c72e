"""Split files that share images between parts, name images that are missing, or are no splits."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dassl.data import DataManager
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum, build_dataset
from dassl.engine import build_trainer
from safeio.checksums import read_verified_json
from safeio.errors import UserError
from tests.helpers.dassl_toy import Squares, make_split, run, toy_config
from tests.helpers.runs import command, finish, refuse
from tests.runs.test_folder import CONFIG, fill, load, message, write_csv

pytestmark = pytest.mark.usefixtures("toys")

BEST_VAL = ("TEST.FINAL_MODEL", "best_val")
Split = dict[str, list[list[Any]]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The toy's images with its split file."""
    return make_split(tmp_path / "data")


def split_path(root: Path) -> Path:
    return root / "squares" / "split_squares.json"


def edit(root: Path, change: Callable[[Split], object]) -> None:
    content = json.loads(split_path(root).read_text())
    change(content)
    split_path(root).write_text(json.dumps(content))


def said(root: Path, *opts: str) -> str:
    with pytest.raises(UserError) as caught:
        DataManager(toy_config(root, root, *opts))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Leaks and doubles


@pytest.mark.parametrize(
    ("change", "words", "counts"),
    [
        (
            lambda s: s["test"].extend(s["train"][:3]),
            "3 in train and test",
            {"train_and_test": 3},
        ),
        (lambda s: s["val"].append(s["train"][0]), "1 in train and val", {"train_and_val": 1}),
        (lambda s: s["test"].extend(s["test"][:2]), "2 twice in test", {"twice_in_test": 2}),
        (
            lambda s: s["test"].append(["./" + s["train"][0][0], *s["train"][0][1:]]),
            "1 in train and test",
            {"train_and_test": 1},
        ),
        (
            lambda s: s["test"].append(["red//./00.png", 1, "green"]),
            "1 in train and test",
            {"train_and_test": 1},
        ),
        (
            lambda s: s["test"].append(["link/00.png", 0, "red"]),
            "1 in train and test",
            {"train_and_test": 1},
        ),
        (
            lambda s: (s["val"].extend(s["test"][:1]), s["train"].append(s["train"][0])),
            "1 twice in train, 1 in val and test",
            {"twice_in_train": 1, "val_and_test": 1},
        ),
    ],
)
def test_shared_images_are_warned_of_and_recorded(
    change: Callable[[Split], object],
    words: str,
    counts: dict[str, int],
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (root / "squares" / "images" / "link").symlink_to(root / "squares" / "images" / "red")
    edit(root, change)
    run(root, tmp_path / "run", "DATASET.NUM_SHOTS", "-1", "OPTIM.MAX_EPOCH", "1")
    printed = capsys.readouterr().out
    assert printed.count("Warning: ") == 1
    assert f"{split_path(root)}: the same image is listed more than once: {words}\n" in printed
    assert read_verified_json(tmp_path / "run" / "results.json")["split_check"] == counts


def test_links_to_a_training_image(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = root / "squares" / "images"
    (images / "red" / "soft.png").symlink_to(images / "red" / "00.png")
    os.link(images / "red" / "01.png", images / "red" / "hard.png")
    edit(root, lambda s: s["test"].extend([f"red/{n}.png", 0, "red"] for n in ("soft", "hard")))
    trainer = build_trainer(toy_config(root, root, "DATASET.NUM_SHOTS", "-1"))
    assert trainer.dm.split_check == {}
    capsys.readouterr()
    trainer.check_train()
    assert trainer.dm.split_check == {"train_and_test": 2}
    assert capsys.readouterr().out.count("2 in train and test") == 1
    trainer.check_train()
    assert not capsys.readouterr().out


def test_names_that_differ_in_case_are_files_of_their_own(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = root / "squares" / "images" / "red"
    if (images / "00.PNG").exists():
        pytest.skip("this file system does not tell them apart")
    (images / "00.PNG").write_bytes((images / "01.png").read_bytes())
    edit(root, lambda s: s["test"].append(["red/00.PNG", 0, "red"]))
    assert build_dataset(toy_config(root, root)).split_check == {}
    (images / "00.PNG").unlink()
    (images / "00.PNG").symlink_to(images / "00.png")
    assert build_dataset(toy_config(root, root)).split_check == {"train_and_test": 1}


def test_images_drawn_again_are_no_doubles(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repeat = ("DATASET.NUM_SHOTS", "9", "DATASET.REPEAT_SHOTS", "True")
    trainer = build_trainer(toy_config(root, root, *repeat))
    trainer.check_train()
    assert len(trainer.dm.items["train_x"]) == 36 and trainer.dm.split_check == {}
    assert "Warning" not in capsys.readouterr().out


# What is no split


@pytest.mark.parametrize(
    "label", [0.5, True, False, None, -1, "0.5", "zero", float("nan"), [0], {}]
)
@pytest.mark.parametrize("part", ["train", "test"])
def test_labels_are_whole_numbers(label: object, part: str, root: Path) -> None:
    edit(root, lambda s: s[part].insert(1, ["red/03.png", label, "red"]))
    found = said(root)
    assert f"{split_path(root)}: entry 2 is not [relative path" in found and "red/03.png" in found


def test_whole_numbers_in_other_words(root: Path) -> None:
    before = Squares(toy_config(root, root)).train_x
    edit(root, lambda s: s.update(train=[[p, float(n), c] for p, n, c in s["train"]]))
    assert Squares(toy_config(root, root)).train_x == before
    edit(root, lambda s: s.update(train=[[p, str(int(n)), c] for p, n, c in s["train"]]))
    assert Squares(toy_config(root, root)).train_x == before


@pytest.mark.parametrize("value", [None, {}, "red/03.png", 0])
def test_parts_are_lists(value: Any, root: Path) -> None:
    edit(root, lambda s: s.update(val=value))
    assert "is not a split file with the lists train, val and test" in said(root)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("red/../red/03.png", 'contains ".." and is refused'),
        ("red/../../x.png", "leads out of"),
        ("", "is not a valid file path"),
    ],
)
def test_what_is_said_of_a_path_is_true(path: str, words: str, root: Path) -> None:
    edit(root, lambda s: s["test"].insert(1, [path, 0, "red"]))
    assert f'{split_path(root)}, entry 2: The path "{path}" {words}' in said(root)


def test_empty_lists(root: Path) -> None:
    edit(root, lambda s: s.update(train=[], val=[], test=[]))
    assert f"{split_path(root)} has no images; a task needs images of two classes" in said(root)


def test_nothing_to_train_on(root: Path) -> None:
    edit(root, lambda s: s.update(train=[]))
    trainer = build_trainer(toy_config(root, root))
    with pytest.raises(UserError, match="Squares has no training images"):
        trainer.train()


def test_an_empty_class_name(root: Path) -> None:
    edit(root, lambda s: s.update({p: [[e[0], e[1], e[2] * (e[1] > 0)] for e in s[p]] for p in s}))
    assert "a class name is empty" in said(root)


def test_one_class(root: Path) -> None:
    edit(root, lambda s: s.update({p: [e for e in s[p] if e[1] == 0] for p in s}))
    assert f'{split_path(root)} has a single class, "red"' in said(root)


@pytest.mark.parametrize("end", [b"", b"\n\n\r\n \n"])
def test_byte_order_mark_and_line_ends(root: Path, end: bytes) -> None:
    before = Squares(toy_config(root, root)).train_x
    text = json.dumps(json.loads(split_path(root).read_text()), indent=1).replace("\n", "\r\n")
    split_path(root).write_bytes(b"\xef\xbb\xbf" + text.encode() + end)
    assert Squares(toy_config(root, root)).train_x == before


# Paths


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("name", ["a\\b", "C:", "a:b", "c:\\d", "x\\..\\y", "\\", "a: b", "x\\.."])
def test_any_name_of_a_class_folder(name: str, tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets", ("cat", name))
    (folder / "cat" / "00.png").rename(folder / "cat" / "12:30\\a.png")
    first = load(folder)
    assert {i.classname for i in first["test"]} == {"cat", name}
    assert all(Path(i.impath).is_file() for items in first.values() for i in items)
    assert load(folder) == first
    assert load(folder, "DATASET.NUM_SHOTS", 2) == load(folder, "DATASET.NUM_SHOTS", 2)


def test_separators_of_windows(root: Path) -> None:
    before = Squares(toy_config(root, root)).train_x
    edit(root, lambda s: s.update(train=[[p.replace("/", "\\"), n, c] for p, n, c in s["train"]]))
    assert Squares(toy_config(root, root)).train_x == before


def test_absolute_paths_inside_of_the_folder(root: Path, tmp_path: Path) -> None:
    images = root / "squares" / "images"
    before = Squares(toy_config(root, root)).train_x
    edit(root, lambda s: s.update(train=[[f"{images}/{p}", n, c] for p, n, c in s["train"]]))
    assert Squares(toy_config(root, root)).train_x == before
    (tmp_path / "link").symlink_to(root)
    through_link = Squares(toy_config(tmp_path / "link", root)).train_x or []
    assert all(item.impath.startswith(str(tmp_path / "link")) for item in through_link)
    edit(root, lambda s: s["val"].insert(2, [f"{root}/other.png", 0, "red"]))
    found = said(root)
    assert f"{split_path(root)}, entry 3: " in found and "leads out of" in found


def test_absolute_paths_of_a_csv(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets", count=4)
    rows = [["path", "label"]]
    rows += [[str(path), path.parent.name] for path in sorted(folder.rglob("*.png"))]
    table = write_csv(folder / "pets.csv", rows)
    assert load(table) == load(
        write_csv(table, [[r[0].removeprefix(f"{folder}/"), r[1]] for r in rows])
    )
    for path in (f"{tmp_path}/x.png", f"{folder}/../x.png", "C:\\x.png", f"{folder}x/a.png"):
        write_csv(table, [*rows[:3], [path, "cat"]])
        assert "line 4: The path" in message(table) and "refused" in message(table)


def test_nothing_bad_is_left_behind(root: Path) -> None:
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
    dataset = Squares(toy_config(root, root, "DATASET.NUM_SHOTS", "-1"))
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
        run(root, tmp_path / "run", "DATASET.NUM_SHOTS", "-1")
    found = str(caught.value)
    assert f"{words} images" in found and "1 of the 12 test images" in found and "\n" not in found
    assert paths[0] in found and "and 3 more" in found
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_only_what_is_opened_has_to_be_there(root: Path, tmp_path: Path) -> None:
    done = run(root, tmp_path / "trained", "OPTIM.MAX_EPOCH", "1")
    # Without a test, its images need not exist.
    remove(root, "test", 12)
    run(root, tmp_path / "untested", "OPTIM.MAX_EPOCH", "1", "TEST.NO_TEST", "True")
    # Without training, the others need not; neither those that were not drawn.
    with pytest.raises(UserError, match="12 of the 12 test images cannot be opened: No such file"):
        done.__class__(toy_config(root, tmp_path / "a")).evaluate()
    assert build_trainer(toy_config(root, root, "TEST.SPLIT", "val")).evaluate() >= 0
    remove(root, "val", 12)
    with pytest.raises(UserError, match="12 of the 12 validation images cannot be opened"):
        build_trainer(toy_config(root, root, "TEST.SPLIT", "val")).evaluate()


def test_a_link_to_nowhere_and_a_folder_are_no_images(root: Path, tmp_path: Path) -> None:
    first, second, third = map(Path, remove(root, "test", 3))
    first.symlink_to(tmp_path / "nowhere")
    second.mkdir()
    third.symlink_to(root / "squares" / "images" / "red" / "03.png")
    with pytest.raises(UserError, match="2 of the 12 test images"):
        build_trainer(toy_config(root, root)).check_evaluation()


def test_missing_images_are_not_left_out(root: Path) -> None:
    remove(root, "test", 2)
    assert "2 of the 12 test images cannot be opened" in said(
        root, "DATALOADER.ON_BAD_IMAGE", "skip"
    )


def test_a_missing_test_image_costs_no_run(
    own_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    few = ("DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "1")
    finish(command(output, own_root, *few))
    before = (output / "results.json").read_bytes()
    split = json.loads((own_root / "emoji_activities" / "split_EmojiActivities.json").read_text())
    path = own_root / "emoji_activities" / "images" / split["test"][7][0]
    path.rename(path.with_suffix(".away"))
    commands = {
        "training": command(output, own_root, "--overwrite", *few),
        "zero-shot": command(output, own_root, "--overwrite", *few, trainer="ZeroshotCLIP"),
        "tests alone": command(
            *(tmp_path / "tested", own_root, "--eval-only", "--model-dir", str(output), *few)
        ),
        "nothing": command(tmp_path / "built", own_root, "--no-train", *few),
    }
    for what, arguments in commands.items():
        found = refuse(arguments, capsys)
        assert "1 of the" in found and "test images cannot be opened" in found, what
        assert str(path) in found
        assert (output / "results.json").read_bytes() == before
    # Where it is not tested on, it may be missing.
    style = ("--target-domains", "fxemoji", "--overwrite")
    finish([*style, *command(output, own_root, *few)])
    finish(command(output, own_root, "--overwrite", *few, "TEST.NO_TEST", "True"))
    path.with_suffix(".away").rename(path)


# Validation and test images


@pytest.mark.parametrize("shots", ["2", "-1"])
def test_test_images_do_not_choose_the_model(shots: str, root: Path, tmp_path: Path) -> None:
    edit(root, lambda s: s.update(val=[]))
    with pytest.raises(UserError, match=r"TEST\.FINAL_MODEL best_val needs validation images"):
        run(root, tmp_path / "run", *BEST_VAL, "DATASET.NUM_SHOTS", shots)
    assert not (tmp_path / "run" / "config.yaml").exists()
    few = ("OPTIM.MAX_EPOCH", "1", "DATASET.NUM_SHOTS", shots)
    run(root, tmp_path / "last", *few)
    run(root, tmp_path / "untested", *BEST_VAL, "TEST.NO_TEST", "True", *few)
    build_trainer(toy_config(root, tmp_path / "eval", *BEST_VAL)).evaluate()


def test_results_say_which_images_were_tested_on(root: Path, tmp_path: Path) -> None:
    on_val = ("TEST.SPLIT", "val", "OPTIM.MAX_EPOCH", "1")
    run(root, tmp_path / "val", *on_val)
    assert read_verified_json(tmp_path / "val" / "results.json")["split"] == "val"
    edit(root, lambda s: s.update(val=[]))
    run(root, tmp_path / "test", *on_val)
    assert read_verified_json(tmp_path / "test" / "results.json")["split"] == "test"


def test_no_test_images_are_said_before_training(root: Path, tmp_path: Path) -> None:
    edit(root, lambda s: s.update(test=[]))
    with pytest.raises(UserError, match="Squares has no test images"):
        run(root, tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()
    run(root, tmp_path / "none", "TEST.NO_TEST", "True", "OPTIM.MAX_EPOCH", "1")
    run(root, tmp_path / "val", "TEST.SPLIT", "val", "OPTIM.MAX_EPOCH", "1")


# Domains


@pytest.mark.parametrize("flag", ["--source-domains", "--target-domains"])
def test_unknown_domains(
    flag: str, tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = refuse([flag, "notto", *command(tmp_path / "run", data_root)], capsys)
    assert '"notto" is not available; did you mean "noto"?' in found
    assert "Available: noto, openmoji, openmoji-black, emojione-v1, fxemoji" in found
    fill(tmp_path / "pets")
    arguments = command(tmp_path / "run", tmp_path, "DATASET.FOLDER.PATH", "pets")
    arguments[arguments.index("--dataset-config-file") + 1] = CONFIG
    found = refuse([flag, "noto", *arguments], capsys)
    assert "Folder has no" in found and "noto" in found and flag in found


def test_source_domains_of_the_benchmark(tmp_path: Path, data_root: Path) -> None:
    def styles(*domains: str) -> set[str]:
        cfg = toy_config(
            *(data_root, tmp_path, "DATASET.NAME", "EmojiActivities", "DATASET.NUM_SHOTS", "1"),
            *("DATASET.SOURCE_DOMAINS", str(list(domains))),
        )
        dataset = build_dataset(cfg)
        assert build_dataset(cfg).train_x == dataset.train_x
        assert len({item.label for item in dataset.train_x}) == dataset.num_classes
        return {Path(i.impath).parts[-3] for i in [*dataset.train_x, *dataset.val]}

    assert styles("noto") == {"noto"}
    assert styles("openmoji") == {"openmoji"}
    assert styles("openmoji", "noto") == styles() == {"noto", "openmoji"}
    with pytest.raises(UserError, match=r"fxemoji.*Available: noto, openmoji"):
        styles("fxemoji")


def test_datasets_of_other_people_with_domains(root: Path) -> None:
    """They may not look at the domains themselves, or know them without listing them."""
    images = [Datum(f"{n}.png", n % 2, n // 2, str(n % 2)) for n in range(4)]

    class Foreign(DatasetBase):
        def __init__(self, cfg: Any) -> None:
            super().__init__(train_x=images, test=images)

    class Listed(Foreign):
        domains = ["day", "night"]

    class Blind(Foreign):
        def __init__(self, cfg: Any) -> None:
            DatasetBase.__init__(self, train_x=images[:2], test=images[:2])

    kinds: list[tuple[type[DatasetBase], tuple[str, ...], str]] = [
        (Foreign, (), ""),
        (Listed, (), ""),
        (Listed, ("DATASET.TARGET_DOMAINS", "['nigth']"), 'did you mean "night"'),
        (Blind, (), "Blind has no domains"),
    ]
    given = ("DATASET.SOURCE_DOMAINS", "['day']")
    for number, (kind, opts, wrong) in enumerate(kinds):
        name = f"Foreign{number}"
        DATASET_REGISTRY._objects = {**dict(DATASET_REGISTRY.items()), name: kind}
        cfg = toy_config(root, root, *given, "DATASET.NAME", name, *opts)
        if wrong:
            with pytest.raises(UserError, match=wrong):
                build_dataset(cfg)
        else:
            assert build_dataset(cfg).train_x == images
    Listed(cfg).is_input_domain_valid(["day"])
    Listed(cfg).check_input_domains(["day"], ["night"])


def test_names_alone_may_be_of_one_class(root: Path) -> None:
    """For pictures from elsewhere there is no accuracy that would be 100%."""
    opts = ("DATASET.NAME", "ClassNames", "DATASET.CLASSNAMES", "['cat']")
    assert DataManager(toy_config(root, root, *opts)).num_classes == 1


def test_other_peoples_datasets_of_one_class_or_none(root: Path) -> None:
    class Lists(DatasetBase):
        images: ClassVar[list[Datum]] = []

        def __init__(self, cfg: Any) -> None:
            super().__init__(train_x=self.images, test=self.images)

    DATASET_REGISTRY._objects = {**dict(DATASET_REGISTRY.items()), "Lists": Lists}
    assert "Lists has no images" in said(root, "DATASET.NAME", "Lists")
    Lists.images = [Datum("a.png", 0, classname="red")]
    assert 'Lists has a single class, "red"' in said(root, "DATASET.NAME", "Lists")
