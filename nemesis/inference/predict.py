"""Classify image files with a trained run."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, default_collate
from tqdm import tqdm

from dassl.data import DatasetWrapper
from dassl.data.datasets import Datum
from dassl.data.images import decoding, max_pixels, read_image
from safeio.errors import UserError
from safeio.untrusted import printable
from trainers.core.features.evaluation import FrozenCLIPTrainer

from .image_files import find_images, unused_files
from .run_flags import load_classifier


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of an image.

    Attributes:
        path: of the image.
        classes: in descending order of probability.
        probabilities: of `classes`, among all classes of the run, from 0 to 1.
        error: why the image could not be read; "" if it could.
    """

    path: str
    classes: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str = ""


class ImageFiles(DatasetWrapper):
    """Image files with a run's test transform; a file that cannot be read gives an error item.

    Files are decoded as own images (upright, white behind transparency), whatever dataset the run
    was trained on, unless INPUT.DECODE overrides it.
    """

    def __init__(self, cfg: Any, paths: Sequence[str], transform: Any) -> None:
        super().__init__(cfg, [Datum(path) for path in paths], transform)
        self.decode = decoding(cfg, own=True)

    def _read(self, index: int, path: str) -> Image.Image:
        return read_image(path, self.decode)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        try:
            return {"img": super().__getitem__(idx)["img"], "error": ""}
        except UserError as error:
            return {"error": str(error)}


def _collate(items: list[dict[str, Any]]) -> tuple[Any, list[str]]:
    """Return the readable images as one tensor, and every item's error."""
    images = [item["img"] for item in items if not item["error"]]
    return default_collate(images) if images else None, [item["error"] for item in items]


def predict(
    trainer: FrozenCLIPTrainer,
    paths: Sequence[str],
    show: Callable[[Prediction], None],
    top_k: int = 5,
    batch_size: int | None = None,
) -> None:
    """Classify image files, batch by batch, in their order.

    Args:
        trainer: of a finished run.
        paths: image files.
        show: called with each prediction after its batch.
        top_k: number of classes per image, at most all.
        batch_size: None for the run's DATALOADER.TEST.BATCH_SIZE.
    """
    names = trainer.dm.dataset.classnames
    remaining = iter(paths)
    batches = _loader(trainer, paths, batch_size or trainer.cfg.DATALOADER.TEST.BATCH_SIZE)
    with trainer.cached_text_features(), tqdm(total=len(paths), unit="image", disable=None) as bar:
        for images, errors in batches:
            best = iter(_best(trainer, images, min(top_k, len(names))))
            for error in errors:
                path = next(remaining)
                if error:
                    show(Prediction(path, error=error))
                else:
                    probabilities, labels = next(best)
                    classes = tuple(names[label] for label in labels)
                    show(Prediction(path, classes, tuple(probabilities)))
            bar.update(len(errors))


def _loader(trainer: FrozenCLIPTrainer, paths: Sequence[str], batch_size: int) -> DataLoader[Any]:
    files = ImageFiles(trainer.cfg, paths, trainer.dm.tfm_test)
    loader = trainer.cfg.DATALOADER
    # Starting a process takes longer than reading a few images.
    workers = min(loader.NUM_WORKERS, os.cpu_count() or 1, len(paths) // (4 * batch_size))
    return DataLoader(
        files,
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=trainer.device.type == "cuda",
    )


def _best(
    trainer: FrozenCLIPTrainer, images: torch.Tensor | None, count: int
) -> list[tuple[list[float], list[int]]]:
    """Return probabilities and labels of the most probable classes of each image.

    Raises:
        UserError: an output of the model is NaN or infinite.
    """
    if images is None:
        return []
    logits = trainer.model_inference(images.to(trainer.device, non_blocking=True))
    all_probabilities = logits.float().softmax(dim=1)
    if not all_probabilities.isfinite().all():
        raise UserError(
            "The model's outputs are NaN or infinite, so they give no prediction; check the run's "
            "checkpoint and its precision (fp32 has the largest range)"
        )
    probabilities, labels = all_probabilities.topk(count, dim=1)
    return list(zip(probabilities.tolist(), labels.tolist(), strict=True))


def as_json(prediction: Prediction) -> str:
    """Return one line: {"path", "predictions": [{"class", "probability"}, ...]}, best first."""
    pairs = zip(prediction.classes, prediction.probabilities, strict=True)
    entries = [{"class": name, "probability": round(value, 6)} for name, value in pairs]
    return json.dumps({"path": prediction.path, "predictions": entries})


class Table:
    """Text table of predictions: one row per class, with the image in the first row.

    Args:
        paths: all images, which determine the width of the first column.
        classnames: all classes, which determine that of the second.
    """

    def __init__(self, paths: Sequence[str], classnames: Sequence[str]) -> None:
        columns = (("image", *map(printable, paths)), ("class", *classnames))
        self._widths = [max(map(len, column)) for column in columns]

    def header(self) -> str:
        """Return the column names, underlined."""
        names = self._row("image", "class", "probability")
        return names + "\n" + "-" * len(names)

    def rows(self, prediction: Prediction) -> str:
        """Return the rows of one image."""
        images = (printable(prediction.path), *[""] * len(prediction.classes))
        columns = zip(images, prediction.classes, prediction.probabilities, strict=False)
        return "\n".join(self._row(image, name, f"{value:.1%}") for image, name, value in columns)

    def _row(self, path: str, name: str, value: str) -> str:
        return f"{path:{self._widths[0]}}  {name:{self._widths[1]}}  {value:>11}"


def predict_command(arguments: argparse.Namespace) -> int:
    """Classify the images of `nemesis predict`'s arguments and print the predictions.

    Returns:
        The exit code: 0, or 1 if an argument matches no image or an image cannot be read.

    Raises:
        UserError: no argument matches an image, or see `load_classifier` and `max_pixels`.
    """
    max_pixels()  # raises for an invalid limit before anything is printed
    paths, problems = find_images(arguments.images)
    if not paths:
        raise UserError("No image to classify: " + "; ".join(problems))
    trainer = load_classifier(arguments)
    for problem in problems:
        print(f"error: {printable(problem)}", file=sys.stderr)
    for note in unused_files(arguments.images):
        print(f"note: {printable(note)}", file=sys.stderr)
    unreadable = _print_all(trainer, paths, arguments)
    return int(bool(problems or unreadable))


def _print_all(
    trainer: FrozenCLIPTrainer, paths: Sequence[str], arguments: argparse.Namespace
) -> list[Prediction]:
    """Print predictions batch by batch; print errors to stderr and return them."""
    table = Table(paths, trainer.dm.dataset.classnames)
    unreadable = []

    def show(prediction: Prediction) -> None:
        if prediction.error:
            unreadable.append(prediction)
            tqdm.write(f"error: {printable(prediction.error)}", file=sys.stderr)
        else:
            tqdm.write(as_json(prediction) if arguments.json else table.rows(prediction))
            sys.stdout.flush()

    if not arguments.json:
        print(table.header())
    predict(trainer, paths, show, arguments.top_k, arguments.batch_size)
    return unreadable
