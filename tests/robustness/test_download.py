"""Datasets from a real server on this machine: whole, cut, dead, wrong, by hand, twice at once."""

import dataclasses
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import pytest

from dassl.data.datasets import DATASET_REGISTRY, Source
from datasets.download import Fetcher
from datasets.sources import SOURCES
from nemesis.commands import download as command
from safeio.archives import Budget
from tests.helpers.published import DRIVE, FILES, PICTURE, publish, tar
from tests.helpers.server import Server, serve

ROOT = Path(__file__).parents[2]
NAMES = (
    *("Caltech101", "OxfordPets", "StanfordCars", "OxfordFlowers", "Food101", "FGVCAircraft"),
    *("SUN397", "DescribableTextures", "EuroSAT", "UCF101", "ImageNet", "ImageNetV2"),
    *("ImageNetSketch", "ImageNetA", "ImageNetR"),
)
DEAD = "http://127.0.0.1:1/dead.zip"


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as state:
        yield state


def _fetcher(folder: Path, server: Server, **options: object) -> Fetcher:
    return dataclasses.replace(Fetcher(folder, drive=server.url + DRIVE), **options)  # type: ignore[arg-type]


def _images(server: Server, content: bytes, name: str = "pictures.tgz", **fields: object) -> Source:
    """A folder `images` that an archive on the server holds."""
    server.files[f"/{name}"] = content
    source = Source("images", (f"{server.url}/{name}",), ("images",))
    return dataclasses.replace(source, **fields)  # type: ignore[arg-type]


def _all(folder: Path) -> set[str]:
    """What is in a folder, save for the lock that stays."""
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


@pytest.mark.parametrize("name", sorted(set(SOURCES) & set(DATASET_REGISTRY.registered_names())))
def test_a_loader_finds_its_files_where_they_are_put(name: str) -> None:
    dataset = DATASET_REGISTRY.get(name)
    paths = [source.path for source in SOURCES[name]]
    images = PurePosixPath(dataset.image_dir)
    assert any(PurePosixPath(path).is_relative_to(images) for path in paths)
    assert not dataset.split_file or dataset.split_file in paths


@pytest.mark.parametrize("name", [name for name in NAMES if name != "ImageNet"])
def test_the_published_archives_give_the_layout(name: str, server: Server, tmp_path: Path) -> None:
    sources = publish(server)[name]
    assert _fetcher(tmp_path, server).fetch(sources) == []
    assert not any(source.is_wanted(tmp_path) for source in sources)
    without = [source for source in sources if source.unless]
    assert not any(source.is_there(tmp_path) for source in without)  # the split file is there
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or path.read_bytes() in (PICTURE, b"{}", b"")
    asked = len(server.paths)
    assert _fetcher(tmp_path, server).fetch(sources) == []
    assert len(server.paths) == asked


@pytest.mark.parametrize(
    "name", ["OxfordPets", "StanfordCars", "OxfordFlowers", "SUN397", "UCF101"]
)
def test_annotations_come_where_the_split_file_cannot(
    name: str, server: Server, tmp_path: Path
) -> None:
    sources = publish(server)[name]
    split = next(source for source in sources if source.path.startswith("split_zhou_"))
    server.files[DRIVE + split.urls[0].partition(":")[2]] = b"<!DOCTYPE html><html>Quota</html>"
    (lost,) = _fetcher(tmp_path, server).fetch(sources)
    assert lost.source == split
    assert lost.tried[0][0].startswith("https://drive.google.com/uc?id=")
    assert lost.tried[0][1] == "the server sent a web page instead of the file"
    assert all(source.is_there(tmp_path) for source in sources if source != split)


def test_all_of_eurosats_addresses_do(server: Server, tmp_path: Path) -> None:
    images = publish(server)["EuroSAT"][1]
    for number, url in enumerate(images.urls):
        folder = tmp_path / str(number)
        assert _fetcher(folder, server).fetch([dataclasses.replace(images, urls=(url,))]) == []
        assert _all(folder) == {"2750/Forest/Forest_1.jpg"}


def test_an_archive_with_several_parts_comes_once(server: Server, tmp_path: Path) -> None:
    sources = publish(server)["FGVCAircraft"]
    _fetcher(tmp_path, server).fetch(sources)
    assert len(server.paths) == 1
    (tmp_path / "variants.txt").unlink()
    _fetcher(tmp_path, server).fetch(sources)
    assert len(server.paths) == 2
    assert (tmp_path / "variants.txt").is_file()


def test_a_connection_that_is_cut_goes_on_by_itself(server: Server, tmp_path: Path) -> None:
    images = _images(server, tar("images/1.jpg", content=bytes(100_000), mode="w"))
    server.cut_after = 30_000
    assert _fetcher(tmp_path, server).fetch([images]) == []
    assert server.requests == [None, "bytes=30000-", "bytes=60000-", "bytes=90000-"]
    assert _all(tmp_path) == {"images/1.jpg"}


