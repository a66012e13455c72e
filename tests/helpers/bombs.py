"""Small files that request much memory, time or stack, or that contain code.

`python -m tests.helpers.bombs FOLDER` reads what `write_all` wrote, all in one process.
"""

import contextlib
import gzip
import io
import json
import pickle
import resource
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from tests.fuzz import seeds
from tests.fuzz.readers import READERS, answer

ADDRESSES = 4 << 30  # bytes of address space beyond the libraries'
# Made again, or read up to the damage.
ACCEPTED = ("listing", "features", "feature metadata", "history")
DEEP = b"[" * 10**6


def _yaml_bombs() -> dict[str, bytes]:
    levels = [b"a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    merges = [b"m0: &m0 {k: v}"]
    for n in range(12):
        levels.append(b"a%d: &a%d [%s]" % (n + 1, n + 1, b", ".join([b"*a%d" % n] * 9)))
        merges.append(b"m%d: &m%d {<<: [%s]}" % (n + 1, n + 1, b", ".join([b"*m%d" % n] * 9)))
    return {
        "a billion laughs": b"\n".join(levels),
        "merged again and again": b"\n".join(merges),
        "a list in itself": b"OPTIM: &a [*a]",
        "a million brackets": DEEP,
        "a base-60 number of 300,000 digits": b"SEED: 1" + b":59" * 300_000,
        "a file of 2 MiB": b"# \n" * (1 << 20),
        "a file without end": b"_BASE_: /dev/zero",
        "a base with a zero byte": b'_BASE_: "a\\0b"',
        "a call": b"SEED: !!python/object/apply:os.system ['touch touched']",
        "a value that is not of its tag": b"SEED: !!bool maybe",
        "no date": b"SEED: !!timestamp x",
        "an empty number": b"SEED: !!int ''",
        "an unknown key of a megabyte": b"? " + b"K" * 10**6 + b"\n: 1",
        "a number of 500 digits": b"OPTIM: {LR: " + b"9" * 500 + b"}",
        "half a character": b"OPTIM: {NAME: \xff}",
    }


def _overrides() -> dict[str, bytes]:
    return {
        "100,000 parentheses": b"OPTIM.LR\n" + b"(" * 10**5,
        "100,000 minus signs": b"OPTIM.LR\n" + b"-" * 10**5 + b"1",
        "a long sum": b"OPTIM.LR\n" + b"1+" * 30_000 + b"1j",
        "a number of 70,000 digits": b"SEED\n0x" + b"f" * 60_000,
        "a float that is none": b"OPTIM.LR\n" + b"9" * 400,
        "a key of 100,000 letters": b"K" * 10**5 + b"\n1",
    }


def _sweeps() -> dict[str, bytes]:
    many = json.dumps(list(range(1000)))
    text = f"output: o\ndatasets: [emoji_food]\nshots: {many}\nseeds: {many}\nconfig: mini\n"
    axes = ", ".join(f"{key}: {many}" for key in ("OPTIM.LR", "OPTIM.GAMMA", "TRAINER.COOP.N_CTX"))
    return {"10^15 runs": f"{text}methods: {{CoOp: {{}}}}\ngrid: {{{axes}}}".encode()}


def _splits() -> dict[str, bytes]:
    def split(path: str = '"a.png"', label: str = "0", name: str = '"cat"') -> bytes:
        entry = f"[[{path}, {label}, {name}]]"
        return f'{{"train": {entry}, "val": [], "test": []}}'.encode()

    return {
        "a million brackets": DEEP,
        "an infinite label": split(label="1e999"),
        "a label that is no number": split(label="NaN"),
        "a label of 5000 digits": split(label="9" * 5000),
        "half a character in a path": split(path='"\\ud800"'),
        "a zero byte in a path": split(path='"a\\u0000"'),
        "a path of a million letters": split(path=f'"{"a" * 10**6}"'),
        "a path out of the folder": split(path='"../../etc/passwd"'),
        "a class name that clears the screen": split(name='"\\u001b[2J"'),
        "a class name of two lines": split(name='"cat\\nerror: all is well"'),
        "half a character in a class name": split(name='"\\udc80"'),
        "a class name that is a list": split(name="[]"),
    }


def _results() -> dict[str, bytes]:
    found = {"a million brackets": DEEP, "nested": b'{"status":' * 900 + b"1" + b"}" * 900}
    for name, value in (
        *(("accuracy", 10**400), ("accuracy", 1e308), ("accuracy", float("nan")), ("seed", 10**99)),
        *(("versions", []), ("config", {"TRAINER": 1}), ("weights_sha256", {}), ("source_run", 1)),
        *(("train_seconds", float("inf")), ("num_test", []), ("model_dir", {"a": 1})),
    ):
        found[f"{name} {value!r:.20}"] = seeds.as_json(seeds.a_result(**{name: value}))
    return found


def _header(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _safetensors() -> dict[str, bytes]:
    def entry(shape: list[Any], *offsets: int) -> dict[str, Any]:
        return {"dtype": "F32", "shape": shape, "data_offsets": list(offsets)}

    state = {key: value.contiguous() for key, value in seeds.tiny_clip().state_dict().items()}
    del state["token_embedding.weight"]
    rows = {"token_embedding.weight.rows": torch.ones(2, 8)}
    index = "token_embedding.weight.index"
    config = '{"embed_dim": 8, "image_resolution": 8, "vision_layers": 1, "vision_width": 64, '
    config += '"vision_patch_size": 4, "vocab_size": %s}'
    packed = save({**state, **rows, index: torch.arange(2)}, {"config": config % 10**12})
    words = save({**state, **rows, index: torch.arange(2)}, {"config": config % '"many"'})
    one = seeds.as_json(entry([1], 0, 4))
    twice = _header(b'{"a":%b,"a":%b}' % (one, one), bytes(4))
    positions = {"token_embedding.weight": torch.ones(2, 8)}
    positions["visual.positional_embedding"] = torch.ones(0, 8)
    return {
        "a header of 2^63 bytes": _header(b"{}", length=2**63),
        "a header of a gigabyte": _header(b"{}", length=2**30),
        "a million brackets": _header(DEEP),
        "overlapping tensors": _header({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)),
        "a negative side": _header({"a": entry([-1], 0, 4)}, bytes(4)),
        "sides that overflow": _header({"a": entry([2**33, 2**33], 0, 4)}, bytes(4)),
        "the same name twice": twice,
        "offsets behind the end": _header({"a": entry([2], 2**40, 2**40 + 8)}, bytes(8)),
        "no positions": save({**state, **positions}),
        "an empty index": save({**state, **rows, index: torch.arange(0)}),
        "a vocabulary of 10^12": packed,
        "a vocabulary in words": words,
        "a description that nests": save(state, {"config": "[" * 10**5}),
        "two channels": save(state, {"pixel_mean": "[0.5, 0.5]"}),
    }


def _features() -> dict[str, bytes]:
    def array(header: Any, length: int | None = None) -> bytes:
        text = repr(header).encode() if isinstance(header, dict) else header
        return b"\x93NUMPY\x02\0" + struct.pack("<I", length or len(text)) + text

    def rows(*shape: int, descr: str = "<f4") -> bytes:
        return array({"descr": descr, "fortran_order": False, "shape": shape})

    return {
        "10^18 rows of nothing": rows(10**18, 0),
        "no rows at all": rows() + bytes(4),
        "sides that overflow": rows(2**33, 2**33),
        "a negative side": rows(-1, 4),
        "a pickled object": rows(1, descr="|O") + pickle.dumps([print]),
        "a header of a gigabyte": array(b"{}", 2**30),
        "a million brackets": array(DEEP),
        "a pickle": pickle.dumps([print]),
    }


def with_pickle(archive: bytes, pickled: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of torch with another pickle in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(file, "w") as new:
        for info in old.infolist():
            own = info.filename.endswith("/data.pkl")
            content = pickled if own else old.read(info)
            new.writestr(info.filename, content, compression)
    return file.getvalue()


def _nested_key(levels: int = 100) -> bytes:
    """A dictionary whose key is a tuple of two tuples of two tuples ..."""
    steps = b"".join(b"q%ch%c\x86" % (n, n) for n in range(levels))
    return b"\x80\x02}K\x01K\x01\x86" + steps + b"K\x01s."


def _pickles() -> dict[str, bytes]:
    archive = seeds.saved({"a": torch.ones(1)})
    legacy = io.BytesIO()
    torch.save({"a": 1}, legacy, _use_new_zipfile_serialization=False)
    plain = pickle.dumps({"a": 1}, protocol=2)
    where, what = torch.zeros(2, 1, dtype=torch.long), torch.ones(1)
    sparse = torch.sparse_coo_tensor(where, what, (10**6, 10**6), check_invariants=True)
    asks = b"\x80\x02c__builtin__\nbytearray\n\x8a\x05\x00\xe4\x0b\x54\x02\x85R."
    return {
        "a key that takes years to hash": with_pickle(archive, _nested_key()),
        "the same in an older file": legacy.getvalue().replace(plain, _nested_key()),
        "a gigabyte of zeros in a megabyte": with_pickle(
            archive, bytes(1 << 28), zipfile.ZIP_DEFLATED
        ),
        "a tensor of 10^12 elements in four bytes": seeds.saved(
            {"state_dict": {"weight": torch.ones(1).expand(10**6, 10**6)}, "epoch": 1}
        ),
        "ten gigabytes of bytes": with_pickle(archive, asks),
        "a sparse tensor": seeds.saved({"state_dict": {"weight": sparse}, "epoch": 1}),
        "a million brackets": with_pickle(archive, b"\x80\x02" + b"]" * 10**6 + b"a" * 999_999),
    }


def _torchscripts() -> dict[str, bytes]:
    (archive,) = seeds.torchscripts()
    module = b"c__torch__\nModule\n)\x81"
    shared = module + b"}b"  # each holds the one before it twice
    for n in range(100):
        name = b"q%c" % n
        state = b"}X\x01\0\0\0ah%cX\x01\0\0\0bh%cub" % (n, n)
        shared += name + b"0" + module + state.replace(b"}", b"}(", 1)
    return {
        "modules that hold each other": with_pickle(archive, b"\x80\x02" + shared + b"."),
        "a key that takes years to hash": with_pickle(archive, _nested_key()),
        "nothing of what it needs": with_pickle(archive, b""),
        "the directory gone": archive[:-100] + bytes(100),
    }


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    pixels = zlib.compress(bytes(10**6))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels)


def _images() -> dict[str, bytes]:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(touched) run\n"
    return {
        "a PNG of 60000 x 60000": _png(60_000, 60_000),
        "a PNG of 2^31 x 2^31": _png(2**31 - 1, 2**31 - 1),
        "a program for Ghostscript": postscript,
        "a GIF of 65535 x 65535": b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\0;",
        "nothing": b"",
    }


def _mats() -> dict[str, bytes]:
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"

    def element(kind: int, data: bytes) -> bytes:
        return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)

    def matrix(kind: int, sides: tuple[int, ...], rest: bytes) -> bytes:
        flags = element(6, struct.pack("<II", kind, 0))
        size = element(5, struct.pack(f"<{len(sides)}i", *sides))
        return element(14, flags + size + element(1, b"labels") + rest)

    bomb = zlib.compress(matrix(9, (1, 1), element(2, bytes(1 << 28))))
    no_fields = element(5, struct.pack("<i", 32)) + element(1, b"")
    return {
        "a quarter of a gigabyte of zeros": head + struct.pack("<II", 15, len(bomb)) + bomb,
        "two billion structs of no fields": head + matrix(2, (2**31 - 1, 1), no_fields),
        "cells without end": head + matrix(1, (2**31 - 1, 2**31 - 1), b""),
        "an object": head + matrix(3, (1, 1), b""),
        "version 7.3": b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF",
    }


def all_bombs() -> dict[str, dict[str, bytes]]:
    """Reader -> what is wrong -> bytes."""
    zeros = gzip.compress(b'{"version": 1, "folders": ' + b" " * (3 << 28))
    return {
        "config": _yaml_bombs(),
        "overrides": _overrides(),
        "sweep": {**_yaml_bombs(), **_sweeps()},
        "split": _splits(),
        "results": _results(),
        "history": {"a million brackets": DEEP, "a number": b"1\n"},
        "prompt": {
            "classes that are a number": save({"ctx": torch.ones(1)}, {"classnames": "5"}),
            "classes that nest": save({"ctx": torch.ones(1)}, {"classnames": "[" * 10**5}),
            "a class that is none": save({"ctx": torch.ones(1)}, {"classnames": "[null]"}),
            **{name: data for name, data in _safetensors().items() if data[8:9] in b"{["},
        },
        "safetensors": _safetensors(),
        "features": _features(),
        "feature metadata": {"a million brackets": DEEP, "a number": b"1", "a list": b"[]"},
        "state_dict": _pickles(),
        "checkpoint": _pickles(),
        "torchscript": _torchscripts(),
        "image": _images(),
        "listing": {"768 MiB of spaces": zeros, "a million brackets": gzip.compress(DEEP)},
        "mat": _mats(),
    }


def write_all(folder: Path) -> list[tuple[str, str]]:
    """Write every file as FOLDER/READER/NUMBER/bomb; returns readers and what is wrong."""
    written = []
    for name, contents in sorted(all_bombs().items()):
        for number, (what, data) in enumerate(contents.items()):
            path = folder / name / f"{number:02}" / "bomb"
            path.parent.mkdir(parents=True)
            path.write_bytes(data)
            written.append((name, what))
    return written


def main(folder: Path) -> None:
    """Print [reader, answer, MiB by which the process has ever grown] for each, in order."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in sorted(READERS):
        for path in sorted((folder / name).glob("*/bomb")):
            with contextlib.redirect_stdout(io.StringIO()):
                said = answer(READERS[name], path.read_bytes(), path.parent / "read")
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
            print(json.dumps([name, said, grown]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
