"""Archives in all forms, and hostile ones, which must leave nothing outside of their folder."""

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from safeio.archives import ArchiveError, Budget, TooLargeError, extract
from tests.helpers.tarballs import make_tar, make_zip, member

NOISE = Random(0).randbytes(2400)
FILES = {"a/one.jpg": NOISE[:1200], "a/b/two.jpg": NOISE[1200:], "three.txt": b""}
WAYS = ["w", "w:gz", "w:bz2", "w:xz"]


def _make(path: Path, way: str, files: dict[str, bytes] = FILES) -> Path:
    if way == "zip":
        return make_zip(path, files)
    return make_tar(path, [member(name, content) for name, content in files.items()], way)


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("way", [*WAYS, "zip"])
def test_all_forms(way: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    extract(_make(tmp_path / "an archive", way), tmp_path / "out")
    assert _files(tmp_path / "out") == FILES
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("way", [*WAYS, "zip"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_one_that_is_cut_off(way: str, kept: float, tmp_path: Path) -> None:
    path = _make(tmp_path / "archive", way)
    content = path.read_bytes().rstrip(b"\0") if way == "w" else path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ArchiveError, match="damaged"):
        extract(path, tmp_path / "out")


def test_a_tar_that_is_cut_between_two_members(tmp_path: Path) -> None:
    path = _make(tmp_path / "archive", "w")
    path.write_bytes(path.read_bytes()[: 512 + 1536])
    with pytest.raises(ArchiveError, match="no end mark"):
        extract(path, tmp_path / "out")


@pytest.mark.parametrize("way", ["w:gz", "w:bz2", "w:xz", "zip"])
def test_a_flipped_bit(way: str, tmp_path: Path) -> None:
    path = _make(tmp_path / "archive", way)
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 16
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match="damaged"):
        extract(path, tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"<html>Sign in</html>", bytes(2000)])
def test_what_is_no_archive(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "archive.zip").write_bytes(content)
    with pytest.raises(ArchiveError, match="not a zip or tar"):
        extract(tmp_path / "archive.zip", tmp_path / "out")


@pytest.mark.parametrize("way", ["w", "w:gz", "zip"])
@pytest.mark.parametrize(
    "name", ["../out.txt", "a/../../out.txt", "{outside}", "..\\out.txt", "C:/out.txt", ".."]
)
def test_a_name_that_leads_out(way: str, name: str, tmp_path: Path) -> None:
    outside = tmp_path / "out.txt"
    name = name.format(outside=outside)
    path = _make(tmp_path / "archive", way, {"inside.txt": b"1", name: b"2"})
    with pytest.raises(ArchiveError, match="leads out of its folder"):
        extract(path, tmp_path / "deep" / "folder")
    assert not outside.exists()
    assert set(_files(tmp_path)) == {"archive", "deep/folder/inside.txt"}


def _symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def _hardlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.LNKTYPE, linkname=target)


@pytest.mark.parametrize("link", [_symlink, _hardlink])
@pytest.mark.parametrize("target", ["../secret", "{tmp}/secret", "a/../../secret"])
def test_a_link_that_leads_out(
    link: Callable[[str, str], tuple[tarfile.TarInfo, bytes]], target: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    path = make_tar(tmp_path / "archive", [link("link", target.format(tmp=tmp_path))])
    with pytest.raises(ArchiveError, match=r"its link 'link' to .* leads out"):
        extract(path, tmp_path / "out")
    assert _files(tmp_path / "out") == {}


def test_a_link_of_a_zip_that_leads_out(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = make_zip(tmp_path / "archive", {}, [(info, b"../secret")])
    with pytest.raises(ArchiveError, match="leads out"):
        extract(path, tmp_path / "out")


@pytest.mark.parametrize("target", [".", "..", "{tmp}", "nothing"])
def test_nothing_is_written_through_a_link(target: str, tmp_path: Path) -> None:
    """The folder `x` is a link; `x/file` must not follow it."""
    members = [_symlink("d/x", target.format(tmp=tmp_path)), member("d/x/file", b"content")]
    path = make_tar(tmp_path / "archive", members)
    with pytest.raises(ArchiveError):
        extract(path, tmp_path / "out")
    assert not (tmp_path / "file").exists()
    assert not any(entry.is_symlink() for entry in (tmp_path / "out").rglob("*"))


def test_links_within_become_files(tmp_path: Path) -> None:
    members = [
        _symlink("a/soft", "../b/file"),
        _hardlink("a/hard", "b/file"),
        _symlink("chain", "a/soft"),
        member("b/file", b"content"),
    ]
    extract(make_tar(tmp_path / "archive", members), tmp_path / "out")
    names = ("a/soft", "a/hard", "chain", "b/file")
    assert _files(tmp_path / "out") == dict.fromkeys(names, b"content")
    assert not any(entry.is_symlink() for entry in (tmp_path / "out").rglob("*"))


def test_links_in_a_circle(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "archive", [_symlink("a", "b"), _symlink("b", "a")])
    with pytest.raises(ArchiveError, match="not a file in it"):
        extract(path, tmp_path / "out")


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_a_device(kind: bytes, tmp_path: Path) -> None:
    path = make_tar(tmp_path / "archive", [member("null", type=kind)])
    with pytest.raises(ArchiveError, match="'null' is a device"):
        extract(path, tmp_path / "out")
    assert not (tmp_path / "out" / "null").exists()


@pytest.mark.parametrize("way", ["w", "w:gz", "zip"])
def test_more_than_the_disk_holds(way: str, tmp_path: Path) -> None:
    path = _make(tmp_path / "archive", way, {"small": b"1", "large": bytes(50_000)})
    with pytest.raises(TooLargeError, match="more than what is free"):
        extract(path, tmp_path / "out", Budget(20_000, "what is free"))
    assert not (tmp_path / "out" / "large").exists()


@pytest.mark.parametrize("way", ["w:gz", "zip"])
def test_a_bomb(way: str, tmp_path: Path) -> None:
    path = _make(tmp_path / "archive", way, {"zeros": bytes(80 << 20)})
    with pytest.raises(TooLargeError, match="more than 100 times its own size"):
        extract(path, tmp_path / "out")
    assert _files(tmp_path / "out") == {}


def test_a_size_that_is_claimed(tmp_path: Path) -> None:
    """A header of an exabyte is refused before a byte is written."""
    info = tarfile.TarInfo("huge")
    info.size = 1 << 60
    path = tmp_path / "archive"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(TooLargeError):
        extract(path, tmp_path / "out")


def test_an_encrypted_zip(tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("file", b"content")
    # the bit of the local header and of the central one
    data = bytearray(content.getvalue())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "archive").write_bytes(data)
    with pytest.raises(ArchiveError, match="encrypted"):
        extract(tmp_path / "archive", tmp_path / "out")