def test_a_later_run_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    images = _images(server, tar("images/1.jpg", content=bytes(100_000), mode="w"))
    server.cut_after = 1000
    (lost,) = _fetcher(tmp_path, server).fetch([images])
    assert "cut after 10000 of " in lost.tried[0][1]
    assert not (tmp_path / "images").exists()
    server.cut_after = None
    assert _fetcher(tmp_path, server).fetch([images]) == []
    assert server.requests[-1] == "bytes=10000-"
    assert _all(tmp_path) == {"images/1.jpg"}


@pytest.mark.parametrize("dead", ["missing.tgz", DEAD, "page.tgz", "damaged.tgz", "other.tgz"])
def test_the_next_address_where_the_first_fails(dead: str, server: Server, tmp_path: Path) -> None:
    good = tar("images/1.jpg")
    server.files["/page.tgz"] = b"\n <HTML><body>Moved</body></HTML>"
    server.files["/damaged.tgz"] = good[: len(good) // 2]
    server.files["/other.tgz"] = tar("pictures/1.jpg")
    first = dead if "//" in dead else f"{server.url}/{dead}"
    urls = (first, f"{server.url}/pictures.tgz")
    assert _fetcher(tmp_path, server).fetch([_images(server, good, urls=urls)]) == []
    assert (tmp_path / "images/1.jpg").read_bytes() == PICTURE


def test_every_address_is_told_with_its_reason(server: Server, tmp_path: Path) -> None:
    damaged = tar("images/1.jpg")[:-9]
    urls = (f"{server.url}/missing.tgz", DEAD, f"{server.url}/pictures.tgz")
    (lost,) = _fetcher(tmp_path, server).fetch([_images(server, damaged, urls=urls)])
    assert [address for address, _ in lost.tried] == list(urls)
    reasons = [reason for _, reason in lost.tried]
    assert reasons[0] == "Not Found"
    assert "Connection refused" in reasons[1]
    assert reasons[2].startswith("it is damaged or truncated")
    assert _all(tmp_path) == set()


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
@pytest.mark.parametrize("own", [False, True])
def test_checksums(algorithm: str, own: bool, server: Server, tmp_path: Path) -> None:
    content = tar("images/1.jpg")
    digest = hashlib.new(algorithm, content).hexdigest()
    images = _images(server, content, size=len(content))
    if own:
        right = dataclasses.replace(images, urls=(f"{images.urls[0]}#{algorithm}={digest}",))
    else:
        right = dataclasses.replace(images, checksum=f"{algorithm}:{digest}")
    server.files["/pictures.tgz"] = content[:-1] + bytes([content[-1] ^ 1])
    (lost,) = _fetcher(tmp_path, server).fetch([right])
    assert f"not {digest}" in lost.tried[0][1]
    assert _all(tmp_path) == set()
    server.files["/pictures.tgz"] = content
    assert _fetcher(tmp_path, server).fetch([right]) == []


def test_a_wrong_size(server: Server, tmp_path: Path) -> None:
    (lost,) = _fetcher(tmp_path, server).fetch([_images(server, tar("images/1.jpg"), size=7)])
    assert lost.tried[0][1].endswith("bytes, not 7")


def test_a_hostile_archive_leaves_nothing(server: Server, tmp_path: Path) -> None:
    images = _images(server, tar("images/1.jpg", "../../../evil"))
    (lost,) = _fetcher(tmp_path / "data" / "folder", server).fetch([images])
    assert "'../../../evil' leads out of its folder" in lost.tried[0][1]
    assert _all(tmp_path) == {"data/folder/.download.lock"}


def test_too_little_space_keeps_the_archive(server: Server, tmp_path: Path) -> None:
    """And asks no other address: its archive would be as large."""
    images = _images(server, tar("images/1.jpg", content=bytes(50_000)))
    images = dataclasses.replace(images, urls=(*images.urls, f"{server.url}/again.tgz"))
    small = Budget(20_000, "what is free")
    (lost,) = _fetcher(tmp_path, server, budget=small).fetch([images])
    ((_, reason),) = lost.tried
    assert reason == "it takes more than what is free when it is unpacked"
    assert _all(tmp_path) == {".download/pictures.tgz"}
    assert _fetcher(tmp_path, server).fetch([images]) == []
    assert server.paths == ["/pictures.tgz"]
    assert _all(tmp_path) == {"images/1.jpg"}


def test_a_run_that_was_killed_while_unpacking(server: Server, tmp_path: Path) -> None:
    """What it left does not count, and goes away."""
    half = tmp_path / ".download" / "pictures.tgz.unpacked" / "images"
    half.mkdir(parents=True)
    (half / "0.jpg").write_bytes(b"half")
    (tmp_path / "images").mkdir()  # empty
    assert _fetcher(tmp_path, server).fetch([_images(server, tar("images/1.jpg"))]) == []
    assert _all(tmp_path) == {"images/1.jpg"}


def test_archives_are_kept_on_demand(server: Server, tmp_path: Path) -> None:
    images = _images(server, tar("images/1.jpg"))
    assert _fetcher(tmp_path, server, keep_archives=True).fetch([images]) == []
    assert _all(tmp_path) == {"images/1.jpg", "pictures.tgz"}


def test_an_archive_that_was_put_there_by_hand(server: Server, tmp_path: Path) -> None:
    images = _images(server, tar("images/1.jpg"))
    (tmp_path / "pictures.tgz").write_bytes(server.files.pop("/pictures.tgz"))
    assert _fetcher(tmp_path, server).fetch([images]) == []
    assert server.paths == []
    assert _all(tmp_path) == {"images/1.jpg", "pictures.tgz"}


def test_a_damaged_archive_by_hand_is_told_and_kept(server: Server, tmp_path: Path) -> None:
    images = _images(server, tar("images/1.jpg"))
    (tmp_path / "pictures.tgz").write_bytes(server.files.pop("/pictures.tgz")[:-9])
    (lost,) = _fetcher(tmp_path, server).fetch([images])
    assert [address for address, _ in lost.tried] == [
        str(tmp_path / "pictures.tgz"),
        images.urls[0],
    ]
    assert _all(tmp_path) == {"pictures.tgz"}


def test_an_archive_with_another_layout_is_kept(server: Server, tmp_path: Path) -> None:
    (lost,) = _fetcher(tmp_path, server).fetch([_images(server, tar("pictures/1.jpg"))])
    assert "does not contain images" in lost.tried[0][1]
    assert _all(tmp_path) == {".download/pictures.tgz"}


def test_two_runs_at_once(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images = _images(server, tar("images/1.jpg"))
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: _fetcher(tmp_path, server).fetch([images]), range(4)))
    assert results == [[]] * 4
    assert server.paths == ["/pictures.tgz"]
    assert capfd.readouterr().err == ""


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


