"""Store of tensors that are expensive to compute, in files that all runs share.

An entry is `<key>.npy`, an array of n rows, and `<key>.json` next to it. The key identifies what
was computed, the fingerprint the state of the inputs; with another fingerprint, the entry is stale.
The JSON file contains both and the SHA-256 of the array file, which is verified when an entry is
opened. Rows are written in blocks and read from a memory map, so memory use does not depend on n.
"""

import errno
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from dassl.utils import cached, file_state
from safeio.checksums import file_digest, read_verified_json, write_json_with_checksum
from safeio.files import PathLike, write_atomic
from safeio.locks import exclusive

_DTYPES = {str(dtype): dtype for dtype in (torch.float32, torch.float16, torch.bfloat16)}
# NumPy has no bfloat16: its bits are stored as integers.
_NUMPY = {torch.float32: np.float32, torch.float16: np.float16, torch.bfloat16: np.int16}


class StoredRows:
    """Rows of a tensor (n, ...) on disk or in memory, returned as `dtype`."""

    def __init__(self, rows: Tensor, dtype: torch.dtype) -> None:
        self._rows = rows
        self._dtype = dtype

    @classmethod
    def in_memory(
        cls, blocks: Iterable[Tensor], stored_as: torch.dtype | None = None
    ) -> "StoredRows":
        """Hold blocks of rows in memory, rounded as on disk, if no file can be written."""
        rows: list[Tensor] = []
        for block in blocks:
            rows.append(block.detach().to(stored_as or block.dtype).cpu())
        return cls(torch.cat(rows), block.dtype)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """The size of all rows as they are returned."""
        return self._rows.numel() * self._dtype.itemsize

    def read(self, start: int, stop: int, device: torch.device | None = None) -> Tensor:
        """Return the rows from `start` to before `stop`, (stop - start, ...), on a device."""
        rows = self._rows[start:stop]
        if device is not None and device.type != "cpu":
            return rows.to(device).to(self._dtype)  # fewer bytes to copy than if widened before
        return rows.to(self._dtype, copy=True)

    def take(self, indices: Sequence[int]) -> Tensor:
        """Return chosen rows, (len(indices), ...)."""
        return self._rows[list(indices)].to(self._dtype)

    def select(self, indices: Sequence[int]) -> "StoredRows":
        """Return chosen rows in memory."""
        return StoredRows(self._rows[list(indices)], self._dtype)


class FeatureStore:
    """Folder of stored tensors, created at the first one; it may be deleted at any time."""

    def __init__(self, folder: PathLike) -> None:
        self.folder = Path(folder)

    def path(self, key: str) -> Path:
        """Return the path of an entry's rows."""
        return self.folder / f"{key}.npy"

    def get(
        self,
        key: str,
        fingerprint: str,
        count: int,
        make: Callable[[], Iterable[Tensor]],
        stored_as: torch.dtype | None = None,
    ) -> StoredRows | None:
        """Read an entry, or compute and write it while no other process does.

        Args:
            key: hexadecimal hash that identifies what is computed.
            fingerprint: hash of the state of the inputs.
            count: number of rows.
            make: computes the rows, in blocks (rows, ...) of any sizes. Its exceptions propagate,
                except for an OSError, which means that the entry cannot be written.
            stored_as: the dtype on disk; None for that of the blocks.

        Returns:
            The rows, rounded to the dtype on disk; None, after a message, if they cannot be stored.
        """
        path = self.path(key)
        try:
            rows, _ = _open(path, fingerprint, count)
            if rows is None:
                lock = self.folder / f".{key}.lock"
                waiting = "Another run is computing the same features: waiting for them"
                with exclusive(lock, waiting):  # another process may have written it meanwhile
                    rows, fault = _open(path, fingerprint, count)
                    if fault:
                        print(f"{path} is {fault}: computing its features again")
                    if rows is None:
                        _write(path, fingerprint, count, make(), stored_as)
                        rows, _ = _open(path, fingerprint, count)
            return rows
        except OSError as error:
            reason = error.strerror or error
            print(f"Features cannot be cached in {self.folder} ({reason}): computing them instead")
            return None


