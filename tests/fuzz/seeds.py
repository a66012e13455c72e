"""Valid files of every kind that the project reads, as seeds for fuzzing."""

import gzip
import io
import json
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save
from scipy.io import savemat
from torch import Tensor, nn

from clip.config import CLIPConfig
from clip.model import CLIP
from dassl.data.datasets.splits import PARTS
from dassl.utils import random_states, save_checkpoint
from trainers.core.features.store import FeatureStore

ROOT = Path(__file__).parents[2]
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SPLIT = {part: [["a.png", 0, "cat"], ["b.png", 1, "dog"]] for part in PARTS}
SIZES: dict[str, Any] = {
    **{"embed_dim": 8, "image_resolution": 8, "context_length": 8, "vocab_size": 16},
    **{"vision_layers": 1, "vision_width": 8, "vision_patch_size": 4, "vision_heads": 2},
    **{"transformer_layers": 1, "transformer_width": 8, "transformer_heads": 2},
}
FEATURE_KEY, FEATURE_FINGERPRINT, FEATURE_SHAPE = "ab12", "cd34", (3, 4)


def texts(*patterns: str) -> list[bytes]:
    """Return the project's files that match the patterns and do not include other files."""
    files = [path.read_bytes() for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    return [content for content in files if b"_BASE_" not in content]


def as_json(content: Any) -> bytes:
    return json.dumps(content).encode()


def tiny_clip() -> CLIP:
    torch.manual_seed(0)
    return CLIP(CLIPConfig(**SIZES)).eval()


def saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def state_dicts() -> list[bytes]:
    """Return state dicts: bare, nested, and in the format of torch before version 1.6."""
    state = tiny_clip().state_dict()
    old = io.BytesIO()
    torch.save(state, old, _use_new_zipfile_serialization=False)
    return [saved(state), saved({"state_dict": state, "epoch": 3}), old.getvalue()]


class _Traced(nn.Module):
    """A module with the submodules and parameters of a CLIP, for tracing."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        for name, module in model.named_children():
            self.add_module(name, module)
        for name, parameter in model.named_parameters(recurse=False):
            self.register_parameter(name, parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Return x + 1; tracing needs some code."""
        return x + 1


def torchscripts() -> list[bytes]:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, but nothing else writes these
        torch.jit.save(torch.jit.trace(_Traced(tiny_clip()), torch.zeros(1)), file)
    return [file.getvalue()]


def descriptions() -> list[bytes]:
    tower = {"hidden_size": 8, "intermediate_size": 32, "hidden_act": "gelu"}
    theirs = {"model_type": "clip", "text_config": tower, "vision_config": tower}
    model = {"embed_dim": 8, "vision_cfg": {"layers": [1, 1, 1, 1]}, "text_cfg": {"heads": 2}}
    images = {"mean": [0.5, 0.5, 0.5], "std": 0.5}
    return [as_json(theirs), as_json({"model_cfg": model, "preprocess_cfg": images})]


def safetensors() -> list[bytes]:
    state = {key: value.contiguous() for key, value in tiny_clip().state_dict().items()}
    embedding = state.pop("token_embedding.weight")
    packed = {
        **state,
        "token_embedding.weight.rows": embedding[:4].clone(),
        "token_embedding.weight.index": torch.arange(4),
    }
    metadata = {"config": json.dumps(SIZES), "pixel_mean": "[0.5, 0.5, 0.5]"}
    return [save({**state, "token_embedding.weight": embedding}), save(packed, metadata)]


def checkpoint_model() -> tuple[nn.Module, Any, Any]:
    """Return a minimal model, its optimiser and its learning-rate schedule."""
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1)


def checkpoints(folder: Path) -> list[bytes]:
    """Return a checkpoint with the random generators' states and one without."""
    model, optimizer, scheduler = checkpoint_model()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    scheduler.step()
    state = {
        "state_dict": model.state_dict(),
        "epoch": 1,
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "val_result": 50.0,
    }
    whole = save_checkpoint({**state, "random_states": random_states()}, folder)
    return [whole.read_bytes(), saved(state)]


def prompts() -> list[bytes]:
    metadata = {"classnames": json.dumps(["cat", "dog"]), "trainer": json.dumps("CoOp")}
    return [save({"ctx": torch.zeros(4, 8)}, metadata)]


