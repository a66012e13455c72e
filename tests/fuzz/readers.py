"""Readers of untrusted files, as functions of the file's bytes, for fuzzing."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import datasets  # noqa: F401  (registers the datasets)
import trainers  # noqa: F401  (registers the methods)
from clip import hugging_face, open_clip_names
from clip.weights import load_clip
from dassl.config import load_config
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
from nemesis.inference.load_run import known_classnames
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
    load_config(opts=path.read_bytes().decode(errors="replace").split("\n")).dump()


def _config(path: Path) -> None:
    load_config(config_file=str(path)).dump()


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
    if known_classnames(path.parent) is None:
        raise UserError("the prompt names no classes")


def _results(path: Path) -> None:
    finished_run(path.parent)
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


def _table(path: Path) -> None:
    for name in ("a.png", "b.png"):
        (path.parent / name).touch()
    read_table(path)


def _archive(path: Path) -> None:
    extract(path, path.parent / "unpacked", Budget(1 << 20, "a megabyte"))


KEY = seeds.FEATURE_KEY
CONFIGS = ("configs/datasets/*.yaml", "configs/trainers/recipe.yaml")
OVERRIDES = b"OPTIM.LR\n2e-3\nINPUT.SIZE\n(32, 32)\nTRAINER.COOP.CTX_INIT\na photo"
ROWS = b"a.png cat\n# note\nb.png dog house\n"
TABLE = b'path,label,split\na.png,cat,train\n"b.png","dog",test\n'
READERS: dict[str, Reader] = {
    "config": Reader("c.yaml", lambda _: seeds.texts(*CONFIGS), _config),
    "overrides": Reader("words.txt", lambda _: [OVERRIDES], _overrides),
    "sweep": Reader("s.yaml", lambda _: seeds.texts("configs/sweeps/*.yaml"), _sweep),
    "split": Reader("split.json", lambda _: [seeds.as_json(seeds.SPLIT)], _split),
    "checkpoint": Reader("model.pth.tar-1", seeds.checkpoints, _checkpoint),
    "state_dict": Reader("weights.pt", lambda _: seeds.state_dicts(), _weights),
    "torchscript": Reader("openai.pt", lambda _: seeds.torchscripts(), _weights),
    "safetensors": Reader("weights.safetensors", lambda _: seeds.safetensors(), _weights),
    "description": Reader(hugging_face.CONFIG, lambda _: seeds.descriptions(), _description),
    "prompt": Reader("prompt.safetensors", lambda _: seeds.prompts(), _prompt),
    "features": Reader(f"{KEY}.npy", seeds.features, _features),
    "feature metadata": Reader(f"{KEY}.json", seeds.feature_metadata, _feature_metadata),
    "image": Reader("image", lambda _: seeds.images(), lambda path: read_image(str(path))),
    "results": Reader("runs/1/results.json", lambda _: seeds.results(), _results),
    "history": Reader("history.jsonl", lambda _: seeds.histories(), _history),
    "listing": Reader("listing.json.gz", lambda _: seeds.listings(), _listing),
    "mat": Reader("labels.mat", lambda _: seeds.mats(), _mat),
    "rows": Reader("rows.txt", lambda _: [ROWS], lambda path: read_rows(path, columns=2)),
    "table": Reader("table.csv", lambda _: [TABLE], _table),
    "archive": Reader("archive", lambda _: seeds.archives(), _archive),
}


def seeds_of(reader: Reader, folder: Path) -> list[bytes]:
    """Return valid files for a reader, all of which it accepts."""
    work = folder / "seeds"
    work.mkdir(parents=True, exist_ok=True)
    return reader.seeds(work)
