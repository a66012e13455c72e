"""Trainers that build data, model and evaluator from a configuration and run to the end."""

import datetime
import importlib
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from safeio.errors import UserError
from safeio.files import prepare_output_dir

from ..data import DataManager
from ..data.data_manager import set_loader_epoch
from ..evaluation import build_evaluator
from ..utils import AverageMeter, MetricMeter, choose_device
from . import interruption
from .base import TrainerBase
from .folder_check import (
    FolderState,
    check_tested_folder,
    claim_folder,
    resume_folder,
    resumes_in_place,
)
from .provenance import provenance
from .resumable import ResumableTrainer
from .run_files import TENSORBOARD, run_files
from .run_record import RunRecord, finished_run, source_entries

__all__ = ["SimpleTrainer", "TrainerBase", "TrainerX"]

# Dassl has these here, too; only those who want them pay for their imports.
_ELSEWHERE = {
    "SimpleNet": "dassl.engine.simple_net",
    "SummaryWriter": "torch.utils.tensorboard",
    "TrainerXU": "dassl.engine.trainer_xu",
}


def __getattr__(name: str) -> Any:
    """Import what stands elsewhere."""
    if name not in _ELSEWHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_ELSEWHERE[name]), name)


class SimpleTrainer(ResumableTrainer):
    """Everything around the training of one model on one dataset.

    A subclass gives `build_model` (which sets `self.model` and calls `register_model`) and
    `forward_backward`.

    Attributes:
        cfg: the configuration.
        device: where the model is.
        dm: the `DataManager`, whose loaders and numbers are attributes here, too.
        record: writes history.jsonl and results.json.
        last_results: results of the latest test on cfg.TEST.SPLIT, empty before.
        tested_split: which images that were, "test" where there are no validation images.
        epoch_means: means of the present epoch's metrics.
        overwrite: replace the run in the folder, when the first batch has succeeded.
    """

    resumes_within_epoch = True
    overwrite = False

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.check_cfg(cfg)
        if Path(cfg.OUTPUT_DIR).is_file():
            raise UserError(f"{cfg.OUTPUT_DIR} cannot be a folder: a file stands in its way")
        self.device = choose_device(cfg)
        self.cfg = cfg
        self.start_epoch = self.epoch = 0
        self.max_epoch = cfg.OPTIM.MAX_EPOCH
        self.output_dir = cfg.OUTPUT_DIR
        self.record = RunRecord(self.output_dir)
        self.last_results: dict[str, float] = {}
        self.tested_split = ""
        self.epoch_means: dict[str, float] = {}
        self.model: Any = None
        self.build_data_loader()
        self.build_model()
        self.evaluator = build_evaluator(cfg, lab2cname=self.lab2cname)

    def check_cfg(self, cfg: Any) -> None:
        """Hook: refuse a configuration that the trainer cannot work with."""

    def build_data_loader(self) -> None:
        """Create the `DataManager` and take over its loaders and numbers."""
        # Lists are drawn once and kept. What a run draws must not depend on who drew them.
        drawn = random.getstate()
        dm = DataManager(self.cfg)
        random.setstate(drawn)
        self.train_loader_x = dm.train_loader_x
        self.train_loader_u = dm.train_loader_u
        self.val_loader = dm.val_loader
        self.test_loader = dm.test_loader
        self.num_classes = dm.num_classes
        self.num_source_domains = dm.num_source_domains
        self.lab2cname = dm.lab2cname
        self.dm = dm

    def build_model(self) -> None:
        """Create `self.model` and register what learns."""
        raise NotImplementedError("A trainer builds its model in build_model()")

    def check_train(self) -> None:
        """Hook: refuse to train what cannot be trained, before anything is written over.

        Raises:
            UserError: images are missing, there are none to test on, or none to select on.
        """
        test = self.cfg.TEST
        if not test.NO_TEST and test.FINAL_MODEL == "best_val" and self.val_loader is None:
            raise UserError(
                f"TEST.FINAL_MODEL best_val needs validation images, and {self.cfg.DATASET.NAME} "
                "has none; give it a validation part or set TEST.FINAL_MODEL last_step, because "
                "the test images must not choose the model"
            )
        if not test.NO_TEST and type(self).test is SimpleTrainer.test:
            self.evaluation_set()
        self._check_images("train_x", "train_u", *(() if test.NO_TEST else ("val", "test")))

    def check_evaluation(self) -> None:
        """Refuse to test on images that are not there, before anything is written over.

        Raises:
            UserError: images are missing, or there are none.
        """
        split, _ = self.evaluation_set()
        self._check_images(split)

    def _check_images(self, *parts: str) -> None:
        if isinstance(dm := getattr(self, "dm", None), DataManager):
            dm.check_images(*parts)

    def result_entries(self) -> dict[str, Any]:
        """Hook: further entries for results.json."""
        return {}

    def epoch_entries(self) -> dict[str, Any]:
        """Hook: further entries for an epoch's line in history.jsonl."""
        return {}

    def export_artifacts(self, directory: str) -> None:
        """Hook: save what others may want to use, such as learned prompts, after training."""

    def train(self, start_epoch: int | None = None, max_epoch: int | None = None) -> None:
        """Train, test and write the results.

        A run that is finished already in cfg.RESUME is left alone.

        Raises:
            UserError: the folder holds another run, or this one finished; see `claim_folder`.
            Interrupted: Ctrl-C or SIGTERM, where `stopping_on_signals`; what can be is saved.
        """
        self.check_train()
        if self.claim_folder() is FolderState.FINISHED:
            return
        self.find_point(resume_folder(self.cfg, self.overwrite))
        try:
            super().train(
                self.resumed_epoch() or (self.start_epoch if start_epoch is None else start_epoch),
                self.max_epoch if max_epoch is None else max_epoch,
            )
            self.record.write_beginning()
            self.export_artifacts(self.output_dir)
            self.finish_run(epochs=self.max_epoch, **self.origin_entries())
        except interruption.Interrupted as stop:
            if not stop.hurry:
                with interruption.deferred():
                    self.save_point()
            stop.point = self.saved_point
            raise
        finally:
            self.close_writer()  # a process that does many runs would keep its thread and its file
        self.forget_points()

    def claim_folder(self, tests: bool = False) -> FolderState:
        """Refuse to write over another run, and begin the record; see `claim_folder`.

        Nothing is written or removed before the first batch, or test, has succeeded.
        """
        found = claim_folder(self.cfg, self.overwrite, tests)
        if found is FolderState.FINISHED:
            print(f"{self.output_dir} holds this run, and it is finished")
            return found
        prepare_output_dir(self.output_dir)
        replaces = self.overwrite and not resumes_in_place(self.cfg)
        self.record.begin(self.cfg, run_files(self.output_dir) if replaces else ())
        return found

    def evaluate(self, model_dir: str = "") -> float:
        """Test the model as it is, without training, and write the results.

        Args:
            model_dir: folder of the run whose model was loaded; the results say which it was.

        Returns:
            Accuracy in percent.

        Raises:
            UserError: the folder holds another run, or is that of the tested one.
        """
        self.check_evaluation()
        check_tested_folder(self.output_dir, model_dir)
        source = source_entries(model_dir)
        if self.claim_folder(tests=True) is FolderState.FINISHED:
            return float((finished_run(self.output_dir) or {})["accuracy"])
        accuracy = self.test()
        self.finish_run(**source)
        return accuracy

    def finish_run(self, epochs: int = 0, **entries: Any) -> dict[str, Any]:
        """Write results.json from the last test; after an evaluation alone, `epochs` is 0."""
        dm = getattr(self, "dm", None)
        origin = provenance(str(self.device), getattr(dm, "dataset", None))
        found = {
            "skipped_images": getattr(dm, "skipped_images", 0),
            "split_check": getattr(dm, "split_check", {}),
        }
        if self.tested_split:
            found["split"] = self.tested_split
        entries = {**found, **entries, **self.result_entries()}
        entries["provenance"] = origin
        return self.record.finish(self.cfg, self.last_results, str(self.device), epochs, entries)

    def enter_epoch(self) -> None:
        """Give the samplers the epoch, so that its order depends on nothing else."""
        self.epoch_means = {}
        for loader in (self.train_loader_x, self.train_loader_u):
            set_loader_epoch(loader, self.epoch)
        self._epoch_lr = self._lr_or_none()

    def leave_epoch(self, seconds: float) -> None:
        """Record the epoch, in TensorBoard a list (of the prompt's positions, say) item by item."""
        own = self.epoch_entries()
        self.record.epoch(self.epoch, seconds, self._epoch_lr, {**self.epoch_means, **own})
        for name, value in own.items():
            items = value if isinstance(value, list) else [value]
            for index, item in enumerate(items):
                self.write_scalar(f"{name}/{index}", item, self.epoch)

    def _lr_or_none(self) -> float | None:
        return self.get_current_lr() if any(o is not None for o in self._optims.values()) else None

    def before_train(self) -> None:
        """Open the records; what is resumed has been found before, and is put back afterwards."""
        self.start_epoch = self.resumed_epoch() or self.start_epoch
        steps = len(self.train_loader_x) if self.train_loader_x is not None else 0
        board = Path(self.output_dir) / TENSORBOARD
        continues = board.is_dir() and (not self.overwrite or resumes_in_place(self.cfg))
        self.init_writer(
            board,
            purge_step=self.start_epoch * steps + self.batches_behind() if continues else None,
        )
        self.time_start = time.time()

    def after_train(self) -> None:
        """Test the final model."""
        print("Finish training")
        if not self.cfg.TEST.NO_TEST:
            if self.cfg.TEST.FINAL_MODEL == "best_val":
                print("Deploy the model with the best val performance")
                self.load_model(self.output_dir)
            else:
                print("Deploy the last-epoch model")
            result = self.test()
            if not self.last_results and result is not None:
                self.last_results = {"accuracy": float(result)}
        elapsed = datetime.timedelta(seconds=round(time.time() - self.time_start))
        print(f"Elapsed: {elapsed}")
        self.close_writer()

    def after_epoch(self) -> None:
        """Validate where the best model is wanted, and save."""
        last_epoch = self.epoch + 1 == self.max_epoch
        frequency = self.cfg.TRAIN.CHECKPOINT_FREQ
        if not self.cfg.TEST.NO_TEST and self.cfg.TEST.FINAL_MODEL == "best_val":
            result = self.test(split="val")
            if result > self.best_result:
                self.best_result = result
                self.save_model(
                    self.epoch, self.output_dir, val_result=result, model_name="model-best.pth.tar"
                )
            self.set_model_mode("train")
        if last_epoch or (frequency > 0 and (self.epoch + 1) % frequency == 0):
            self.save_model(self.epoch, self.output_dir)
            if self.has_own_after_epoch():
                self.save_soon()

    def has_own_after_epoch(self) -> bool:
        """Whether a subclass does something after an epoch's checkpoint, which does not hold it."""
        return type(self).after_epoch is not SimpleTrainer.after_epoch

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluate on the test or the validation set.

        Args:
            split: "test" or "val"; default cfg.TEST.SPLIT. Without validation images, "test".

        Returns:
            The first of the evaluator's results: accuracy in percent.

        Raises:
            UserError: there are no test images.
        """
        self.set_model_mode("eval")
        self.evaluator.reset()
        wanted = split or self.cfg.TEST.SPLIT
        split, loader = self.evaluation_set(wanted)
        if wanted == "val" and split == "test":
            print("There are no validation images: the test images take their place")
        print(f"Evaluate on the *{split}* set")
        for scores, label in self.predictions(loader):
            self.evaluator.process(scores, label)
        self.record.write_beginning()
        results = self.evaluator.evaluate()
        for name, value in results.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        if self.record.recording:  # not where somebody tests a model that was loaded
            self.record.evaluation(self.epoch, split, results)
        if wanted == self.cfg.TEST.SPLIT:
            self.last_results = dict(results)
            self.tested_split = split
        return float(next(iter(results.values())))

    def evaluation_set(self, split: str | None = None) -> tuple[str, Any]:
        """The images of a test and which they are: "test", or "val" where there are such.

        Args:
            split: what is wanted; default cfg.TEST.SPLIT.

        Raises:
            UserError: there are no test images.
        """
        if (split or self.cfg.TEST.SPLIT) == "val" and self.val_loader is not None:
            return "val", self.val_loader
        if self.test_loader is None:
            raise UserError(f"{self.cfg.DATASET.NAME} has no test images")
        return "test", self.test_loader

    def predictions(self, loader: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield scores (batch, classes) and labels (batch,) of all images of a loader."""
        for batch in tqdm(loader, disable=None, leave=False):
            interruption.check()
            inputs, label = self.parse_batch_test(batch)
            yield self.model_inference(inputs), label

    def model_inference(self, input: Any) -> Tensor:
        """Return the model's scores (batch, classes)."""
        return self.model(input)

    def parse_batch_test(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return images and labels on the device."""
        image, label = batch["img"], batch["label"]
        return image.to(self.device, non_blocking=True), label.to(self.device, non_blocking=True)


class TrainerX(SimpleTrainer):
    """Trains on labelled images alone."""

    resumes_within_epoch = True

    def check_train(self) -> None:
        """Make sure that there is something to train on.

        Raises:
            UserError: the dataset is for testing alone, or see `SimpleTrainer.check_train`.
        """
        self._check_loader()
        super().check_train()

    def _check_loader(self) -> None:
        if self.train_loader_x is None:
            raise UserError(
                f"{self.cfg.DATASET.NAME} has no training images; test a model that was trained on "
                "another dataset with --eval-only --model-dir DIR"
            )

    def run_epoch(self) -> None:
        """Go through the labelled training images once.

        Raises:
            UserError: there are no training images.
            FloatingPointError: the loss is not finite.
        """
        self._check_loader()
        self.run_batches(self.train_loader_x, self.forward_backward)

    def run_batches(self, loader: Any, learn: Callable[[Any], dict[str, Any] | None]) -> None:
        """Learn from every batch of a loader, printing the familiar lines.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        self.set_model_mode("train")
        losses = MetricMeter()
        batch_time, data_time = AverageMeter(), AverageMeter()
        self.num_batches = len(loader)
        frequency = self.cfg.TRAIN.PRINT_FREQ
        behind = self.enter_batches(losses)
        end = time.time()
        for batch_idx, batch in self.batches_from(loader, behind):
            self.batch_idx = batch_idx
            self.batch_files = batch.get("impath", ()) if isinstance(batch, dict) else ()
            data_time.update(time.time() - end)
            losses.update(learn(batch))
            # What is printed is read from the device, so only now and then.
            last = self.batch_idx + 1 == self.num_batches
            shown = (self.batch_idx + 1) % frequency == 0 or self.num_batches < frequency
            if shown or last:
                self._check_means(losses)
            batch_time.update(time.time() - end)
            if shown:
                self._print_progress(losses, batch_time, data_time)
            if shown or last:
                self._write_progress(losses)
            self.reach(self.epoch, batch_idx + 1, losses)
            end = time.time()
        self.epoch_means = losses.averages()

    def _check_means(self, losses: MetricMeter) -> None:
        self.check_losses()
        if "loss" in losses.meters:
            # Catches trainers that do not go through model_backward().
            self.detect_anomaly(torch.tensor(losses.meters["loss"].avg))

    def _print_progress(
        self, losses: MetricMeter, batch_time: AverageMeter, data_time: AverageMeter
    ) -> None:
        left = self.num_batches - self.batch_idx - 1
        left += (self.max_epoch - self.epoch - 1) * self.num_batches
        eta = datetime.timedelta(seconds=int(batch_time.avg * left))
        lr = self._lr_or_none()
        parts = [
            f"epoch [{self.epoch + 1}/{self.max_epoch}]",
            f"batch [{self.batch_idx + 1}/{self.num_batches}]",
            f"time {batch_time.val:.3f} ({batch_time.avg:.3f})",
            f"data {data_time.val:.3f} ({data_time.avg:.3f})",
            str(losses),
            f"lr {lr:.4e}" if lr is not None else "",
            f"eta {eta}",
        ]
        print(" ".join(part for part in parts if part))

    def _write_progress(self, losses: MetricMeter) -> None:
        step = self.epoch * self.num_batches + self.batch_idx
        for name, mean in losses.averages().items():
            self.write_scalar(f"train/{name}", mean, step)
        lr = self._lr_or_none()
        if lr is not None:
            self.write_scalar("train/lr", lr, step)

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, ...]:
        """Return images, labels and domains on the device."""
        names = ("img", "label", "domain")
        return tuple(batch[name].to(self.device, non_blocking=True) for name in names)
