"""Tensors that are expensive to compute, kept in files that all runs share.

An entry is a safetensors file `<key>.safetensors` with one tensor of n rows. The key says what was
computed, the stamp from which state of the inputs: an entry of another stamp is stale. Both, and a
SHA-256 over them and the data, stand in the file's metadata; all of it is checked whenever an entry
is opened. Rows are written and read a few at a time, whatever their number.
"""

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dassl.utils import file_state, kept
from safeio.files import PathLike, write_atomic

NAME = "features"
BLOCK_BYTES = 2**23
SMALL_BYTES = 2**23
_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_BY_NAME = {name: dtype for dtype, name in _DTYPES.items()}


class StoredRows:
    """The rows of a kept tensor, read when they are asked for.

    Args:
        rows: the tensor, or a safetensors slice of it.
        count: number of rows.
        dtype: in which they were computed and are given out; they may be kept in another.
    """

    def __init__(self, rows: Any, count: int, dtype: torch.dtype) -> None:
        self._rows = rows
        self._count = count
        self._dtype = dtype

    @classmethod
    def in_memory(cls, blocks: Iterable[Tensor], keep_as: torch.dtype | None) -> "StoredRows":
        """Hold blocks of rows as a store would, where no file can be written."""
        blocks = list(blocks)
        rows = torch.cat([block.detach().cpu().to(keep_as or block.dtype) for block in blocks])
        return cls(rows, len(rows), blocks[0].dtype)

    def __len__(self) -> int:
        return self._count

    def read(self, start: int, stop: int) -> Tensor:
        """Return the rows from `start` to before `stop`, (stop - start, ...)."""
        return self._rows[start:stop].to(self._dtype)

    def take(self, indices: Iterable[int]) -> Tensor:
        """Return chosen rows, (len(indices), ...)."""
        if not isinstance(self._rows, Tensor) and _size(self._rows) <= SMALL_BYTES:
            self._rows = self._rows[:]  # row by row a file takes much longer than memory
        return torch.cat([self._rows[index : index + 1] for index in indices]).to(self._dtype)


