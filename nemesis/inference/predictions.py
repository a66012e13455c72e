"""Logits and most probable classes of any images under a loaded run."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm import tqdm

from dassl.data.data_manager import EndingLoader
from dassl.data.images import AS_VIEWED, decoding, max_pixels, read_image
from nemesis.image_list import Picture, to_image
from nemesis.logs import hides_progress
from safeio.errors import UserError
from trainers.core.features.evaluation import FrozenCLIPTrainer


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of an image.

    Attributes:
        index: of the image among those passed.
        classes: pairs of a class and its probability among all classes, most probable first.
        error: why the image could not be read; "" if it could.
    """

    index: int
    classes: tuple[tuple[str, float], ...] = ()
    error: str = ""


def batches(
    trainer: FrozenCLIPTrainer, images: Sequence[Picture], batch_size: int | None = None
) -> Iterator[tuple[Any, list[str]]]:
    """Yield the logits (B, C) of each batch's readable images and the error of every image.

    The caller opens `trainer.cached_text_features()`. Without readable images, the logits are None.
    """
    loader = _loader(trainer, list(images), batch_size)
    with tqdm(total=len(images), unit="image", disable=hides_progress(), leave=False) as bar:
        for batch, errors in loader:
            logits = None
            if batch is not None:
                logits = trainer.model_inference(batch.to(trainer.device, non_blocking=True))
            yield logits, errors
            bar.update(len(errors))


class _Pictures(Dataset[dict[str, Any]]):
    """Images with a run's test transform; one that cannot be read gives an error item.

    They are decoded as own images (upright, white behind transparency), whatever dataset the run
    was trained on, unless INPUT.DECODE overrides it.
    """

    def __init__(self, trainer: FrozenCLIPTrainer, images: Sequence[Picture]) -> None:
        max_pixels()  # raises for an invalid limit here rather than at the first image
        self.images, self.transform = images, trainer.dm.tfm_test
        self.decode = decoding(trainer.cfg, own=True)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        picture = self.images[index]
        try:
            if isinstance(picture, str | os.PathLike):
                image = read_image(os.fspath(picture), self.decode)
            else:
                image = to_image(picture, self.decode == AS_VIEWED)
        except UserError as error:
            return {"error": str(error)}
        return {"img": self.transform(image), "error": ""}


def _loader(
    trainer: FrozenCLIPTrainer, images: Sequence[Picture], batch_size: int | None
) -> DataLoader[Any]:
    settings = trainer.cfg.DATALOADER
    size = batch_size or settings.TEST.BATCH_SIZE
    return EndingLoader(
        _Pictures(trainer, images),
        batch_size=size,
        # Starting a process takes longer than reading a few images.
        num_workers=min(settings.NUM_WORKERS, os.cpu_count() or 1, len(images) // (4 * size)),
        collate_fn=_collate,
        pin_memory=trainer.device.type == "cuda",
    )


def _collate(items: list[dict[str, Any]]) -> tuple[Tensor | None, list[str]]:
    """Return the readable images as one tensor, and every item's error."""
    images = [item["img"] for item in items if not item["error"]]
    return default_collate(images) if images else None, [item["error"] for item in items]


def most_probable(logits: Tensor | None, count: int) -> list[list[tuple[float, int]]]:
    """Return for each row of logits (B, C) the most probable labels, as (probability, label).

    Raises:
        UserError: a logit is NaN or infinite.
    """
    if logits is None:
        return []
    probabilities = logits.float().softmax(dim=1)
    if not probabilities.isfinite().all():
        raise UserError(
            "The model's outputs are NaN or infinite, so they give no prediction; check the run's "
            "checkpoint and its precision (fp32 has the largest range)"
        )
    rows = zip(*(part.tolist() for part in probabilities.topk(count, dim=1)), strict=True)
    return [list(zip(*row, strict=True)) for row in rows]
