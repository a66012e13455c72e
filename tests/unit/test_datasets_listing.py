"""Listings of class folders: cached, updated, and made again if damaged."""

import gzip
import hashlib
import json
import multiprocessing
import os
import sys
from pathlib import Path

import pytest

from dassl.data.datasets import class_items, folder_items, list_images
from dassl.data.datasets.splits import entries_digest, to_entries
from safeio.errors import UserError

CLASSES = ("cat", "dog")


def settle(directory: Path, time: int = 1_000_000_000) -> None:
    """Set an old modification time: recently changed folders are not cached."""
    for folder in (path for path in directory.iterdir() if path.is_dir()):
        os.utime(folder, (time, time))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    directory = tmp_path / "images"
    for name in CLASSES:
        for number in (2, 10, 1):
            (directory / name).mkdir(parents=True, exist_ok=True)
            (directory / name / f"{number}.JPEG").touch()
    settle(directory)
    return directory


def test_only_images_are_listed_in_order(images: Path) -> None:
    for other in (".hidden.jpg", "Thumbs.db", "README.txt"):
        (images / "cat" / other).touch()
    (images / "README.txt").touch()
    (images / ".cache").mkdir()
    names = ["1.JPEG", "10.JPEG", "2.JPEG"]
    assert list_images(images) == {"cat": names, "dog": names}
    assert list_images(images, ignored=("dog",)) == {"cat": names}


def test_a_cached_listing_is_used_until_a_folder_changes(images: Path, tmp_path: Path) -> None:
    cache = tmp_path / "listing.json.gz"
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
    settle(images)
    assert list_images(images, cache) == expected
    (images / "eel" / "1.jpg").unlink()
    (images / "eel").rmdir()
    list_images(images, cache)
    assert set(json.loads(gzip.decompress(cache.read_bytes()))["folders"]) == set(CLASSES)


def test_recent_changes_are_not_cached(images: Path, tmp_path: Path) -> None:
    cache = tmp_path / "listing.json.gz"
    (images / "cat" / "3.png").touch()
    list_images(images, cache)
    assert set(json.loads(gzip.decompress(cache.read_bytes()))["folders"]) == {"dog"}


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
def test_a_damaged_listing_is_made_again(images: Path, tmp_path: Path, damage: object) -> None:
    cache = tmp_path / "listing.json.gz"
    listing = list_images(images, cache)
    whole = cache.read_bytes()
    cache.write_bytes(damage(whole))  # type: ignore[operator]
    assert list_images(images, cache) == listing
    assert cache.read_bytes()[10:] == whole[10:]  # but for gzip's time


def _list(images: str, cache: str, barrier: object, queue: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    queue.put(list_images(Path(images), Path(cache)))  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_two_processes(images: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(2), context.Queue()
    cache = tmp_path / "listing.json.gz"
    arguments = (str(images), str(cache), barrier, queue)
    processes = [context.Process(target=_list, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found[0] == found[1] == list_images(images, cache)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [cache.name]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that root cannot write to")
def test_a_read_only_folder(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(list_images(images, Path("/proc/self/listing.json.gz"))) == set(CLASSES)
    assert "could not be saved" in capsys.readouterr().out


def test_links_and_other_alphabets(images: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "é ü.jpg").touch()
    (images / "猫").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (images / "cat" / "linked.jpg").symlink_to(tmp_path / "elsewhere" / "é ü.jpg")
    os.utime(tmp_path / "elsewhere", (1, 1))
    cache = tmp_path / "listing.json.gz"
    for _ in range(2):
        listing = list_images(images, cache)
        assert listing["猫"] == ["é ü.jpg"]
        assert "linked.jpg" in listing["cat"]
    items = folder_items(images)
    assert items[-1].impath == str(images / "猫" / "é ü.jpg")
    assert all(Path(item.impath).is_file() for item in items)


def test_empty_and_missing_folders(images: Path, tmp_path: Path) -> None:
    (images / "eel").mkdir()
    (images / "eel" / "notes.txt").touch()
    (images / "elk").mkdir()
    with pytest.raises(UserError, match="class folders without images: eel, elk;"):
        list_images(images)
    with pytest.raises(UserError, match="nowhere cannot be listed"):
        list_images(tmp_path / "nowhere")
    with pytest.raises(UserError, match="contains no folders"):
        list_images(images / "cat")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_not_utf8(images: Path) -> None:
    (images / "cat" / os.fsdecode(b"\xff.jpg")).touch()
    with pytest.raises(UserError, match=r"is not valid UTF-8.*udcff\.jpg"):
        list_images(images)


def test_classes_and_folders_must_agree(images: Path) -> None:
    with pytest.raises(UserError, match="images/dog is not the folder of one of the 1 known"):
        class_items(images, list_images(images), {"cat": "cat"})
    classes = {"cat": "cat", "dog": "dog", "eel": "an eel", "elk": "an elk"}
    with pytest.raises(UserError, match=r"images/eel is missing: .* each of the 4.* 2 are missing"):
        class_items(images, list_images(images), classes)


def test_the_digest_of_many_images_is_that_of_their_json(images: Path) -> None:
    items = folder_items(images) * 5000
    pool = {"train": to_entries(items, images), "val": to_entries([], images)}
    expected = hashlib.sha256(json.dumps(pool).encode()).hexdigest()
    assert entries_digest({"train": items, "val": []}, images) == expected
