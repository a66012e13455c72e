"""Images in memory or anywhere on the disk as a dataset."""

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dassl.data.pixels import to_rgb
from safeio.errors import UserError
from safeio.files import prepare_output_dir, write_atomic, write_text
from safeio.untrusted import short_repr

FOLDER = "image_lists"  # below the data root
Picture = Image.Image | NDArray[Any] | str | os.PathLike[str]
Labelled = Sequence[tuple[Picture, Any]]


class ImageList:
    """Labelled images for `nemesis.train(dataset=...)` and `Classifier.evaluate(dataset=...)`.

    An image is a path, a PIL image or a uint8 array (height, width) or (height, width, 3 or 4). It
    is turned upright by its EXIF orientation, and transparent pixels become white. Few-shot samples
    depend only on the list and the seed.

    Args:
        train: pairs of an image and its class name.
        val: for TEST.FINAL_MODEL best_val or TEST.SPLIT val.
        test: pairs to test on; required unless TEST.NO_TEST is set.
        names: label -> class name, if the labels are not the class names.

    Raises:
        UserError: a pair, an image or a label is wrong.
    """

    def __init__(
        self,
        train: Labelled = (),
        val: Labelled = (),
        test: Labelled = (),
        names: Mapping[Any, str] | None = None,
    ) -> None:
        parts = {"train": train, "val": val, "test": test}
        self.parts = {
            part: [_checked(part, number, pair, names) for number, pair in enumerate(pairs or ())]
            for part, pairs in parts.items()
        }
        if not any(self.parts.values()):
            raise UserError('An ImageList needs images, such as train=[("a.jpg", "cat"), ...]')

    def save(self, root: str | os.PathLike[str]) -> Path:
        """Write the list below a data root as a CSV of own images; files become links.

        Returns:
            The path of the CSV. The same list has the same path.
        """
        contents = {part: [_content(image) for image, _ in self.parts[part]] for part in self.parts}
        identity = [
            (part, label, str(content) if isinstance(content, Path) else _sha256(content))
            for part, pairs in self.parts.items()
            for (_, label), content in zip(pairs, contents[part], strict=True)
        ]
        digest = _sha256(json.dumps(identity).encode())[:16]
        folder = Path(root).expanduser().absolute() / FOLDER / digest
        if (folder / "images.csv").is_file():
            return folder / "images.csv"
        rows = []
        for part, pairs in self.parts.items():
            prepare_output_dir(folder / part)
            for number, ((_, label), content) in enumerate(zip(pairs, contents[part], strict=True)):
                suffix = content.suffix if isinstance(content, Path) else ".png"
                rows.append((f"{part}/{number:06d}{suffix}", label, part))
                _place(content, folder / rows[-1][0])
        _write_csv(folder / "images.csv", [("path", "label", "split"), *rows])
        return folder / "images.csv"


def to_image(picture: Picture, as_viewed: bool = True) -> Image.Image:
    """Return a PIL image or an array as an RGB image.

    Raises:
        UserError: it is another object, or its pixels have another range.
    """
    try:
        image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
        if isinstance(image, Image.Image):
            return to_rgb(image.copy(), as_viewed)
        why = "it is not a path, a PIL image or a NumPy array"
    except (TypeError, ValueError, OSError) as error:
        why = str(error)
        if isinstance(picture, np.ndarray):
            why = f"an array of {picture.dtype} and shape {picture.shape} is not a picture"
    raise UserError(
        f"{short_repr(type(picture).__name__)} cannot be read as an image: {why}; pass a path, a "
        "PIL image or a uint8 array (height, width, 3)"
    )


def _checked(
    part: str, number: int, pair: Any, names: Mapping[Any, str] | None
) -> tuple[Picture, str]:
    where = f"item {number} of {part}"
    if not (isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2):
        raise UserError(
            f"{where} is {short_repr(pair)}, but must be a pair of an image and its class"
        )
    image, label = pair
    name = label if names is None else names.get(label)
    if not isinstance(name, str) or not name.strip():
        how = "pass names={label: name}" if names is None else "add it to names"
        raise UserError(
            f"{where} has the label {short_repr(label)}, which is not a class name; {how}"
        )
    if isinstance(image, str | os.PathLike) and not Path(image).expanduser().is_file():
        raise UserError(f"{where}: the image {os.fspath(image)} does not exist")
    return image, name.strip()


def _content(image: Picture) -> Path | bytes:
    """Return the absolute path of a file, or an image in memory as PNG."""
    if isinstance(image, str | os.PathLike):
        return Path(image).expanduser().absolute()
    buffer = io.BytesIO()
    to_image(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _place(content: Path | bytes, target: Path) -> None:
    if isinstance(content, bytes):
        write_atomic(target, lambda path: path.write_bytes(content))
        return
    target.unlink(missing_ok=True)  # left by a call that was interrupted
    try:
        target.symlink_to(content)
    except OSError:  # for example, on Windows without the right to make links
        shutil.copyfile(content, target)


def _write_csv(path: Path, rows: Iterable[Sequence[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(text.getvalue(), path)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
