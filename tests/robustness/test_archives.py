"""Archives of every form, and malicious ones, which must write nothing outside of their folder."""

import stat
import tarfile
import zipfile
from pathlib import Path
from random import Random

import pytest

from safeio.archives import ArchiveError, Budget, TooLargeError, extract
from tests.helpers.tarballs import make_tar, make_zip, member

NOISE = Random(0).randbytes(2400)
FILES = {"a/one.jpg": NOISE[:1200], "a/b/two.jpg": NOISE[1200:], "three.txt": b""}
MODES = ["w", "w:gz", "w:bz2", "w:xz", "zip"]
Member = tuple[tarfile.TarInfo, bytes]


def _make(path: Path, mode: str, files: dict[str, bytes] = FILES) -> Path:
    if mode == "zip":
        return make_zip(path, files)
    return make_tar(path, [member(name, content) for name, content in files.items()], mode)


def _files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("mode", MODES)
def test_every_form_is_unpacked(
    mode: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    extract(_make(tmp_path / "an archive", mode), tmp_path / "out")
    assert _files(tmp_path / "out") == FILES
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("mode", MODES)
def test_damage_is_noticed(mode: str, tmp_path: Path) -> None:
    path = _make(tmp_path / "archive", mode)
    whole = path.read_bytes()
    useful = whole.rstrip(b"\0") if mode == "w" else whole
    damaged = [useful[: int(kept * len(useful))] for kept in (0.3, 0.6, 0.95)]
    if mode != "w":
        at = len(whole) // 3
        damaged.append(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ArchiveError, match="damaged"):
            extract(path, tmp_path / "out")
    if mode == "w":
        path.write_bytes(whole[: 512 + 1536])  # cut between two members
        with pytest.raises(ArchiveError, match="no end mark"):
            extract(path, tmp_path / "out")


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "archive.zip"
    for content in (b"", b"<html>Sign in</html>", bytes(2000)):
        path.write_bytes(content)
        with pytest.raises(ArchiveError, match="not a zip or tar"):
            extract(path, tmp_path / "out")
    encrypted = bytearray(make_zip(path, {"file": b"content"}).read_bytes())
    encrypted[6] |= 1  # the bit of the local header, and below that of the central one
    encrypted[encrypted.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(encrypted)
    with pytest.raises(ArchiveError, match="encrypted"):
        extract(path, tmp_path / "out")


@pytest.mark.parametrize("mode", ["w", "w:gz", "zip"])
@pytest.mark.parametrize(
    "name", ["../out.txt", "a/../../out.txt", "{outside}", "..\\out.txt", "C:/out.txt", ".."]
)
def test_names_stay_inside(mode: str, name: str, tmp_path: Path) -> None:
    outside = tmp_path / "out.txt"
    name = name.format(outside=outside)
    path = _make(tmp_path / "archive", mode, {"inside.txt": b"1", name: b"2"})
    with pytest.raises(ArchiveError, match="leads out of its folder"):
        extract(path, tmp_path / "deep" / "folder")
    assert not outside.exists()
    assert set(_files(tmp_path)) == {"archive", "deep/folder/inside.txt"}


# Links


def _link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Member:
    return member(name, type=kind, linkname=target)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["../secret", "{tmp}/secret", "a/../../secret"])
def test_links_stay_inside(kind: bytes, target: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    link = _link("link", target.format(tmp=tmp_path), kind)
    with pytest.raises(ArchiveError, match=r"its link 'link' to .* leads out"):
        extract(make_tar(tmp_path / "archive", [link]), tmp_path / "out")
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(ArchiveError, match="leads out"):
        extract(make_zip(tmp_path / "archive", {}, [(info, b"../secret")]), tmp_path / "out")
    assert _files(tmp_path / "out") == {}


@pytest.mark.parametrize("target", [".", "..", "{tmp}", "nothing"])
def test_nothing_is_written_through_a_link(target: str, tmp_path: Path) -> None:
    """The folder `x` is a link; `x/file` must not follow it."""
    members = [_link("d/x", target.format(tmp=tmp_path)), member("d/x/file", b"content")]
    with pytest.raises(ArchiveError):
        extract(make_tar(tmp_path / "archive", members), tmp_path / "out")
    assert not (tmp_path / "file").exists()
    assert not any(entry.is_symlink() for entry in (tmp_path / "out").rglob("*"))


def test_links_inside_become_files_and_circles_are_refused(tmp_path: Path) -> None:
    links = [_link("a/soft", "../b/file"), _link("a/hard", "b/file", tarfile.LNKTYPE)]
    members = [*links, _link("chain", "a/soft"), member("b/file", b"content")]
    extract(make_tar(tmp_path / "archive", members), tmp_path / "out")
    names = ("a/soft", "a/hard", "chain", "b/file")
    assert _files(tmp_path / "out") == dict.fromkeys(names, b"content")
    assert not any(entry.is_symlink() for entry in (tmp_path / "out").rglob("*"))
    circle = make_tar(tmp_path / "circle", [_link("a", "b"), _link("b", "a")])
    with pytest.raises(ArchiveError, match="not a file in it"):
        extract(circle, tmp_path / "none")


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_are_refused(kind: bytes, tmp_path: Path) -> None:
    path = make_tar(tmp_path / "archive", [member("null", type=kind)])
    with pytest.raises(ArchiveError, match="'null' is a device"):
        extract(path, tmp_path / "out")
    assert not (tmp_path / "out" / "null").exists()


# Sizes


@pytest.mark.parametrize("mode", ["w", "w:gz", "zip"])
def test_archives_larger_than_the_disk_are_refused(mode: str, tmp_path: Path) -> None:
    path = _make(tmp_path / "archive", mode, {"small": b"1", "large": bytes(50_000)})
    with pytest.raises(TooLargeError, match="more than what is free"):
        extract(path, tmp_path / "out", Budget(20_000, "what is free"))
    assert not (tmp_path / "out" / "large").exists()


@pytest.mark.parametrize("mode", ["w:gz", "zip"])
def test_bombs_are_refused(mode: str, tmp_path: Path) -> None:
    path = _make(tmp_path / "archive", mode, {"zeros": bytes(80 << 20)})
    with pytest.raises(TooLargeError, match="more than 100 times its own size"):
        extract(path, tmp_path / "out")
    assert _files(tmp_path / "out") == {}


def test_a_claimed_size_is_checked_before_writing(tmp_path: Path) -> None:
    """A header of an exabyte."""
    info = tarfile.TarInfo("huge")
    info.size = 1 << 60
    (tmp_path / "archive").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(TooLargeError):
        extract(tmp_path / "archive", tmp_path / "out")
