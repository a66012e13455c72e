"""Write files atomically: neither a crash nor a second process leaves a partial file."""

import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import UserError
from .untrusted import parse_json

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

PathLike = str | os.PathLike[str]


def expanded(path: str) -> str:
    """Return the path with ~ expanded; return any other path, also the empty one, unchanged."""
    with suppress(RuntimeError):  # unknown user
        return str(Path(path).expanduser()) if path.startswith("~") else path
    return path


def mkdir_if_missing(dirname: PathLike) -> None:
    """Create a directory and its parents.

    Raises:
        UserError: the directory cannot be created (a file is in the way, no permission).
    """
    try:
        Path(dirname).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{dirname} cannot be a folder: a file with this name exists") from error
    except OSError as error:
        raise UserError(f"The folder {dirname} cannot be created: {error.strerror}") from error


def prepare_output_dir(dirname: PathLike) -> Path:
    """Create the output directory and make sure that files can be written into it.

    Returns:
        The directory.

    Raises:
        UserError: the directory cannot be created or is read-only.
    """
    directory = Path(dirname)
    mkdir_if_missing(directory)
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise UserError(
            f"The output folder {directory} cannot be written to: {error.strerror}"
        ) from error
    return directory


def check_isfile(fpath: PathLike) -> bool:
    """Return whether the path is a file, and print a note if it is not."""
    is_file = Path(fpath).is_file()
    if not is_file:
        print(f'No file found at "{fpath}"')
    return is_file


def listdir_nohidden(path: PathLike, sort: bool = False) -> list[str]:
    """List the names in a directory that do not start with a dot, optionally sorted."""
    names = [entry.name for entry in Path(path).iterdir() if not entry.name.startswith(".")]
    return sorted(names) if sort else names


def read_json(fpath: PathLike) -> Any:
    """Read a JSON file (UTF-8, with or without a byte order mark).

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not JSON.
    """
    return parse_json(Path(fpath).read_text(encoding="utf-8-sig"))


@contextmanager
def _temporary_sibling(path: Path) -> Iterator[Path]:
    """Create a temporary file next to `path`, yield it, and remove it if it still exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    # mkstemp creates private files; give this one the permissions of the user's umask.
    umask = os.umask(0)
    os.umask(umask)
    temporary = Path(name)
    temporary.chmod(0o666 & ~umask)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Flush the content of a file or folder to the disk, if the system supports it."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EISDIR):  # a system that cannot open folders
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise  # such as a full disk, which some systems report only here
    finally:
        os.close(handle)


def write_atomic(path: PathLike, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary file, flush the file to the disk and rename it to `path`.

    Raises:
        OSError: the file cannot be written; the error names `path`.
    """
    target = Path(path)
    try:
        with _temporary_sibling(target) as temporary:
            write(temporary)
            flush_to_disk(temporary)
            temporary.replace(target)
            flush_to_disk(target.parent)  # so that the new name survives a crash
    except OSError as error:
        if error.errno is None or (error.filename and error.errno not in _NO_ROOM):
            raise
        # Writing to an open file fails without a name, a full disk may name the temporary file.
        raise OSError(error.errno, error.strerror, str(target)) from error


def write_text(text: str, path: PathLike) -> None:
    """Write a UTF-8 text file atomically; see `write_atomic`."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(obj: Any, fpath: PathLike) -> None:
    """Write a JSON file atomically (UTF-8, indented, parent folders created)."""
    write_text(json.dumps(obj, indent=4, ensure_ascii=False, separators=(",", ": ")) + "\n", fpath)


def publish_json(obj: Any, fpath: PathLike) -> Any:
    """Write a JSON file unless it exists by now, and return the content of the file.

    If two runs find the file missing at the same time, the first to finish writes it, and the other
    uses that content.
    """
    target = Path(fpath)
    text = json.dumps(obj, ensure_ascii=False, separators=(",", ":"))
    with _temporary_sibling(target) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
        flush_to_disk(temporary)
        try:
            os.link(temporary, target)
        except FileExistsError:
            return read_json(target)
        except OSError:  # a file system without hard links
            temporary.replace(target)
        flush_to_disk(target.parent)
    return json.loads(text)
