"""Datasets from a real server on this machine: whole, cut, dead, wrong, by hand, twice at once."""

import dataclasses
import hashlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

from dassl.data.datasets import DATASET_REGISTRY, Source
from datasets.download import Fetcher, Missing
from datasets.sources import SOURCES
from nemesis.commands import download as command
from safeio.archives import Budget
from tests.helpers.published import DRIVE, FILES, PICTURE, publish, tar
from tests.helpers.runs import ROOT, Capture
from tests.helpers.server import Server, serve

NAMES = (
    *("Caltech101", "OxfordPets", "StanfordCars", "OxfordFlowers", "Food101", "FGVCAircraft"),
    *("SUN397", "DescribableTextures", "EuroSAT", "UCF101", "ImageNet", "DMLab", "ImageNetV2"),
    *("ImageNetSketch", "ImageNetA", "ImageNetR"),
)
DEAD = "http://127.0.0.1:1/dead.zip"
Fetch = Callable[..., list[Missing]]


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as state:
        yield state


@pytest.fixture
def fetch(server: Server, tmp_path: Path) -> Fetch:
    """A function that fetches sources into the test's folder, and returns what is missing."""

    def one(*sources: Source, folder: Path = tmp_path, **options: object) -> list[Missing]:
        fetcher = Fetcher(folder, drive=server.url + DRIVE)
        return dataclasses.replace(fetcher, **options).fetch(sources)  # type: ignore[arg-type]

    return one


def _images(server: Server, content: bytes, **fields: object) -> Source:
    """A folder `images` that pictures.tgz on the server contains."""
    server.files["/pictures.tgz"] = content
    source = Source("images", (f"{server.url}/pictures.tgz",), ("images",))
    return dataclasses.replace(source, **fields)  # type: ignore[arg-type]


