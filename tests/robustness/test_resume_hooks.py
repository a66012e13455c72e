"""A method with hooks and state of its own resumes as if it had not been killed, whatever it does.

A killed run here is one that raises after a batch or an epoch, when everything due is on the disk.
"""

import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from dassl.engine import TRAINER_REGISTRY, finished_run, resume_checkpoint
from dassl.engine.own_state import changed_attributes
from dassl.engine.resuming import Resuming
from dassl.engine.run_record import read_history
from dassl.utils import load_checkpoint, reuse_loaded
from tests.golden.harness import golden_trainer
from tests.helpers.dassl_toy import ToyTrainer, make_images, registered, toy_config
from tests.runs.test_dassl_resume import same_state
from trainers.coop import CoOp
from trainers.nemesis_trainer import NemesisMixin

# Every method of a trainer that a training calls and a third party may override.
HOOKS = (
    *("before_train", "before_epoch", "run_epoch", "forward_backward", "parse_batch_train"),
    *("model_zero_grad", "model_backward", "model_update", "update_lr", "after_epoch"),
    *("test", "after_train", "epoch_entries", "result_entries"),
)
PROMPT_HOOKS = (*(h for h in HOOKS if h not in ("model_backward", "model_update")), "loss")
PROMPT_HOOKS += ("penalty", "features_and_labels", "position_norms")


class Killed(BaseException):
    """The end of the process."""


def parameter_of(trainer: Any) -> torch.Tensor:
    (name, *_) = trainer.get_model_names()
    return next(trainer._models[name].parameters())


def with_hook(base: type, hook: str, *mixins: type) -> type:
    """A class that counts, draws and changes what is learned in one hook, behind its own."""

    def own(self: Any, *arguments: Any, **named: Any) -> Any:
        found = getattr(super(made, self), hook)(*arguments, **named)
        self.count = getattr(self, "count", 0) + 1
        self.seen = [*getattr(self, "seen", [])[-3:], float(torch.rand(()))]
        parameter_of(self).data.mul_(1 - 0.001 * self.count * self.seen[-1])
        return found

    made = type("Hooked", (base,), {hook: own})
    return type("Own", (*mixins, made), {}) if mixins else made


@contextmanager
def killed_after(reached: int) -> Iterator[None]:
    """Let a run die at the nth place where it may save, and save wherever it may."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resume_checkpoint, "SAVE_SECONDS", 0.0)
        patch.setattr(resume_checkpoint, "SAVE_SHARE", 1e9)
        left, save = [reached], Resuming.checkpoint_if_due

        def save_and_die(self: Any, *arguments: Any) -> None:
            save(self, *arguments)
            left[0] -= 1
            if not left[0]:
                raise Killed

        patch.setattr(Resuming, "checkpoint_if_due", save_and_die)
        yield


def outcome(trainer: Any, name: str) -> dict[str, Any]:
    """All that a run has come to, without times."""
    folder = Path(trainer.output_dir)
    history = [{k: v for k, v in e.items() if k != "seconds"} for e in read_history(folder)]
    results = finished_run(folder) or {}
    state = load_checkpoint(folder / name / f"model.pth.tar-{trainer.max_epoch}")
    del state["random_states"]["python"]  # the checker of types draws what it looks at
    return {
        "history": history,
        "accuracy": results["accuracy"],
        "state": state,
        "own": [getattr(trainer, "count", None), getattr(trainer, "seen", None)],
    }


def resumed_equals_whole(make: Any, name: str, folder: Path, kills: tuple[int, ...]) -> None:
    """Train in one go, and with a kill at each of several places; all must end alike."""
    whole = make(folder / "whole")
    whole.train()
    for reached in kills:
        with pytest.raises(Killed), killed_after(reached):
            make(folder / str(reached)).train()
        resumed = make(folder / str(reached))
        resumed.train()
        first, second = outcome(whole, name), outcome(resumed, name)
        for part, content in first.items():
            assert same_state(content, second[part]), (part, reached)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("hook", HOOKS)
def test_a_trainer_of_dassl_with_state_of_its_own(hook: str, root: Path, tmp_path: Path) -> None:
    """Killed in the first epoch, within and between later ones, with checkpoints and validation."""
    trainer_class = with_hook(ToyTrainer, hook)
    opts = ("TRAIN.CHECKPOINT_FREQ", "2", "TEST.FINAL_MODEL", "best_val", "VERBOSE", "False")

    def make(output: Path) -> Any:
        torch.manual_seed(3)
        return trainer_class(toy_config(root, output, *opts))

    with registered():
        resumed_equals_whole(make, "toy", tmp_path, (2, 5, 8, 10, 19))


class Queued(ToyTrainer):
    """Has state in an object of its own, and says how to save it."""

    resumes_within_epoch = True

    def before_train(self) -> None:
        super().before_train()
        self.queue = deque([0.0], maxlen=3)

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, Any]:
        self.queue.append(float(torch.rand(())))
        parameter_of(self).data.mul_(1 - 0.001 * sum(self.queue))
        return super().forward_backward(batch)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "queue": list(self.queue)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.queue.extend(state["queue"])


def test_state_in_objects_by_pytorchs_pair(root: Path, tmp_path: Path) -> None:
    def make(output: Path) -> Any:
        torch.manual_seed(3)
        return Queued(toy_config(root, output, "VERBOSE", "False"))

    with registered():
        resumed_equals_whole(make, "toy", tmp_path, (2, 5, 8))


def tiny(trainer_class: type, folder: Path, output: Path, epochs: int) -> Any:
    """A CoOp or CoOpNemesis run on a golden model with two prompt vectors and two batches."""
    opts = {
        "OUTPUT_DIR": str(output),
        "OPTIM.MAX_EPOCH": epochs,
        "DATALOADER.TRAIN_X.BATCH_SIZE": 2,
        "TRAINER.COOP.N_CTX": 2,
        "TRAINER.NEMESIS.BETA": 0.5,
        "TRAINER.NEMESIS.N": 1,
        "TEST.NO_FEATURE_CACHE": True,
        "VERBOSE": False,
    }
    with registered(trainer_class):
        torch.manual_seed(1)
        flat = [item for pair in opts.items() for item in pair]
        return golden_trainer(trainer_class.__name__, "vit", folder, *flat)


class Shrink(CoOp):
    """README's own method."""

    def before_epoch(self) -> None:
        super().before_epoch()
        self.model.prompt_learner.ctx.data.mul_(0.9)