def features(folder: Path) -> list[bytes]:
    return [_entry(folder).read_bytes()]


def feature_metadata(folder: Path) -> list[bytes]:
    return [_entry(folder).with_suffix(".json").read_bytes()]


def _entry(folder: Path) -> Path:
    store, rows = FeatureStore(folder), torch.ones(FEATURE_SHAPE)
    store.get(FEATURE_KEY, FEATURE_FINGERPRINT, len(rows), lambda: [rows])
    return store.path(FEATURE_KEY)


def images() -> list[bytes]:
    """Return an image in every format and in unusual modes, animated, and with EXIF data."""
    picture = Image.linear_gradient("L").resize((24, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    found = []
    for kind in FORMATS:
        modes = ("RGB", "RGBA", "P", "L", "1", "I;16", "CMYK", "LA", "I")
        for mode in modes:
            file = io.BytesIO()
            try:
                picture.convert(mode).save(file, kind, exif=exif)
            except (OSError, ValueError, KeyError):
                continue  # the format does not support this mode
            found.append(file.getvalue())
    for kind in ("GIF", "PNG", "TIFF", "WEBP"):
        file = io.BytesIO()
        frames = [picture.convert("RGB").rotate(90 * turn) for turn in (1, 2)]
        picture.convert("RGB").save(file, kind, save_all=True, append_images=frames)
        found.append(file.getvalue())
    return found


def listings() -> list[bytes]:
    return [gzip.compress(as_json({"version": 2, "folders": {"cat": [5, ["a.png"]]}}))]


def mats() -> list[bytes]:
    found = []
    structs = [{"fname": "a.jpg", "class": 1}, {"fname": "b.jpg", "class": 2}]
    for compressed in (False, True):
        file = io.BytesIO()
        savemat(file, {"labels": [[1, 2, 3]], "annotations": structs}, do_compression=compressed)
        found.append(file.getvalue())
    return found


def archives() -> list[bytes]:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images/a.txt", "hello" * 50)
    found = [packed.getvalue()]
    for mode in ("w", "w:gz", "w:bz2", "w:xz"):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode=mode) as tar:
            info = tarfile.TarInfo("images/a.txt")
            info.size = 250
            tar.addfile(info, io.BytesIO(b"hello" * 50))
            link = tarfile.TarInfo("images/b.txt")
            link.type, link.linkname = tarfile.SYMTYPE, "a.txt"
            tar.addfile(link)
        found.append(file.getvalue())
    return found


def a_result(**entries: Any) -> dict[str, Any]:
    """Return the keys of a finished run's results.json that a report reads."""
    config = {
        "SEED": 1,
        "OUTPUT_DIR": "output/1",
        "INPUT": {"SIZE": [64, 64], "TRAIN_VIEWS": 0},
        "OPTIM": {"LR": 0.002, "MAX_EPOCH": 50},
        "TRAINER": {
            "NAME": "CoOpNemesis",
            "COOP": {"N_CTX": 16, "CSC": False, "CTX_INIT": ""},
            "NEMESIS": {"OMEGA": 1.0, "TAU": 0.5, "N": 1, "BETA": 1.0, "NORM": "two"},
        },
    }
    return {
        **{"trainer": "CoOpNemesis", "dataset": "EmojiFood", "shots": 1, "seed": 1},
        **{"backbone": "mini", "subsample_classes": "all", "target_domains": [], "split": "test"},
        **{"accuracy": 50.0, "num_test": 100, "train_views": 0, "epochs": 50},
        **{"train_seconds": 1.5, "device": "cpu", "status": "finished"},
        **{"weights_sha256": "0" * 64, "versions": {"python": "3.11.7", "torch": "2.6.0"}},
        "config": config,
        **entries,
    }


def results() -> list[bytes]:
    source = a_result()
    return [as_json(source), as_json(a_result(model_dir="runs/1", source_run=source, shots=-1))]


def histories() -> list[bytes]:
    lines = [
        {"event": "train", "epoch": 0, "seconds": 1.0, "lr": 0.002, "loss": 2.0},
        {"event": "test", "epoch": 0, "split": "test", "accuracy": 50.0},
    ]
    return [b"".join(as_json(line) + b"\n" for line in lines)]
