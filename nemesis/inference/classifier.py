"""A trained run, loaded: predictions, evaluation, prompts and export."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

from dassl.engine.run_record import METRICS
from dassl.utils import check_availability
from nemesis.image_list import ImageList, Picture
from nemesis.logs import logged
from nemesis.run_config import Name
from safeio.errors import UserError
from trainers.core.features.evaluation import FrozenCLIPTrainer
from trainers.core.lora_trainer import LoRATrainer
from trainers.core.prompt_trainer import PromptTrainer
from trainers.core.two_tower_trainer import TwoTowerTrainer

from .export import check_target, save_classifier
from .load_run import LoadOptions, load_trainer
from .merged_clip import MERGED, save_merged_clip
from .predictions import Prediction, batches, most_probable


def load(
    folder: str | os.PathLike[str],
    classnames: Sequence[str] | None = None,
    epoch: int | None = None,
    device: str | None = None,
    *,
    root: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    ignore_mismatch: bool = False,
    with_data: bool = False,
    method: str | None = None,
    config: Name | None = None,
    dataset: Name | None = None,
    verbose: bool = False,
) -> "Classifier":
    """Load a run that `nemesis.train` or train.py trained; nothing is written to its folder.

    Args:
        folder: the run's folder.
        classnames: classes to use instead of the run's; generic prompts accept any.
        epoch: number of the checkpoint, from 1; None for the best or, without one, the newest.
        device: "cpu", "cuda", "cuda:N", "mps"; None for the run's.
        root: folder of the datasets; None for the run's. Without `with_data`, a dataset is only
            read if the run does not record its class names, as zero-shot runs.
        settings: {"KEY": value} that override the run's.
        ignore_mismatch: accept prompts that were trained with another backbone or other classes.
        with_data: read the run's dataset now, not when it is evaluated.
        method: of the training, for a folder without config.yaml, such as one of CoOp's own code.
        config: likewise; see `nemesis.train`.
        dataset: likewise.
        verbose: print what is logged.

    Raises:
        UserError: the folder contains no run or no such checkpoint, the prompts do not fit, or the
            backbone's weights are missing.
    """
    named = {"DEVICE": device, "DATASET.ROOT": None if root is None else os.fspath(root)}
    overrides = {key: value for key, value in named.items() if value is not None}
    if settings is not None and not isinstance(settings, Mapping):
        raise UserError('settings maps keys to values, such as {"DEVICE": "cpu"}')
    options = LoadOptions(
        epoch, {**overrides, **(settings or {})}, ignore_mismatch, method, config, dataset
    )
    if isinstance(classnames, str) or (classnames is not None and not classnames):
        raise UserError('classnames is a list of names, such as ["cat", "dog"]')
    return Classifier(Path(folder), options, classnames, with_data, verbose)


class Classifier:
    """A trained run; see `load`, which makes it.

    Attributes:
        folder: the run's folder.
        trainer: the loaded trainer, for everything that has no method here.
    """

    def __init__(
        self,
        folder: Path,
        options: LoadOptions,
        classnames: Sequence[str] | None,
        with_data: bool,
        verbose: bool,
    ) -> None:
        self.folder, self._options, self._verbose = folder, options, verbose
        self._classnames = classnames
        self._has_data = with_data and classnames is None
        with logged(verbose):
            self.trainer: FrozenCLIPTrainer = load_trainer(folder, options, classnames, with_data)

    @property
    def classnames(self) -> list[str]:
        """The class names in the order of their labels."""
        return list(self.trainer.dm.dataset.classnames)

    @property
    def text_features(self) -> Float[Tensor, "classes embed"]:
        """The normalised text features W (C, E) in fp32; logits are scale * f @ W^T.

        Raises:
            UserError: the method has no such matrix, as CoCoOp and PLOT.
        """
        with self.trainer.cached_text_features():
            return functional.normalize(self.trainer.class_weights().float(), dim=-1)

    @property
    def context(self) -> Float[Tensor, "*sets length width"]:
        """The learned vectors (L, D); (C, L, D) if class-specific, with P sets (..., P, L, D).

        Of prompts in several layers, these are the text prompts (layers, L, D).

        Raises:
            UserError: the method learns no context vectors.
        """
        return self.prompt_trainer().model.prompt_learner.ctx.detach()

    def prompt_trainer(self) -> PromptTrainer:
        """Return the trainer as that of a method that learns context vectors.

        Raises:
            UserError: the method learns none.
        """
        if not isinstance(self.trainer, PromptTrainer):
            raise UserError(f"{self.trainer.cfg.TRAINER.NAME} learns no prompts")
        return self.trainer

    def use_epoch(self, epoch: int | None) -> None:
        """Load the prompts of another checkpoint of the run.

        Raises:
            UserError: it does not exist or does not fit.
        """
        self._options = replace(self._options, epoch=epoch)
        with logged(self._verbose):
            self.prompt_trainer().load_model(self.folder, epoch=epoch)

    def predict(
        self, images: Picture | Sequence[Picture], top_k: int = 5, batch_size: int | None = None
    ) -> list[list[tuple[str, float]]]:
        """Classify images.

        Args:
            images: paths, PIL images or uint8 arrays (height, width, 3), in a list; or one of them.
            top_k: number of classes per image, at most all.
            batch_size: default: the run's of the test.

        Returns:
            For each image its most probable classes with their probabilities, best first.

        Raises:
            UserError: an image cannot be read, or `top_k` or `batch_size` is below 1.
        """
        one = isinstance(images, str | os.PathLike | Image.Image | np.ndarray)
        found: list[Prediction] = []
        self.each_prediction([images] if one else images, found.append, top_k, batch_size)  # type: ignore[arg-type, list-item]
        for prediction in found:
            if prediction.error:
                raise UserError(prediction.error)
        return [list(prediction.classes) for prediction in found]

    def each_prediction(
        self,
        images: Sequence[Picture],
        show: Callable[[Prediction], None],
        top_k: int = 5,
        batch_size: int | None = None,
    ) -> None:
        """Call `show` for each image in order, batch by batch; see `predict`.

        An image that cannot be read gives a `Prediction` with an error.

        Raises:
            UserError: the model's outputs are NaN or infinite, or an argument is below 1.
        """
        for name, value in (("top_k", top_k), ("batch_size", batch_size)):
            if value is not None and not (isinstance(value, int) and value > 0):
                raise UserError(f"{name} is {value!r}, but must be a whole number above 0")
        names, index = self.classnames, 0
        with self.trainer.cached_text_features():
            for logits, errors in batches(self.trainer, images, batch_size):
                best = iter(most_probable(logits, min(top_k, len(names))))
                for error in errors:
                    found = () if error else next(best)
                    classes = tuple((names[label], value) for value, label in found)
                    show(Prediction(index, classes, error))
                    index += 1

    def evaluate(
        self,
        target_domains: str | Sequence[str] = (),
        dataset: Name | ImageList | None = None,
        split: str | None = None,
    ) -> dict[str, Any]:
        """Test the run without writing results; only caches below the data root are written.

        Args:
            target_domains: domains to test on; default: the run's.
            dataset: another dataset than the run's, see `nemesis.train`. An `ImageList` is tested
                with the classes of this classifier.
            split: "test" or "val"; default: the run's.

        Returns:
            accuracy, macro_f1, error_rate, perclass_accuracy, ece (all in percent), num_test,
            split and dataset.

        Raises:
            UserError: images or a domain are missing, or the prompts do not fit the classes.
        """
        domains = [target_domains] if isinstance(target_domains, str) else list(target_domains)
        with logged(self._verbose):
            if isinstance(dataset, ImageList):
                if domains:
                    raise UserError("An ImageList has no domains; leave target_domains out")
                return self._evaluate_list(dataset, split or "test")
            if self._classnames is not None:
                raise UserError(
                    "This classifier has other classes than the run's dataset; evaluate it with "
                    "dataset=nemesis.ImageList(test=...), or load the run without class names"
                )
            if self._has_data and not (domains or dataset or split):
                trainer: Any = self.trainer
            else:
                own = {"DATASET.TARGET_DOMAINS": domains or None, "TEST.SPLIT": split}
                changes = {key: value for key, value in own.items() if value}
                settings = {**self._options.settings, **changes}
                options = replace(self._options, settings=settings)
                trainer = load_trainer(self.folder, options, with_data=True, dataset=dataset)
            trainer.check_evaluation()
            trainer.test()
            cfg = trainer.cfg
            return _measures(trainer.last_results, trainer.tested_split, cfg.DATASET.NAME)

    def _evaluate_list(self, dataset: ImageList, split: str) -> dict[str, Any]:
        pairs, evaluator = dataset.parts.get(split, []), self.trainer.evaluator  # type: ignore[attr-defined]
        labels = {name: label for label, name in enumerate(self.classnames)}
        for _, name in pairs:
            check_availability(name, list(labels))
        evaluator.reset()
        truth = torch.tensor([labels[name] for _, name in pairs])
        done = 0
        with self.trainer.cached_text_features():
            for logits, errors in batches(self.trainer, [image for image, _ in pairs]):
                if any(errors):
                    raise UserError(next(filter(None, errors)))
                evaluator.process(logits, truth[done : done + len(errors)].to(logits.device))
                done += len(errors)
        return _measures(evaluator.evaluate(), split, "ImageList")

    def export(self, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write text features, scale, class names, preprocessing and vision prompts, if any.

        docs/export.md describes the file, and the merged CLIP that a run of adapters also gives.

        Args:
            path: of the safetensors file, which is written atomically.
            overwrite: replace an existing file.

        Raises:
            UserError: the file exists, its folder cannot be written to, the preprocessing is not a
                standard one, or the method has no `text_features`.
        """
        trainer, path = self.trainer, Path(path)
        check_target(path, overwrite)
        if isinstance(trainer, LoRATrainer):
            save_merged_clip(trainer, path.parent / MERGED, overwrite)
        prompts = trainer.vision_prompts() if isinstance(trainer, TwoTowerTrainer) else None
        return save_classifier(trainer, self.text_features, path, overwrite, prompts)


def _measures(results: Mapping[str, Any], split: str, dataset: str) -> dict[str, Any]:
    measures = {name: results.get(name) for name in METRICS}
    return {**measures, "num_test": results.get("total"), "split": split, "dataset": dataset}