def _all(folder: Path) -> set[str]:
    """The files in a folder, except for the lock, which stays."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return found - {".download.lock"}


def test_the_fifteen_datasets() -> None:
    assert set(SOURCES) == set(NAMES)
    for source in (source for sources in SOURCES.values() for source in sources):
        for path in (source.path, source.unless, *source.unpack):
            assert not PurePosixPath(path).is_absolute()
            assert ".." not in PurePosixPath(path).parts
        assert source.urls or source.instructions
        assert all(url.split(":")[0] in ("http", "https", "gdrive") for url in source.urls)
    for name in NAMES:  # a loader finds its files where they are put
        dataset, paths = DATASET_REGISTRY.get(name), [source.path for source in SOURCES[name]]
        assert any(PurePosixPath(p).is_relative_to(dataset.image_dir) for p in paths), name
        assert not dataset.split_file or dataset.split_file in paths


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("ImageNet", "DMLab")])
def test_the_published_archives_give_the_layout(
    name: str, server: Server, fetch: Fetch, tmp_path: Path
) -> None:
    sources = publish(server)[name]
    assert fetch(*sources) == []
    assert not any(source.is_wanted(tmp_path) for source in sources)
    without = [source for source in sources if source.unless]
    assert not any(source.is_there(tmp_path) for source in without)  # the split file is there
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or path.read_bytes() in (PICTURE, b"{}", b"")
    asked = len(server.paths)
    assert fetch(*sources) == []
    assert len(server.paths) == asked
    for number, url in enumerate(sources[1].urls if name == "EuroSAT" else ()):
        only = dataclasses.replace(sources[1], urls=(url,))
        assert fetch(only, folder=tmp_path / f"{number}") == []
        assert _all(tmp_path / f"{number}") == {"2750/Forest/Forest_1.jpg"}


@pytest.mark.parametrize(
    "name", ["OxfordPets", "StanfordCars", "OxfordFlowers", "SUN397", "UCF101"]
)
def test_annotations_come_where_the_split_file_cannot(
    name: str, server: Server, fetch: Fetch, tmp_path: Path
) -> None:
    sources = publish(server)[name]
    split = next(source for source in sources if source.path.startswith("split_zhou_"))
    server.files[DRIVE + split.urls[0].partition(":")[2]] = b"<!DOCTYPE html><html>Quota</html>"
    (lost,) = fetch(*sources)
    assert lost.source == split
    assert lost.tried[0][0].startswith("https://drive.google.com/uc?id=")
    assert lost.tried[0][1] == "the server sent a web page instead of the file"
    assert all(source.is_there(tmp_path) for source in sources if source != split)


def test_an_archive_with_several_parts_comes_once(
    server: Server, fetch: Fetch, tmp_path: Path
) -> None:
    sources = publish(server)["FGVCAircraft"]
    fetch(*sources)
    assert len(server.paths) == 1
    (tmp_path / "variants.txt").unlink()
    fetch(*sources)
    assert len(server.paths) == 2
    assert (tmp_path / "variants.txt").is_file()


def test_a_connection_that_is_cut_resumes(server: Server, fetch: Fetch, tmp_path: Path) -> None:
    """By itself, and in a later call."""
    images = _images(server, tar("images/1.jpg", content=bytes(100_000), mode="w"))
    server.cut_after = 1000
    (lost,) = fetch(images)
    assert "cut after 10000 of " in lost.tried[0][1]
    assert not (tmp_path / "images").exists()
    server.requests.clear()
    server.cut_after = 30_000
    assert fetch(images) == []
    assert server.requests == ["bytes=10000-", "bytes=40000-", "bytes=70000-", "bytes=100000-"]
    assert _all(tmp_path) == {"images/1.jpg"}


@pytest.mark.parametrize("dead", ["missing.tgz", DEAD, "page.tgz", "damaged.tgz", "other.tgz"])
def test_the_next_address_where_the_first_fails(
    dead: str, server: Server, fetch: Fetch, tmp_path: Path
) -> None:
    good = tar("images/1.jpg")
    server.files["/page.tgz"] = b"\n <HTML><body>Moved</body></HTML>"
    server.files["/damaged.tgz"] = good[: len(good) // 2]
    server.files["/other.tgz"] = tar("pictures/1.jpg")
    first = dead if "//" in dead else f"{server.url}/{dead}"
    urls = (first, f"{server.url}/pictures.tgz")
    assert fetch(_images(server, good, urls=urls)) == []
    assert (tmp_path / "images/1.jpg").read_bytes() == PICTURE


def test_every_address_is_listed_with_its_reason(
    server: Server, fetch: Fetch, tmp_path: Path
) -> None:
    damaged = tar("images/1.jpg")[:-9]
    urls = (f"{server.url}/missing.tgz", DEAD, f"{server.url}/pictures.tgz")
    (lost,) = fetch(_images(server, damaged, urls=urls))
    assert [address for address, _ in lost.tried] == list(urls)
    reasons = [reason for _, reason in lost.tried]
    assert reasons[0] == "Not Found"
    assert "Connection refused" in reasons[1]
    assert reasons[2].startswith("it is damaged or truncated")
    assert _all(tmp_path) == set()


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
@pytest.mark.parametrize("own", [False, True])
def test_checksums_and_sizes(
    algorithm: str, own: bool, server: Server, fetch: Fetch, tmp_path: Path
) -> None:
    content = tar("images/1.jpg")
    digest = hashlib.new(algorithm, content).hexdigest()
    images = _images(server, content, size=len(content))
    if own:
        right = dataclasses.replace(images, urls=(f"{images.urls[0]}#{algorithm}={digest}",))
    else:
        right = dataclasses.replace(images, checksum=f"{algorithm}:{digest}")
    server.files["/pictures.tgz"] = content[:-1] + bytes([content[-1] ^ 1])
    (lost,) = fetch(right)
    assert f"not {digest}" in lost.tried[0][1]
    server.files["/pictures.tgz"] = content
    (lost,) = fetch(dataclasses.replace(right, size=7))
    assert lost.tried[0][1].endswith("bytes, not 7")
    assert _all(tmp_path) == set()
    assert fetch(right) == []


@pytest.mark.parametrize(
    ("member", "by_hand", "reason", "left"),
    [
        ("../../../evil", False, "'../../../evil' leads out of its folder", set()),
        ("pictures/1.jpg", False, "does not contain images", {".download/pictures.tgz"}),
        ("", True, "damaged", {"pictures.tgz"}),
    ],
)
def test_archives_that_are_refused(
    member: str,
    by_hand: bool,
    reason: str,
    left: set[str],
    server: Server,
    fetch: Fetch,
    tmp_path: Path,
) -> None:
    """A hostile one leaves nothing, one with another layout and the user's own are kept."""
    images = _images(server, tar(member) if member else tar("images/1.jpg")[:-9])
    folder = tmp_path / "data" / "folder"
    if by_hand:
        folder.mkdir(parents=True)
        (folder / "pictures.tgz").write_bytes(server.files.pop("/pictures.tgz"))
    (lost,) = fetch(images, folder=folder)
    own = [str(folder / "pictures.tgz")] if by_hand else []
    assert [address for address, _ in lost.tried] == [*own, images.urls[0]]
    assert reason in lost.tried[0][1]
    assert _all(folder) == left and _all(tmp_path) <= {
        "data/folder/.download.lock",
        *(f"data/folder/{path}" for path in left),
    }