def _open(path: Path, fingerprint: str, count: int) -> tuple[StoredRows | None, str]:
    """Return the rows, or None and a fault; the fault is empty if the entry does not exist."""
    state, fault = (file_state(path), file_state(path.with_suffix(".json"))), ""
    if None in state:
        return None, ""

    def opened() -> StoredRows | None:
        nonlocal fault
        try:
            rows, fault = _verified(path, fingerprint, count)
        except OSError:
            raise
        except Exception:  # NumPy's header parser raises many types
            rows, fault = None, "damaged"
        return rows

    return cached("features", (state, fingerprint, count), opened), fault


def _verified(path: Path, fingerprint: str, count: int) -> tuple[StoredRows | None, str]:
    """Read the whole entry and verify its checksums; returns as `_open`.

    Raises:
        Exception: the entry is damaged.
    """
    metadata = read_verified_json(path.with_suffix(".json"))
    if metadata["key"] != path.stem or metadata["sha256"] != file_digest(path):
        return None, "damaged"
    if metadata["fingerprint"] != fingerprint:
        return None, "stale"
    dtype, stored_as = _DTYPES[metadata["dtype"]], _DTYPES[metadata["stored_as"]]
    rows = _map(path, stored_as)
    return (None, "damaged") if len(rows) != count else (StoredRows(rows, dtype), "")


def _map(path: Path, dtype: torch.dtype) -> Tensor:
    """Map the array of an .npy file into memory; NumPy's memory map would hold the file open."""
    with path.open("rb") as file:
        npy.read_magic(file)
        shape, fortran_order, stored = npy.read_array_header_1_0(file)
        start = file.tell()
    if fortran_order or stored != _NUMPY[dtype]:
        raise ValueError(f"the array is not one of {dtype}")
    content = torch.from_file(str(path), size=path.stat().st_size, dtype=torch.uint8)
    return content[start:].view(dtype).view(shape)


def _write(
    path: Path,
    fingerprint: str,
    count: int,
    blocks: Iterable[Tensor],
    stored_as: torch.dtype | None,
) -> None:
    """Write the rows, then the JSON file without which the entry is ignored."""
    metadata: dict[str, Any] = {"key": path.stem, "fingerprint": fingerprint}

    def write_rows(temporary: Path) -> None:
        with temporary.open("wb") as file:
            dtype = _write_blocks(file, temporary.parent, count, blocks, stored_as)
        metadata["dtype"], metadata["stored_as"] = str(dtype), str(stored_as or dtype)
        metadata["sha256"] = file_digest(temporary)

    write_atomic(path, write_rows)
    write_json_with_checksum(metadata, path.with_suffix(".json"))


def _write_blocks(
    file: BinaryIO,
    folder: Path,
    count: int,
    blocks: Iterable[Tensor],
    stored_as: torch.dtype | None,
) -> torch.dtype:
    """Write a header with the final number of rows, then the blocks.

    Returns:
        The dtype of the blocks before rounding.
    """
    done = 0
    for block in blocks:
        stored = block.detach().to(stored_as or block.dtype).cpu().contiguous()
        rows = (stored.view(torch.int16) if stored.dtype is torch.bfloat16 else stored).numpy()
        if not done:
            if shutil.disk_usage(folder).free < count * rows[:1].nbytes:
                raise OSError(errno.ENOSPC, "no space left for them")
            header = npy.header_data_from_array_1_0(rows)
            npy.write_array_header_1_0(file, {**header, "shape": (count, *rows.shape[1:])})
        file.write(rows.data)
        done += len(rows)
    if done != count:
        raise ValueError(f"{done} rows were computed for an entry of {count}")
    return block.dtype
