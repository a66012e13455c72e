"""Trainer for one dataset: data loaders, model, evaluation, records and resuming."""

import datetime
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from safeio.errors import UserError

from ..config import Config
from ..data import DataManager
from ..data.data_manager import set_loader_epoch
from ..evaluation import build_evaluator
from ..utils import choose_device
from ..utils.checkpoint_folder import BEST
from . import interruption
from .base import TrainerBase
from .folder_check import check_tested_folder, resume_folder, resumes_in_place
from .own_state import restore_attributes
from .resuming import Resuming
from .run_files import TENSORBOARD, finished_run
from .run_record import RunRecord
from .settings import source_entries


class SimpleTrainer(TrainerBase):
    """Trainer for one dataset; a subclass defines `build_model` and a training step."""

    resumes_within_epoch = checkpoints_complete = standard_test = True
    cfg: Config
    device: torch.device
    dm: Any = None  # the `DataManager`; `build_data_loader` copies its loaders and numbers
    num_classes = num_source_domains = 0
    lab2cname: dict[int, str]
    model: Any = None
    record: RunRecord  # writes history.jsonl and results.json
    resuming: Resuming  # writes resume.pth.tar
    last_results: dict[str, float]  # of the latest test on cfg.TEST.SPLIT; empty before
    tested_split = ""  # the split of last_results: "test" if validation images are missing
    epoch_means: dict[str, float]  # mean of each metric over the current epoch
    overwrite = False  # replace the run in the folder after the first successful batch
    time_start = 0.0
    on_epoch_end: Callable[[int], None] | None = None  # called with the epoch, to show progress

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.check_cfg(cfg)
        if Path(cfg.OUTPUT_DIR).is_file():
            raise UserError(f"{cfg.OUTPUT_DIR} cannot be a folder: a file with this name exists")
        self.cfg, self.device = cfg, choose_device(cfg)
        self.max_epoch = cfg.OPTIM.MAX_EPOCH
        self.output_dir = self.finite_check.directory = cfg.OUTPUT_DIR
        self.record = RunRecord(self.output_dir)
        self.resuming = Resuming(self)
        self.last_results, self.epoch_means = {}, {}
        self.build_data_loader()
        self.build_model()
        self.evaluator = build_evaluator(cfg, lab2cname=self.lab2cname)

    def check_cfg(self, cfg: Config) -> None:
        """Hook: raise UserError for a configuration that the trainer does not support."""

    def build_data_loader(self) -> None:
        """Create the `DataManager` and copy its loaders and numbers."""
        # Sampled splits are cached, so sampling them must not affect the run's random numbers.
        state = random.getstate()
        self.dm = dm = DataManager(self.cfg)
        random.setstate(state)
        self.train_loader_x, self.train_loader_u = dm.train_loader_x, dm.train_loader_u
        self.val_loader, self.test_loader = dm.val_loader, dm.test_loader
        self.num_classes, self.lab2cname = dm.num_classes, dm.lab2cname
        self.num_source_domains = dm.num_source_domains

    def build_model(self) -> None:
        """Create `self.model` and call `register_model` for each trainable model."""
        raise NotImplementedError("A trainer must define build_model()")

    def check_train(self) -> None:
        """Hook: raise UserError if the run cannot be trained; called before files are written."""
        test = self.cfg.TEST
        if not test.NO_TEST and test.FINAL_MODEL == "best_val" and self.val_loader is None:
            raise UserError(
                f"TEST.FINAL_MODEL best_val needs validation images, and {self.cfg.DATASET.NAME} "
                "has none; give it a validation part or set TEST.FINAL_MODEL last_step, because "
                "the test images must not choose the model"
            )
        if not test.NO_TEST and self.standard_test:
            self.evaluation_set()
        self._check_images("train_x", "train_u", *(() if test.NO_TEST else ("val", "test")))

    def check_evaluation(self) -> None:
        """Raise UserError if the images to test on are missing."""
        self._check_images(self.evaluation_set()[0])

    def _check_images(self, *parts: str) -> None:
        if isinstance(self.dm, DataManager):
            self.dm.check_images(*parts)

    def result_entries(self) -> dict[str, Any]:
        """Hook: return additional entries for results.json."""
        return {}

    def epoch_entries(self) -> dict[str, Any]:
        """Hook: return additional entries for the epoch's line in history.jsonl."""
        return {}

    def export_artifacts(self, directory: str) -> None:
        """Hook: save files for other programs, such as learned prompts, after training."""

    def train(self, start_epoch: int | None = None, max_epoch: int | None = None) -> None:
        """Train, test and write the results; do nothing if the run in cfg.RESUME is finished."""
        for _ in self.training(start_epoch, max_epoch):
            pass

    def training(
        self, start_epoch: int | None = None, max_epoch: int | None = None
    ) -> Iterator[None]:
        """Like `train`; see `TrainerBase.training`.

        Raises:
            UserError: the folder contains another or a finished run; see `claim_folder`.
            FloatingPointError: the training diverged.
            Interrupted: Ctrl-C or SIGTERM within `stopping_on_signals`; the run is saved.
        """
        self.check_train()
        if not self.record.start(self.cfg, self.overwrite):
            return
        resuming = self.resuming
        resuming.load(resume_folder(self.cfg, self.overwrite))
        first = self.start_epoch if start_epoch is None else start_epoch
        last = self.max_epoch if max_epoch is None else max_epoch
        try:
            yield from super().training(resuming.start[0] or first, last)
            self.record.ensure_started()
            self.export_artifacts(self.output_dir)
            origins = {"origins": resuming.origins} if resuming.origins else {}
            self.finish_run(epochs=self.max_epoch, **origins)
        except interruption.Interrupted as stop:
            if not stop.repeated:
                with interruption.deferred():
                    resuming.save()
            stop.saved = resuming.checkpoint.describe(self.max_epoch)
            raise
        finally:
            self.close_writer()  # frees its thread and file in a process that does many runs
        resuming.checkpoint.remove()

    def evaluate(self, model_dir: str = "") -> float:
        """Test the model, which may be of the run in `model_dir`, and write the results.

        Returns:
            Accuracy in percent.

        Raises:
            UserError: images are missing, or the output folder contains another run.
        """
        self.check_evaluation()
        check_tested_folder(self.output_dir, model_dir)
        source = source_entries(model_dir)
        if not self.record.start(self.cfg, self.overwrite, tests=True):
            return float((finished_run(self.output_dir) or {})["accuracy"])
        accuracy = self.test()
        self.finish_run(**source)
        return accuracy

    def finish_run(self, epochs: int = 0, **entries: Any) -> None:
        """Write the results of the last test to results.json; `epochs` is 0 without training."""
        split = {"split": self.tested_split} if self.tested_split else {}
        entries = {**split, **entries, **self.result_entries()}
        data, device = self.resuming.hashes, str(self.device)
        self.record.finish(self.cfg, self.last_results, device, epochs, self.dm, data, entries)

    def state_dict(self) -> dict[str, Any]:
        """Add the settings, changed attributes and the length of the history."""
        return {**super().state_dict(), **self.resuming.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore also the changed attributes."""
        restore_attributes(self, state.get("attributes"))
        super().load_state_dict(state)

    def check_resumed(self, state: dict[str, Any]) -> None:
        """Hook: raise UserError for a checkpoint of another run; called before it is restored."""
        self.resuming.check(state)

    def _begin_training(self) -> None:
        self.resuming.restore()

    def _begin_epoch(self) -> None:
        self.epoch_means = {}
        for loader in (self.train_loader_x, self.train_loader_u):
            set_loader_epoch(loader, self.epoch)  # the order depends only on seed and epoch
        self.resuming.epoch_lr = self._lr_or_none()

    def _record_epoch(self, seconds: float) -> None:
        own = self.epoch_entries()
        self.record.epoch(self.epoch, seconds, self.resuming.epoch_lr, {**self.epoch_means, **own})
        for name, value in own.items():  # TensorBoard needs one scalar per item of a list
            for index, item in enumerate(value if isinstance(value, list) else [value]):
                self.write_scalar(f"{name}/{index}", item, self.epoch)

    def _end_epoch(self) -> None:
        self.resuming.checkpoint_if_due(self.epoch + 1)
        if self.on_epoch_end is not None:
            self.on_epoch_end(self.epoch)

    def _begin_saving(self) -> None:
        self.record.flush()

    def before_train(self) -> None:
        """Open the TensorBoard writer; a checkpoint is restored after this hook."""
        epoch, batches = self.resuming.start
        self.start_epoch = epoch or self.start_epoch
        steps = len(self.train_loader_x) if self.train_loader_x is not None else 0
        board = Path(self.output_dir) / TENSORBOARD
        continues = board.is_dir() and (not self.overwrite or resumes_in_place(self.cfg))
        self.init_writer(board, self.start_epoch * steps + batches if continues else None)
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
            if (result := self.test()) is not None and not self.last_results:
                self.last_results = {"accuracy": float(result)}
        print(f"Elapsed: {datetime.timedelta(seconds=round(time.time() - self.time_start))}")
        self.close_writer()

    def after_epoch(self) -> None:
        """Validate if TEST.FINAL_MODEL is best_val, and save checkpoints."""
        done, frequency = self.epoch + 1, self.cfg.TRAIN.CHECKPOINT_FREQ
        if not self.cfg.TEST.NO_TEST and self.cfg.TEST.FINAL_MODEL == "best_val":
            if (result := self.test(split="val")) > self.best_result:
                self.best_result = result
                self.save_model(self.epoch, self.output_dir, val_result=result, model_name=BEST)
            self.set_model_mode("train")
        if done == self.max_epoch or (frequency > 0 and done % frequency == 0):
            self.save_model(self.epoch, self.output_dir)
            if not self.checkpoints_complete:
                self.resuming.checkpoint.make_due()

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluate on "test" or "val" (default cfg.TEST.SPLIT); return the accuracy in percent."""
        self.set_model_mode("eval")
        self.evaluator.reset()
        requested = split or self.cfg.TEST.SPLIT
        split, loader = self.evaluation_set(requested)
        if requested == "val" and split == "test":
            print("No validation images found: the test images are used instead")
        print(f"Evaluate on the *{split}* set")
        for scores, label in self.predictions(loader):
            self.evaluator.process(scores, label)
        self.record.ensure_started()
        results = self.evaluator.evaluate()
        for name, value in results.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        if self.record.recording:  # not if a user calls test() on a loaded model
            self.record.evaluation(self.epoch, split, results)
        if requested == self.cfg.TEST.SPLIT:
            self.last_results, self.tested_split = dict(results), split
        return float(next(iter(results.values())))

    def evaluation_set(self, split: str | None = None) -> tuple[str, Any]:
        """Return the split to evaluate, "test" if validation images are missing, and its loader.

        Raises:
            UserError: test images are missing.
        """
        if (split or self.cfg.TEST.SPLIT) == "val" and self.val_loader is not None:
            return "val", self.val_loader
        if self.test_loader is not None:
            return "test", self.test_loader
        raise UserError(f"{self.cfg.DATASET.NAME} has no test images")

    def predictions(self, loader: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield logits (batch, classes) and labels (batch,) of all images of a loader."""
        for batch in tqdm(loader, disable=None, leave=False):
            interruption.check()
            inputs, label = self.parse_batch_test(batch)
            yield self.model_inference(inputs), label

    def model_inference(self, input: Any) -> Tensor:
        """Return the model's logits (batch, classes)."""
        return self.model(input)

    def parse_batch_test(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return images and labels on the device."""
        image, label = batch["img"], batch["label"]
        return image.to(self.device, non_blocking=True), label.to(self.device, non_blocking=True)