def _run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    capsys.readouterr()
    code = command.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


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


def test_the_command(
    two_datasets: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ("--root", str(tmp_path))
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


def test_what_is_missing_is_said_at_the_end(
    two_datasets: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = _run("StanfordCars", "all", "--root", str(tmp_path), capsys=capsys)
    assert code == 1
    assert "Caltech101: complete" in out
    folder = tmp_path / "stanford_cars"
    assert (folder / "cars_train/00001.jpg").is_file()
    _, _, end = out.partition("Not downloaded:")
    assert re.search(r"StanfordCars +cars_test *\n", end)
    assert "only needed without split_zhou_StanfordCars.json" in end
    assert (
        f"tried {two_datasets.url}/ai.stanford.edu/~jkrause/car196/cars_test.tgz: Not Found" in end
    )
    assert f"put cars_test.tgz into {folder} and run this again to unpack it" in end
    assert f"put the file cars_test_annos_withlabels.mat into {folder}" in end
    (folder / "cars_test.tgz").write_bytes(FILES["cars_test.tgz"])
    (folder / "cars_test_annos_withlabels.mat").write_bytes(b"annotations")
    assert _run("stanford_cars", "--root", str(tmp_path), capsys=capsys)[0] == 0


def test_imagenet_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run("imagenet", "--root", str(tmp_path), capsys=capsys)
    assert code == 1
    assert out.count("ImageNet needs an account") == 1
    assert f"into {tmp_path}/imagenet/images" in out
    for path in ("train/n01440764/1.JPEG", "val/n01440764/1.JPEG"):
        (tmp_path / "imagenet/images" / path).parent.mkdir(parents=True)
        (tmp_path / "imagenet/images" / path).write_bytes(PICTURE)
    assert _run("imagenet", "--root", str(tmp_path), capsys=capsys)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["Caltech100"], 'did you mean "Caltech101"'),
        (["oxfordpets", "caltech101"], 'did you mean "OxfordPets"'),
        ([], "No dataset is named"),
        (["caltech101", "--rot", "data"], "--help"),
        (["caltech101", "--root", "{file}"], "a file with this name exists"),
    ],
)
def test_a_mistake_is_one_sentence(
    arguments: list[str], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    filled = [argument.format(file=tmp_path / "file") for argument in arguments]
    code, _, err = _run(*filled, capsys=capsys)
    assert code == 2
    (line,) = err.strip().splitlines()
    assert part in line