def test_too_little_space_keeps_the_archive(server: Server, fetch: Fetch, tmp_path: Path) -> None:
    """And asks no other address: its archive would be as large."""
    images = _images(server, tar("images/1.jpg", content=bytes(50_000)))
    images = dataclasses.replace(images, urls=(*images.urls, f"{server.url}/again.tgz"))
    (lost,) = fetch(images, budget=Budget(20_000, "what is free"))
    ((_, reason),) = lost.tried
    assert reason == "it takes more than what is free when it is unpacked"
    assert _all(tmp_path) == {".download/pictures.tgz"}
    assert fetch(images) == []
    assert server.paths == ["/pictures.tgz"]
    assert _all(tmp_path) == {"images/1.jpg"}


@pytest.mark.parametrize("by_hand", [False, True])
def test_archives_that_are_kept(
    by_hand: bool, server: Server, fetch: Fetch, tmp_path: Path
) -> None:
    """On demand, and if the user has put them there. What a killed run unpacked does not count."""
    images = _images(server, tar("images/1.jpg"))
    half = tmp_path / ".download" / "pictures.tgz.unpacked" / "images"
    half.mkdir(parents=True)
    (half / "0.jpg").write_bytes(b"half")
    (tmp_path / "images").mkdir()  # empty
    if by_hand:
        (tmp_path / "pictures.tgz").write_bytes(server.files.pop("/pictures.tgz"))
    assert fetch(images, keep_archives=not by_hand) == []
    assert server.paths == ([] if by_hand else ["/pictures.tgz"])
    assert _all(tmp_path) == {"images/1.jpg", "pictures.tgz"}