class ShrinkNemesis(NemesisMixin, Shrink):
    """And its Nemesis variant."""


class ShrinkDeclared(Shrink):
    """Says that it gathers nothing within an epoch, which is true."""

    resumes_within_epoch = True


class ShrinkDeclaredNemesis(NemesisMixin, ShrinkDeclared):
    pass


@pytest.mark.parametrize(
    "trainer_class", [Shrink, ShrinkNemesis, ShrinkDeclared, ShrinkDeclaredNemesis]
)
def test_readmes_method_killed_inside_an_epoch(trainer_class: type, tmp_path: Path) -> None:
    def make(output: Path) -> Any:
        return tiny(trainer_class, tmp_path, output, 3)

    with reuse_loaded():
        resumed_equals_whole(make, "prompt_learner", tmp_path, (1, 4, 6, 8))


ORDERS = ("alone", "mixin in the method", "twice")


@pytest.mark.parametrize(
    ("hook", "order"),
    [(h, "mixin first") for h in PROMPT_HOOKS]
    + [(h, order) for h in ("before_epoch", "loss") for order in ORDERS],
)
def test_a_prompt_method_with_state_of_its_own(hook: str, order: str, tmp_path: Path) -> None:
    if order == "mixin in the method":
        trainer_class = with_hook(type("Base", (NemesisMixin, CoOp), {}), hook)
    elif order == "twice":
        trainer_class = with_hook(with_hook(CoOp, hook, NemesisMixin), "before_epoch")
    else:
        trainer_class = with_hook(CoOp, hook, *([NemesisMixin] * (order == "mixin first")))

    def make(output: Path) -> Any:
        return tiny(trainer_class, tmp_path, output, 2)

    with reuse_loaded():
        resumed_equals_whole(make, "prompt_learner", tmp_path, (2, 4))


def test_what_resumes_within_epochs() -> None:
    """A body with a hook decides, for its subclasses, too, whatever stands beside it."""

    class Plain:
        def before_epoch(self) -> None:
            """No trainer, but mixed into one."""

    class Logs(CoOp):
        def after_epoch(self) -> None:
            """Between epochs."""

    class Says(Shrink):
        def state_dict(self) -> dict[str, Any]:
            return super().state_dict()

        def before_epoch(self) -> None:
            pass

    def made(*bases: type) -> bool:
        return bool(getattr(type("Made", bases, {}), "resumes_within_epoch"))  # noqa: B009

    assert made(CoOp) and made(NemesisMixin, CoOp) and made(NemesisMixin, Logs)
    assert made(ShrinkDeclared) and made(NemesisMixin, ShrinkDeclared)
    assert not made(Shrink) and not made(ShrinkNemesis) and not made(ToyTrainer)
    assert not made(Shrink, NemesisMixin)
    assert not made(Plain, CoOp)
    assert not made(NemesisMixin, Plain, CoOp)
    assert not made(Says)  # what it says of itself is not true of its base


@pytest.mark.parametrize("name", ["CoOp", "CoCoOp", "PLOT", "CoOpNemesis", "PLOTNemesis"])
def test_our_methods_keep_no_state_in_attributes(name: str) -> None:
    """They resume within epochs, so the engine must not take anything else for their state."""
    assert TRAINER_REGISTRY.get(name).resumes_within_epoch


def test_only_state_is_saved(tmp_path: Path) -> None:
    with reuse_loaded():
        trainer = tiny(type("N", (NemesisMixin, CoOp), {}), tmp_path, tmp_path / "run", 1)
        trainer.train()
    assert set(changed_attributes(trainer, trainer.resuming.attributes)["values"]) == {
        "_selections"
    }
    settings = json.loads(
        load_checkpoint(tmp_path / "run/prompt_learner/model.pth.tar-1")["settings"]
    )
    assert settings["SEED"] == 1
    assert "OUTPUT_DIR" not in settings
