"""What a trained run says about images that belong to no dataset."""

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
    """The likeliest classes of an image.

    Attributes:
        path: the image.
        classes: the classes in falling order of probability.
        probabilities: theirs, between 0 and 1, among all classes of the run.
        error: instead, a sentence that says why the image could not be read.
    """

    path: str
    classes: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str = ""


class ImageFiles(DatasetWrapper):
    """Images as a run sees them in its tests; one that cannot be read is an item, too.

    Whatever the run was trained on, they are somebody's own: decoded as they are viewed, unless
    the run's INPUT.DECODE says otherwise.
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
    """The images that could be read, as one tensor, and every item's error."""
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
        show: called with the prediction of each path, while later ones are still to come.
        top_k: number of classes for each image; all of them if there are fewer.
        batch_size: images that go through the model together; None for the run's own number.
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
    # Starting a process costs more than reading a few images.
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
    """Probabilities and labels of the likeliest classes of each image.

    Raises:
        UserError: an output of the model is NaN or infinite.
    """
    if images is None:
        return []
    logits = trainer.model_inference(images.to(trainer.device, non_blocking=True))
    everything = logits.float().softmax(dim=1)
    if not everything.isfinite().all():
        raise UserError(
            "The model's outputs are NaN or infinite, so no class is the likeliest; look for it in "
            "the run's checkpoint and its precision, of which fp32 has the largest range"
        )
    probabilities, labels = everything.topk(count, dim=1)
    return list(zip(probabilities.tolist(), labels.tolist(), strict=True))


def as_json(prediction: Prediction) -> str:
    """One line: {"path", "predictions": [{"class", "probability"}, ...]}, the likeliest first."""
    pairs = zip(prediction.classes, prediction.probabilities, strict=True)
    listed = [{"class": name, "probability": round(value, 6)} for name, value in pairs]
    return json.dumps({"path": prediction.path, "predictions": listed})


class Table:
    """Predictions for people: a row for each class, the image before its first.

    Args:
        paths: all images, so that the columns are known before the last is classified.
        classnames: all classes.
    """

    def __init__(self, paths: Sequence[str], classnames: Sequence[str]) -> None:
        shown = map(printable, paths)
        self._widths = [
            max(map(len, column)) for column in (("image", *shown), ("class", *classnames))
        ]

    def header(self) -> str:
        """The columns' names, underlined."""
        names = self._row("image", "class", "probability")
        return names + "\n" + "-" * len(names)

    def rows(self, prediction: Prediction) -> str:
        """The rows of one image."""
        images = (printable(prediction.path), *[""] * len(prediction.classes))
        columns = zip(images, prediction.classes, prediction.probabilities, strict=False)
        return "\n".join(self._row(image, name, f"{value:.1%}") for image, name, value in columns)

    def _row(self, path: str, name: str, value: str) -> str:
        return f"{path:{self._widths[0]}}  {name:{self._widths[1]}}  {value:>11}"


def predict_command(arguments: argparse.Namespace) -> int:
    """Classify and print what `predict.py`'s arguments name.

    Returns:
        The exit code: 0, or 1 when an argument stands for no image or an image cannot be read.

    Raises:
        UserError: there are no images at all, or see `load_classifier` and `max_pixels`.
        UserError: the backbone's weights cannot be had.
    """
    max_pixels()  # refuses a wrong limit before anything is printed
    paths, problems = find_images(arguments.images)
    if not paths:
        raise UserError("There is nothing to classify: " + "; ".join(problems))
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
    """Print predictions as they come; those that are errors go to stderr and are returned."""
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
