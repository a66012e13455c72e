"""Weights files of every accepted kind, brought to OpenAI's key names.

Accepted: TorchScript archives as OpenAI publishes them, what torch.save wrote (state dicts, bare or
in a training program's checkpoint), safetensors, whose metadata may describe the model, and the
index of either in several files. Content decides, not the suffix.
"""

import json
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from safeio.pickles import check_file, check_tensors

from .config import CLIPConfig
from .description import Description, Settings, read_json
from .errors import WeightsError
from .inert_pickle import RefusedName, read_pickled
from .state_dicts import Weights, find_weights
from .torchscript import is_torchscript, read_torchscript

INDEX_SUFFIX = ".index.json"
PACKED_ROWS = "token_embedding.weight.rows"
PACKED_INDEX = "token_embedding.weight.index"
DEFAULT_VOCABULARY = 49408
LARGEST_VOCABULARY = 1 << 20
_GIT_LFS = b"version https://git-lfs"


def read_checkpoint(path: Path) -> tuple[Weights, Description | None]:
    """Read a weights file of any accepted kind.

    Returns:
        The weights, and what the file itself says of them, if anything.

    Raises:
        WeightsError: the file is damaged or of another kind.
        OSError: it cannot be read.
    """
    content, description = _read(path)
    return find_weights(content), description


def weights_files(path: Path) -> list[Path]:
    """The files that hold the tensors: the file itself, or those that an index names.

    Raises:
        WeightsError: the index names files that are not there.
        OSError: it cannot be read.
    """
    if not path.name.endswith(INDEX_SUFFIX):
        return [path]
    files = [path.parent / name for name in parts_of(path)]
    for file in files:
        if not file.is_file():
            raise WeightsError(f"{path} names the file {file.name!r}, which is not beside it.")
    return files


def parts_of(path: Path) -> list[str]:
    """The names of the files that an index names.

    Raises:
        WeightsError: it is no index, or names something that does not lie beside it.
        OSError: it cannot be read.
    """
    names = sorted(set(map(str, _weight_map(path).values())))
    for name in names:
        if Path(name).name != name:
            raise WeightsError(f"{path} names {name[:200]!r}, which is no file beside it.")
    return names


def _weight_map(path: Path) -> dict[str, Any]:
    found = read_json(path).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise WeightsError(f"{path} has no weight_map, which names the files of the tensors.")
    return found


def _read(path: Path) -> tuple[Any, Description | None]:
    if path.name.endswith(INDEX_SUFFIX):
        return _read_parts(path), None
    with path.open("rb") as file:
        start = file.read(len(_GIT_LFS))
    if start == _GIT_LFS:
        raise WeightsError(
            f"{path} is only a pointer of Git LFS to the weights; fetch them with `git lfs pull`."
        )
    if _is_safetensors(path, start):
        return _read_safetensors(path)
    return (read_torchscript(path) if is_torchscript(path) else _read_saved(path)), None


def _read_parts(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for part in weights_files(path):
        found, _ = _read(part)
        content.update(found if isinstance(found, dict) else {})
    for key, name in _weight_map(path).items():
        if key not in content:
            raise WeightsError(
                f"{path} names the tensor {key[:100]!r}, which {str(name)[:200]!r} lacks."
            )
    return content


def _is_safetensors(path: Path, start: bytes) -> bool:
    # The header's length in eight bytes, and the header, which is JSON.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size:
        return True
    return path.suffix == ".safetensors" and not start.startswith((b"PK", b"\x80"))


def _read_saved(path: Path) -> Any:
    """What torch.save wrote; an object beside the weights becomes a record that does nothing."""
    try:
        check_file(path)
        _check_sums(path)
        try:
            with path.open("rb") as file:  # given a path, PyTorch goes by its suffix
                content = torch.load(file, map_location="cpu", weights_only=True)
        except UnpicklingError:  # PyTorch refuses what is more than tensors and plain values
            content = read_pickled(path)
        check_tensors(content)
    except WeightsError:
        raise
    except RefusedName as error:
        raise WeightsError(
            f"{path} holds other things than weights: {error}; save the model's state_dict() alone."
        ) from None
    except Exception:
        # The readers fail in many ways on what is no state dict.
        raise WeightsError(
            f"{path} is damaged or holds other things than weights; accepted are TorchScript "
            "archives of CLIP, state dicts (.pt, .bin) and .safetensors."
        ) from None
    return content


def _check_sums(path: Path) -> None:
    """Compare the members of an archive with their CRC-32, which PyTorch's reader does not."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            spoilt = archive.testzip()
        if spoilt is not None:
            raise WeightsError(
                f"{path} is damaged: the checksum of {spoilt!r} is wrong; get it again."
            )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Description | None]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
        description = _described(metadata)
        vocabulary = DEFAULT_VOCABULARY
        if description is not None:
            vocabulary = int(description.sizes.get("vocab_size", vocabulary))
        return _unpack(tensors, vocabulary), description
    except OSError:
        raise
    except Exception as error:  # bytes from anywhere can fail in any way
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"{path} is no usable safetensors file ({reason}); get it again."
        ) from None


def _described(metadata: dict[str, str]) -> Description | None:
    """What our own files say in their metadata."""
    own = {
        key: json.loads(metadata[key])
        for key in ("config", "pixel_mean", "pixel_std")
        if key in metadata
    }
    if not own:
        return None
    images = Settings(own, "the file's metadata")
    mean, std = images.channels("pixel_mean"), images.channels("pixel_std")
    if not own.get("config"):
        return Description(images.source, pixel_mean=mean, pixel_std=std)
    config = CLIPConfig.from_dict(own["config"])
    sizes = dict(vars(config))
    return Description(
        images.source,
        transformer_heads=sizes.pop("transformer_heads") or config.text_heads,
        vision_heads=sizes.pop("vision_heads") or config.image_heads,
        activation=sizes.pop("activation"),
        pixel_mean=mean,
        pixel_std=std,
        sizes=sizes,
    )


def _unpack(tensors: dict[str, Tensor], vocabulary: int) -> dict[str, Tensor]:
    """Spread a token embedding of which only the rows in use are stored; the others are zero.

    Raises:
        WeightsError: the rows and their numbers do not fit each other or the vocabulary.
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