class FeatureStore:
    """A folder of kept tensors. It may be deleted at any time.

    Args:
        folder: created when the first entry is written.
    """

    def __init__(self, folder: PathLike) -> None:
        self.folder = Path(folder)

    def path(self, key: str) -> Path:
        """Return the file of an entry, whether it is there or not."""
        return self.folder / f"{key}.safetensors"

    def get(
        self,
        key: str,
        stamp: str,
        count: int,
        make: Callable[[], Iterable[Tensor]],
        keep_as: torch.dtype | None = None,
    ) -> StoredRows | None:
        """Read an entry, or make it, one process at a time.

        Args:
            key: hexadecimal digest of what is computed.
            stamp: digest of the state of the inputs.
            count: number of rows.
            make: computes the rows, in blocks (rows, ...) of any sizes. What it raises is passed
                on, except for an OSError, which means that the entry cannot be kept.
            keep_as: the precision on disk; None for that of the blocks.

        Returns:
            The rows as they are kept; None, after one printed line, where they cannot be kept.
        """
        path = self.path(key)
        try:
            rows, _ = self._read(path, stamp, count)
            if rows is None:
                with self._alone(key):  # another process may have made it in the meantime
                    rows, fault = self._read(path, stamp, count)
                    if fault:
                        print(f"{path} is {fault}: computing its features again")
                    if rows is None:
                        write_atomic(path, lambda p: _write(p, key, stamp, count, make(), keep_as))
                        rows, _ = self._read(path, stamp, count)
            return rows
        except (OSError, NotImplementedError) as error:  # the latter: no locks on this file system
            reason = getattr(error, "strerror", None) or error
            print(f"Features cannot be kept in {self.folder} ({reason}): going on without")
            return None

    def _read(self, path: Path, stamp: str, count: int) -> tuple[StoredRows | None, str]:
        """Return the rows, or None and what is wrong with the entry; nothing if there is none."""
        state, fault = file_state(path), ""
        if state is None:
            return None, ""

        def opened() -> StoredRows | None:
            nonlocal fault
            rows, fault = self._verified(path, stamp, count)
            return rows

        return kept("features", (state, stamp, count), opened), fault

    def _verified(self, path: Path, stamp: str, count: int) -> tuple[StoredRows | None, str]:
        """Read the whole entry and compare it with its checksum; see `_read`."""
        try:
            file = safe_open(path, "pt")
            rows, shape = file.get_slice(NAME), file.get_slice(NAME).get_shape()
            meta = file.metadata() or {}
            if not shape or shape[0] != count:
                return None, "damaged"  # before as many rows as it says are looked for
            if meta.get("checksum") != _checksum(meta, shape, _blocks(rows, shape)):
                return None, "damaged"
            if meta["key"] != path.stem:
                return None, "damaged"
            if meta["stamp"] != stamp:
                return None, "stale"
            return StoredRows(rows, count, _BY_NAME[meta["dtype"]]), ""
        except (SafetensorError, LookupError, ValueError, TypeError, RuntimeError):
            return None, "damaged"

    @contextmanager
    def _alone(self, key: str) -> Iterator[None]:
        """Let one process at a time make an entry; the others wait."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(self.folder / f".{key}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print("Another run is computing the same features: waiting for them")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def _size(rows: Any) -> int:
    """Bytes of a safetensors slice."""
    count = int(rows.get_shape()[0])
    return count * len(_bytes(rows[0:1])) if count else 0


def _bytes(rows: Tensor) -> memoryview:
    return rows.contiguous().view(torch.uint8).numpy().reshape(-1).data


def _blocks(rows: Any, shape: Sequence[int]) -> Iterator[memoryview]:
    """The data of a safetensors slice, a few rows at a time."""
    if not shape or not shape[0]:
        return
    step = max(1, BLOCK_BYTES // max(1, len(_bytes(rows[0:1]))))
    for start in range(0, shape[0], step):
        yield _bytes(rows[start : start + step])


def _digest(meta: dict[str, str], shape: Sequence[int]) -> Any:
    described = {name: value for name, value in meta.items() if name != "checksum"}
    return hashlib.sha256(json.dumps([described, list(shape)], sort_keys=True).encode())


def _checksum(meta: dict[str, str], shape: Sequence[int], data: Iterable[memoryview]) -> str:
    digest = _digest(meta, shape)
    for block in data:
        digest.update(block)
    return digest.hexdigest()


def _header(meta: dict[str, str], dtype: torch.dtype, shape: Sequence[int]) -> bytes:
    """The safetensors header of a file with one tensor; as long for any checksum."""
    size = dtype.itemsize
    for side in shape:
        size *= side
    entry = {"dtype": _DTYPES[dtype], "shape": list(shape), "data_offsets": [0, size]}
    text = json.dumps({"__metadata__": meta, NAME: entry}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write(
    path: Path,
    key: str,
    stamp: str,
    count: int,
    blocks: Iterable[Tensor],
    keep_as: torch.dtype | None,
) -> None:
    """Write blocks as they come, and in the end the header with their checksum."""
    with path.open("wb") as file:
        meta: dict[str, str] = {}
        shape: list[int] = []
        digest: Any = None
        done = 0
        for block in blocks:
            rows = block.detach().cpu().to(keep_as or block.dtype)
            if digest is None:
                shape = [count, *rows.shape[1:]]
                meta = {
                    "key": key,
                    "stamp": stamp,
                    "dtype": _DTYPES[block.dtype],
                    "checksum": 64 * "0",
                }
                digest = _digest(meta, shape)
                _begin(file, path, rows, shape, meta)
            digest.update(_bytes(rows))
            file.write(_bytes(rows))
            done += len(rows)
        if done != count:
            raise ValueError(f"{done} rows were made for an entry of {count}")
        file.seek(0)
        file.write(_header({**meta, "checksum": digest.hexdigest()}, rows.dtype, shape))


def _begin(
    file: BinaryIO, path: Path, rows: Tensor, shape: Sequence[int], meta: dict[str, str]
) -> None:
    """Leave room for the header, and do not begin what the disk cannot hold."""
    if shutil.disk_usage(path.parent).free < shape[0] * len(_bytes(rows[:1])):
        raise OSError(errno.ENOSPC, "no space left for them")
    file.write(_header(meta, rows.dtype, shape))
