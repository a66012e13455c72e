"""Read weights files of every accepted format, with OpenAI's key names.

Accepted are TorchScript archives as OpenAI publishes them, files of torch.save (a state dict, also
inside a training checkpoint), safetensors, whose metadata may describe the model, and the index of
sharded files. The content decides, not the suffix.
"""

import json
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from safeio.pickles import RefusedName, check_file, check_tensors

from .config import CLIPConfig
from .description import Description, Settings, read_json
from .errors import WeightsError
from .inert_pickle import read_pickled
from .state_dicts import Weights, find_weights
from .torchscript import is_torchscript, read_torchscript

INDEX_SUFFIX = ".index.json"
PACKED_ROWS = "token_embedding.weight.rows"
PACKED_INDEX = "token_embedding.weight.index"
DEFAULT_VOCABULARY = 49408
LARGEST_VOCABULARY = 1 << 20
_GIT_LFS = b"version https://git-lfs"


def read_checkpoint(path: Path) -> tuple[Weights, Description | None]:
    """Read a weights file of any accepted format.

    Returns:
        The weights, and the description in the file's own metadata, if any.

    Raises:
        WeightsError: the file is damaged or has another format.
        OSError: the file cannot be read.
    """
    content, description = _read(path)
    return find_weights(content), description


def weights_files(path: Path) -> list[Path]:
    """Return the files that hold the tensors: the file itself, or the shards of an index.

    Raises:
        WeightsError: a shard is missing.
        OSError: the index cannot be read.
    """
    if not path.name.endswith(INDEX_SUFFIX):
        return [path]
    files = [path.parent / name for name in shard_names(path)]
    for file in files:
        if not file.is_file():
            raise WeightsError(f"{path} names the file {file.name!r}, which is not in its folder.")
    return files


def shard_names(path: Path) -> list[str]:
    """Return the file names in an index of sharded weights.

    Raises:
        WeightsError: the file is not an index, or names a file outside its folder.
        OSError: the index cannot be read.
    """
    names = sorted(set(map(str, _weight_map(path).values())))
    for name in names:
        if Path(name).name != name:
            raise WeightsError(f"{path} names {name[:200]!r}, which is outside its folder.")
    return names


def _weight_map(path: Path) -> dict[str, Any]:
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(f"{path} has no weight_map, which names the files of the tensors.")
    return weight_map


def _read(path: Path) -> tuple[Any, Description | None]:
    if path.name.endswith(INDEX_SUFFIX):
        return _read_shards(path), None
    with path.open("rb") as file:
        start = file.read(len(_GIT_LFS))
    if start == _GIT_LFS:
        raise WeightsError(
            f"{path} is only a Git LFS pointer to the weights; fetch them with `git lfs pull`."
        )
    if _is_safetensors(path, start):
        return _read_safetensors(path)
    return (read_torchscript(path) if is_torchscript(path) else _read_saved(path)), None


def _read_shards(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for file in weights_files(path):
        shard, _ = _read(file)
        content.update(shard if isinstance(shard, dict) else {})
    for key, name in _weight_map(path).items():
        if key not in content:
            raise WeightsError(
                f"{path} names the tensor {key[:100]!r}, which is missing in {str(name)[:200]!r}."
            )
    return content


def _is_safetensors(path: Path, start: bytes) -> bool:
    # The format starts with the length of the header in eight bytes, and the header in JSON.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size:
        return True
    return path.suffix == ".safetensors" and not start.startswith((b"PK", b"\x80"))


def _read_saved(path: Path) -> Any:
    """Read a file of torch.save; objects other than weights become inert records."""
    try:
        check_file(path)
        _check_crcs(path)
        try:
            with path.open("rb") as file:  # for a path, the suffix would decide the format
                content = torch.load(file, map_location="cpu", weights_only=True)
        except UnpicklingError:  # PyTorch refuses objects other than tensors and plain values
            content = read_pickled(path)
        check_tensors(content)
        return content
    except WeightsError:
        raise
    except RefusedName as error:
        raise WeightsError(
            f"{path} contains more than weights: {error}; save only the model's state_dict()."
        ) from None
    except Exception:  # untrusted bytes can fail in any way
        raise WeightsError(
            f"{path} is damaged or contains more than weights; accepted are TorchScript archives "
            "of CLIP, state dicts (.pt, .bin) and .safetensors."
        ) from None


def _check_crcs(path: Path) -> None:
    """Verify the CRC-32 of an archive's members, which PyTorch's reader ignores."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise WeightsError(
                f"{path} is damaged: the checksum of {damaged!r} is wrong; download it again."
            )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Description | None]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
        description = _read_metadata(metadata)
        vocabulary = DEFAULT_VOCABULARY
        if description is not None:
            vocabulary = int(description.sizes.get("vocab_size", vocabulary))
        return _unpack_embedding(tensors, vocabulary), description
    except OSError:
        raise
    except Exception as error:  # untrusted bytes can fail in any way
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"{path} is not a usable safetensors file ({reason}); download it again."
        ) from None


def _read_metadata(metadata: dict[str, str]) -> Description | None:
    """Return the description in the metadata of a file that this repository wrote."""
    values = {
        key: json.loads(metadata[key])
        for key in ("config", "pixel_mean", "pixel_std")
        if key in metadata
    }
    if not values:
        return None
    images = Settings(values, "the file's metadata")
    mean, std = images.channels("pixel_mean"), images.channels("pixel_std")
    if not values.get("config"):
        return Description(images.source, pixel_mean=mean, pixel_std=std)
    config = CLIPConfig.from_dict(values["config"])
    settings = ("transformer_heads", "vision_heads", "activation")
    return Description(
        images.source,
        transformer_heads=config.text_heads,
        vision_heads=config.image_heads,
        activation=config.activation,
        pixel_mean=mean,
        pixel_std=std,
        sizes={key: value for key, value in vars(config).items() if key not in settings},
    )


def _unpack_embedding(tensors: dict[str, Tensor], vocabulary: int) -> dict[str, Tensor]:
    """Fill the token embedding from a file that stores only the rows in use; the others are zero.

    Raises:
        WeightsError: the rows do not fit their index or the vocabulary.
    """
    if PACKED_ROWS not in tensors or PACKED_INDEX not in tensors:
        return tensors
    rows, index = tensors.pop(PACKED_ROWS), tensors.pop(PACKED_INDEX).long()
    fits = rows.dim() == 2 and index.shape == rows.shape[:1] and index.numel() > 0
    fits = fits and 0 <= int(index.min()) <= int(index.max()) < vocabulary <= LARGEST_VOCABULARY
    if not fits:
        raise WeightsError(
            f"The packed token embedding does not fit a vocabulary of {vocabulary} tokens."
        )
    weight = torch.zeros(vocabulary, rows.shape[1], dtype=rows.dtype)
    weight[index] = rows
    return {**tensors, "token_embedding.weight": weight}
