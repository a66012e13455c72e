"""Cached listings of class folders: used, noticed to be outdated, and not trusted when damaged."""

import gzip
import hashlib
import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from dassl.data.datasets import class_items, folder_items, list_images
from dassl.data.datasets.splits import entries_digest, to_entries
from safeio.errors import UserError
from tests.helpers.runs import Capture

CLASSES = ("cat", "dog")


def settle(directory: Path, time: int = 1_000_000_000) -> None:
    """Set old times of change: folders that are changing now are not cached."""
    for folder in (path for path in directory.iterdir() if path.is_dir()):
        os.utime(folder, (time, time))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    directory = tmp_path / "images"
    for name in CLASSES:
        (directory / name).mkdir(parents=True)
        for number in (2, 10, 1):
            (directory / name / f"{number}.JPEG").touch()
    settle(directory)
    return directory


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "listing.json.gz"


def folders(cache: Path) -> dict[str, Any]:
    return json.loads(gzip.decompress(cache.read_bytes()))["folders"]


def test_only_images_are_listed_in_order(images: Path) -> None:
    for other in ("cat/.hidden.jpg", "cat/Thumbs.db", "cat/README.txt", "README.txt"):
        (images / other).touch()
    (images / ".cache").mkdir()
    names = ["1.JPEG", "10.JPEG", "2.JPEG"]
    assert list_images(images) == {"cat": names, "dog": names}
    assert list_images(images, ignored=("dog",)) == {"cat": names}


def test_a_cached_listing_is_used_until_a_folder_changes(images: Path, cache: Path) -> None:
    listing = list_images(images, cache)
    content = json.loads(gzip.decompress(cache.read_bytes()))
    content["folders"]["cat"][1] = ["cached.jpg"]
    cache.write_bytes(gzip.compress(json.dumps(content).encode()))
    assert list_images(images, cache) == {**listing, "cat": ["cached.jpg"]}
    (images / "cat" / "3.png").touch()
    (images / "eel").mkdir()
    (images / "eel" / "1.jpg").touch()
    expected = {**listing, "cat": ["1.JPEG", "10.JPEG", "2.JPEG", "3.png"], "eel": ["1.jpg"]}
    assert list_images(images, cache) == expected
    assert set(folders(cache)) == {"dog"}  # the others are changing right now
    settle(images)
    assert list_images(images, cache) == expected
    (images / "eel" / "1.jpg").unlink()
    (images / "eel").rmdir()
    list_images(images, cache)
    assert set(folders(cache)) == set(CLASSES)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-9],
        lambda data: data[:30] + b"\xff" + data[31:],
        lambda data: b"no gzip",
        lambda data: gzip.compress(b"[]"),
        lambda data: gzip.compress(b'{"version": 1, "folders": {"cat": [1000000000, 7]}}'),
        lambda data: gzip.compress(
            b'{"version": 1, "folders": {"cat": [1000000000000000000, ["../x.jpg"]]}}'
        ),
        lambda data: gzip.compress(b'{"version": 0, "folders": "other"}'),
    ],
)
def test_a_damaged_listing_is_made_again(damage: Any, images: Path, cache: Path) -> None:
    listing = list_images(images, cache)
    whole = cache.read_bytes()
    cache.write_bytes(damage(whole))
    assert list_images(images, cache) == listing
    assert cache.read_bytes()[10:] == whole[10:]  # except gzip's time


def _list(images: Path, cache: Path, barrier: Any, queue: Any) -> None:
    barrier.wait()
    queue.put(list_images(images, cache))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_two_processes_list_the_same(images: Path, cache: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(2), context.Queue()
    arguments = (images, cache, barrier, queue)
    processes = [context.Process(target=_list, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found[0] == found[1] == list_images(images, cache)
    assert [path.name for path in cache.parent.iterdir() if path.is_file()] == [cache.name]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that root cannot write to")
def test_a_read_only_folder(images: Path, capsys: Capture) -> None:
    assert set(list_images(images, Path("/proc/self/listing.json.gz"))) == set(CLASSES)
    assert "could not be saved" in capsys.readouterr().out


def test_links_and_other_alphabets(images: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "é ü.jpg").touch()
    (images / "猫").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (images / "cat" / "linked.jpg").symlink_to(tmp_path / "elsewhere" / "é ü.jpg")
    os.utime(tmp_path / "elsewhere", (1, 1))
    for _ in range(2):
        listing = list_images(images, cache)
        assert listing["猫"] == ["é ü.jpg"]
        assert "linked.jpg" in listing["cat"]
    items = folder_items(images)
    assert items[-1].impath == str(images / "猫" / "é ü.jpg")
    assert all(Path(item.impath).is_file() for item in items)


def test_folders_that_are_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere cannot be listed"):
        list_images(tmp_path / "nowhere")
    with pytest.raises(UserError, match="contains no folders"):
        list_images(images / "cat")
    with pytest.raises(UserError, match="images/dog is not the folder of one of the 1 known"):
        class_items(images, list_images(images), {"cat": "cat"})
    classes = {"cat": "cat", "dog": "dog", "eel": "an eel", "elk": "an elk"}
    with pytest.raises(UserError, match=r"images/eel is missing: .* each of the 4.* 2 are missing"):
        class_items(images, list_images(images), classes)
    for name in ("eel", "elk"):
        (images / name).mkdir()
    with pytest.raises(UserError, match="class folders without images: eel, elk;"):
        list_images(images)
    (images / "cat" / os.fsdecode(b"\xff.jpg")).touch()
    with pytest.raises(UserError, match=r"is not valid UTF-8.*udcff\.jpg"):
        list_images(images)


def test_the_digest_of_many_images_is_that_of_their_json(images: Path) -> None:
    items = folder_items(images) * 5000
    pool = {"train": to_entries(items, images), "val": to_entries([], images)}
    expected = hashlib.sha256(json.dumps(pool).encode()).hexdigest()
    assert entries_digest({"train": items, "val": []}, images) == expected
