"""Readers of untrusted files, as functions of the file's bytes, for fuzzing."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import datasets  # noqa: F401  (registers the datasets)
import trainers  # noqa: F401  (registers the methods)
from clip import hugging_face, open_clip_names
from clip.weights import load_clip
from dassl.config import load_config
from dassl.config.node import CfgNode
from dassl.data.datasets.annotations import read_mat, read_rows
from dassl.data.datasets.class_checks import check_classes
from dassl.data.datasets.listing import list_images
from dassl.data.datasets.splits import read_split
from dassl.data.images import read_image
from dassl.engine import finished_run
from dassl.engine.run_record import read_history
from dassl.utils import load_checkpoint, restore_random_states
from dassl.utils.checkpoint import load_state
from datasets.own_images import read_table
from nemesis.inference.load_run import trained_classnames
from nemesis.report.accuracy import make_tables
from nemesis.report.checks import notes_on, refuse_mixed
from nemesis.report.provenance import (
    common_settings,
    example_commands,
    runs_table,
    settings_table,
    versions_table,
)
from nemesis.report.reading import read_runs
from nemesis.report.settings import name_rows
from nemesis.sweeps.grid import make_runs
from nemesis.sweeps.runs import recorded_digest
from nemesis.sweeps.sweep_file import read_sweep
from safeio.archives import Budget, extract
from safeio.checksums import write_json_with_checksum
from safeio.errors import UserError
from trainers.core.features.store import FeatureStore

from . import seeds

LONGEST_SENTENCE = 4000


@dataclass(frozen=True)
class Reader:
    """A kind of file.

    Attributes:
        file: name of the file, optionally with parent folders.
        seeds: makes valid files of this kind in an empty folder.
        read: reads the file, which is alone in its folder, as the project does.
    """

    file: str
    seeds: Callable[[Path], list[bytes]]
    read: Callable[[Path], object]


def answer(reader: Reader, data: bytes, folder: Path) -> str | None:
    """Write bytes to a file and read it.

    Args:
        reader: the reader.
        data: content of the file.
        folder: folder to which the file is written.

    Returns:
        None if the file was accepted, else the error message.

    Raises:
        Exception: any other exception, which is a defect.
    """
    path = folder / reader.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    try:
        reader.read(path)
    except UserError as error:
        sentence = str(error)
        if not sentence or len(sentence) > LONGEST_SENTENCE:
            raise ValueError(f"the message has {len(sentence)} characters") from error
        return sentence
    return None


def _overrides(path: Path) -> None:
    words = path.read_bytes().decode(errors="replace").split("\n")
    cfg = load_config(opts=words)
    assert isinstance(cfg, CfgNode)
    cfg.dump()


def _config(path: Path) -> None:
    cfg = load_config(config_file=str(path))
    cfg.dump()


def _sweep(path: Path) -> None:
    make_runs(read_sweep(path))


def _split(path: Path) -> None:
    for name in ("a.png", "b.png"):
        (path.parent / name).touch()
    check_classes(read_split(path, path.parent), path)


def _checkpoint(path: Path) -> None:
    state = load_checkpoint(path)
    load_state(path, state, *seeds.checkpoint_model())
    if state.get("random_states"):
        restore_random_states(state["random_states"])


def _weights(path: Path) -> None:
    load_clip(str(path), transformer_heads=2, vision_heads=2)


def _description(path: Path) -> None:
    other = path.with_name(open_clip_names.CONFIG)
    other.write_bytes(path.read_bytes())
    if b"model_cfg" in path.read_bytes():
        open_clip_names.describe(path.parent)
    else:
        hugging_face.describe(path.parent)


def _features(path: Path) -> None:
    metadata = {
        **{"key": seeds.FEATURE_KEY, "fingerprint": seeds.FEATURE_FINGERPRINT},
        **{"dtype": str(torch.float32), "stored_as": str(torch.float32)},
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),  # so that more is read than that
    }
    write_json_with_checksum(metadata, path.with_suffix(".json"))
    _read_features(path.parent)


def _feature_metadata(path: Path) -> None:
    np.save(path.with_suffix(".npy"), np.ones(seeds.FEATURE_SHAPE, np.float32))
    _read_features(path.parent)


def _read_features(folder: Path) -> None:
    key, fingerprint = seeds.FEATURE_KEY, seeds.FEATURE_FINGERPRINT
    made = torch.ones(seeds.FEATURE_SHAPE)
    rows = FeatureStore(folder).get(key, fingerprint, len(made), lambda: [made])
    assert rows is not None and len(rows.read(0, len(made))) == len(made)


def _prompt(path: Path) -> None:
    trained_classnames(path.parent)


def _results(path: Path) -> None:
    results = finished_run(path.parent)
    if results is not None:
        recorded_digest(results)
    runs = name_rows(read_runs([path.parent.parent]).runs).runs
    notes_on(runs)
    common_settings(runs)
    example_commands(runs)
    refuse_mixed(runs)
    origin = (settings_table(runs), runs_table(runs, path.parent), versions_table(runs))
    for table in (*make_tables(runs, 0).tables, *origin):
        table.csv(), table.latex(), table.markdown(), table.html()


def _history(path: Path) -> None:
    read_history(path.parent)


def _listing(path: Path) -> None:
    images = path.parent / "images" / "cat"
    images.mkdir(parents=True, exist_ok=True)
    (images / "a.png").touch()
    list_images(images.parent, cache=path)


def _mat(path: Path) -> None:
    read_mat(path, "labels")
    read_mat(path, "annotations", ("fname", "class"))


def _rows(path: Path) -> None:
    read_rows(path, columns=2)


def _table(path: Path) -> None:
    for name in ("a.png", "b.png"):
        (path.parent / name).touch()
    read_table(path)


def _archive(path: Path) -> None:
    extract(path, path.parent / "unpacked", Budget(1 << 20, "a megabyte"))


def _constant(*contents: bytes) -> Callable[[Path], list[bytes]]:
    return lambda folder: list(contents)


def _without_folder(make: Callable[[], list[bytes]]) -> Callable[[Path], list[bytes]]:
    return lambda folder: make()


def _readers() -> Iterator[tuple[str, Reader]]:
    fixed = _without_folder
    configs = ("configs/datasets/*.yaml", "configs/trainers/backbones/recipe.yaml")
    overrides = b"OPTIM.LR\n2e-3\nINPUT.SIZE\n(32, 32)\nTRAINER.COOP.CTX_INIT\na photo"
    csv = b'path,label,split\na.png,cat,train\n"b.png","dog",test\n'
    yield "config", Reader("c.yaml", fixed(lambda: seeds.texts(*configs)), _config)
    yield "overrides", Reader("words.txt", _constant(overrides), _overrides)
    yield "sweep", Reader("s.yaml", fixed(lambda: seeds.texts("configs/sweeps/*.yaml")), _sweep)
    yield "split", Reader("split.json", _constant(seeds.as_json(seeds.SPLIT)), _split)
    yield "checkpoint", Reader("model.pth.tar-1", seeds.checkpoints, _checkpoint)
    yield "state_dict", Reader("weights.pt", fixed(seeds.state_dicts), _weights)
    yield "torchscript", Reader("openai.pt", fixed(seeds.torchscripts), _weights)
    yield "safetensors", Reader("weights.safetensors", fixed(seeds.safetensors), _weights)
    described = fixed(seeds.descriptions)
    yield "description", Reader(hugging_face.CONFIG, described, _description)
    yield "prompt", Reader("prompt.safetensors", fixed(seeds.prompts), _prompt)
    key = seeds.FEATURE_KEY
    yield "features", Reader(f"{key}.npy", seeds.features, _features)
    yield "feature metadata", Reader(f"{key}.json", seeds.feature_metadata, _feature_metadata)
    yield "image", Reader("image", fixed(seeds.images), lambda path: read_image(str(path)))
    yield "results", Reader("runs/1/results.json", fixed(seeds.results), _results)
    yield "history", Reader("history.jsonl", fixed(seeds.histories), _history)
    yield "listing", Reader("listing.json.gz", fixed(seeds.listings), _listing)
    yield "mat", Reader("labels.mat", fixed(seeds.mats), _mat)
    yield "rows", Reader("rows.txt", _constant(b"a.png cat\n# note\nb.png dog house\n"), _rows)
    yield "table", Reader("table.csv", _constant(csv), _table)
    yield "archive", Reader("archive", fixed(seeds.archives), _archive)


READERS: dict[str, Reader] = dict(_readers())


def seeds_of(reader: Reader, folder: Path) -> list[bytes]:
    """Return valid files for a reader, all of which it accepts."""
    work: Any = folder / "seeds"
    work.mkdir(parents=True, exist_ok=True)
    return reader.seeds(work)