def test_two_processes_at_once(server: Server, tmp_path: Path) -> None:
    images = _images(server, tar("images/1.jpg"))
    code = (
        "import sys; from pathlib import Path; from dassl.data.datasets import Source; "
        "from datasets.download import Fetcher; "
        "lost = Fetcher(Path(sys.argv[1])).fetch([Source('images', (sys.argv[2],), ('images',))]); "
        "assert not lost, lost"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path), images.urls[0]]
    runs = [subprocess.Popen(arguments, cwd=ROOT) for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    assert server.paths == ["/pictures.tgz"]
    assert _all(tmp_path) == {"images/1.jpg"}


def _run(*arguments: object, capsys: Capture) -> tuple[int, str, str]:
    capsys.readouterr()
    code = command.main([*map(str, arguments)])
    return code, *capsys.readouterr()


@pytest.fixture
def two_datasets(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Caltech101 can be had, StanfordCars cannot, and there are no others."""
    local = publish(server)
    monkeypatch.setitem(SOURCES, "Caltech101", local["Caltech101"][1:])
    monkeypatch.setitem(SOURCES, "StanfordCars", local["StanfordCars"][1:])
    for name in set(SOURCES) - {"Caltech101", "StanfordCars"}:
        monkeypatch.delitem(SOURCES, name)
    for path in list(server.files):
        if "stanford" in path and "test" in path:
            del server.files[path]
    return server


def test_the_command(two_datasets: Server, tmp_path: Path, capsys: Capture) -> None:
    root = ("--root", tmp_path)
    code, out, _ = _run("--list", *root, capsys=capsys)
    assert code == 0
    assert "missing    101_ObjectCategories" in out
    assert not any(tmp_path.iterdir())
    code, out, err = _run("caltech101", "Caltech101", *root, capsys=capsys)
    assert (code, err) == (0, "")
    assert out.count("Caltech101: complete") == 1
    assert (tmp_path / "caltech-101/101_ObjectCategories/accordion/image_0001.jpg").is_file()
    code, out, _ = _run("caltech101", "--list", *root, capsys=capsys)
    assert "present    101_ObjectCategories" in out
    assert _run("emoji_food", *root, capsys=capsys)[0] == 0


def test_what_is_missing_is_listed_at_the_end(
    two_datasets: Server, tmp_path: Path, capsys: Capture
) -> None:
    code, out, _ = _run("StanfordCars", "all", "--root", tmp_path, capsys=capsys)
    assert code == 1
    assert "Caltech101: complete" in out
    folder = tmp_path / "stanford_cars"
    assert (folder / "cars_train/00001.jpg").is_file()
    _, _, end = out.partition("Not downloaded:")
    assert re.search(r"StanfordCars +cars_test *\n", end)
    assert "only needed without split_zhou_StanfordCars.json" in end
    address = f"{two_datasets.url}/ai.stanford.edu/~jkrause/car196/cars_test.tgz"
    assert f"tried {address}: Not Found" in end
    assert f"put cars_test.tgz into {folder} and run this again to unpack it" in end
    assert f"put the file cars_test_annos_withlabels.mat into {folder}" in end
    (folder / "cars_test.tgz").write_bytes(FILES["cars_test.tgz"])
    (folder / "cars_test_annos_withlabels.mat").write_bytes(b"annotations")
    assert _run("stanford_cars", "--root", tmp_path, capsys=capsys)[0] == 0


def test_imagenet_says_what_to_do(tmp_path: Path, capsys: Capture) -> None:
    code, out, _ = _run("imagenet", "--root", tmp_path, capsys=capsys)
    assert code == 1
    assert out.count("ImageNet needs an account") == 1
    assert f"into {tmp_path}/imagenet/images" in out
    for path in ("train/n01440764/1.JPEG", "val/n01440764/1.JPEG"):
        (tmp_path / "imagenet/images" / path).parent.mkdir(parents=True)
        (tmp_path / "imagenet/images" / path).write_bytes(PICTURE)
    assert _run("imagenet", "--root", tmp_path, capsys=capsys)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["oxfordpets", "caltech101"], 'did you mean "OxfordPets"'),
        ([], "No dataset is named"),
        (["caltech101", "--root", "{file}"], "a file with this name exists"),
    ],
)
def test_an_error_is_one_sentence(
    arguments: list[str], part: str, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "file").write_text("in the way")
    filled = [argument.format(file=tmp_path / "file") for argument in arguments]
    code, _, err = _run(*filled, capsys=capsys)
    assert code == 2
    (line,) = err.strip().splitlines()
    assert part in line
