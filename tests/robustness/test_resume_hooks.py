"""A third-party method with its own hooks and state resumes like an uninterrupted run.

A killed run raises after a batch or an epoch, when everything due is on the disk.
"""

import json
from collections import deque
from pathlib import Path
from typing import Any

import pytest
import torch

from dassl.engine import TRAINER_REGISTRY, finished_run
from dassl.engine.own_state import changed_attributes
from dassl.engine.run_record import read_history
from dassl.utils import load_checkpoint, reuse_loaded
from tests.golden.harness import golden_trainer
from tests.helpers.dassl_toy import ToyTrainer, registered, toy_config
from tests.helpers.killing import Killed, killed_after, same_state
from trainers.coop import CoOp
from trainers.nemesis_trainer import NemesisMixin

# Every method of a trainer that training calls and a third party may override.
HOOKS = (
    *("before_train", "before_epoch", "run_epoch", "forward_backward", "parse_batch_train"),
    *("model_zero_grad", "model_backward", "model_update", "update_lr", "after_epoch"),
    *("test", "after_train", "epoch_entries", "result_entries"),
)
PROMPT_HOOKS = (*(h for h in HOOKS if h not in ("model_backward", "model_update")), "loss")
PROMPT_HOOKS += ("penalty", "features_and_labels")
QUICK = ("before_epoch", "forward_backward", "after_epoch")


def parameter_of(trainer: Any) -> torch.Tensor:
    (name, *_) = trainer.get_model_names()
    return next(trainer._models[name].parameters())


def with_hook(base: type, hook: str, *mixins: type) -> type:
    """A class that counts, draws and changes the learned parameter after its base's hook."""

    def own(self: Any, *arguments: Any, **named: Any) -> Any:
        found = getattr(super(made, self), hook)(*arguments, **named)
        self.count = getattr(self, "count", 0) + 1
        self.seen = [*getattr(self, "seen", [])[-3:], float(torch.rand(()))]
        parameter_of(self).data.mul_(1 - 0.001 * self.count * self.seen[-1])
        return found

    made = type("Hooked", (base,), {hook: own})
    return type("Own", (*mixins, made), {}) if mixins else made


def outcome(trainer: Any, name: str) -> dict[str, Any]:
    """Everything that a run has produced, without times."""
    folder = Path(trainer.output_dir)
    state = load_checkpoint(folder / name / f"model.pth.tar-{trainer.max_epoch}")
    del state["random_states"]["python"]  # the checker of types draws from it
    return {
        "history": [{k: v for k, v in e.items() if k != "seconds"} for e in read_history(folder)],
        "accuracy": (finished_run(folder) or {})["accuracy"],
        "state": state,
        "own": [getattr(trainer, "count", None), getattr(trainer, "seen", None)],
    }


def assert_resumes(make: Any, name: str, folder: Path, kills: tuple[int, ...]) -> None:
    """Train uninterrupted, and with a kill at each of several places; all must end alike."""
    whole = make(folder / "whole")
    whole.train()
    first = outcome(whole, name)
    for reached in kills:
        with pytest.raises(Killed), killed_after(reached):
            make(folder / str(reached)).train()
        resumed = make(folder / str(reached))
        resumed.train()
        second = outcome(resumed, name)
        for part, content in first.items():
            assert same_state(content, second[part]), (part, reached)


def slow_unless(quick: bool, *values: str) -> Any:
    return pytest.param(*values, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize("hook", [slow_unless(hook in QUICK, hook) for hook in HOOKS])
def test_a_dassl_trainer_with_its_own_state_resumes(hook: str, root: Path, tmp_path: Path) -> None:
    """Killed in the first epoch, within and between later ones, with checkpoints and validation."""
    trainer_class = with_hook(ToyTrainer, hook)
    opts = ("TRAIN.CHECKPOINT_FREQ", "2", "TEST.FINAL_MODEL", "best_val", "VERBOSE", "False")

    def make(output: Path) -> Any:
        torch.manual_seed(3)
        return trainer_class(toy_config(root, output, *opts))

    with registered():
        assert_resumes(make, "toy", tmp_path, (2, 5, 8, 10, 19))


class Queued(ToyTrainer):
    """Has state in its own object, and saves it by PyTorch's pair of methods."""

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


def test_state_dict_saves_state_in_objects(root: Path, tmp_path: Path) -> None:
    def make(output: Path) -> Any:
        torch.manual_seed(3)
        return Queued(toy_config(root, output, "VERBOSE", "False"))

    with registered():
        assert_resumes(make, "toy", tmp_path, (2, 5, 8))


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
    """The method of the documentation."""

    def before_epoch(self) -> None:
        super().before_epoch()
        self.model.prompt_learner.ctx.data.mul_(0.9)


class ShrinkNemesis(NemesisMixin, Shrink):
    """Its Nemesis variant."""


class ShrinkDeclared(Shrink):
    """Declares, correctly, that it accumulates nothing within an epoch."""

    resumes_within_epoch = True


class ShrinkDeclaredNemesis(NemesisMixin, ShrinkDeclared):
    pass


@pytest.mark.parametrize(
    "trainer_class", [Shrink, ShrinkNemesis, ShrinkDeclared, ShrinkDeclaredNemesis]
)
def test_the_documented_method_killed_inside_an_epoch(trainer_class: type, tmp_path: Path) -> None:
    def make(output: Path) -> Any:
        return tiny(trainer_class, tmp_path, output, 3)

    with reuse_loaded():
        assert_resumes(make, "prompt_learner", tmp_path, (1, 4, 6, 8))


ORDERS = ("alone", "mixin in the method", "twice")


@pytest.mark.parametrize(
    ("hook", "order"),
    [slow_unless(hook in (*QUICK, "loss"), hook, "mixin first") for hook in PROMPT_HOOKS]
    + [slow_unless(hook == "loss", hook, o) for hook in ("before_epoch", "loss") for o in ORDERS],
)
def test_a_prompt_method_with_its_own_state_resumes(hook: str, order: str, tmp_path: Path) -> None:
    if order == "mixin in the method":
        trainer_class = with_hook(type("Base", (NemesisMixin, CoOp), {}), hook)
    elif order == "twice":
        trainer_class = with_hook(with_hook(CoOp, hook, NemesisMixin), "before_epoch")
    else:
        trainer_class = with_hook(CoOp, hook, *([NemesisMixin] * (order == "mixin first")))

    def make(output: Path) -> Any:
        return tiny(trainer_class, tmp_path, output, 2)

    with reuse_loaded():
        assert_resumes(make, "prompt_learner", tmp_path, (2, 4))


def test_a_class_body_with_a_hook_resumes_between_epochs_only() -> None:
    """This also holds for its subclasses and in any order of bases."""

    class Plain:
        def before_epoch(self) -> None:
            """Not a trainer, but mixed into one."""

    class Logs(CoOp):
        def after_epoch(self) -> None:
            """Between epochs."""

    class Overrides(Shrink):
        def state_dict(self) -> dict[str, Any]:
            return super().state_dict()

        def before_epoch(self) -> None:
            pass

    def made(*bases: type) -> bool:
        return bool(getattr(type("Made", bases, {}), "resumes_within_epoch"))  # noqa: B009

    within: Any = ((CoOp,), (NemesisMixin, CoOp), (NemesisMixin, Logs), (ShrinkDeclared,))
    for bases in (*within, (NemesisMixin, ShrinkDeclared)):
        assert made(*bases)
    between: Any = ((Shrink,), (ShrinkNemesis,), (ToyTrainer,), (Shrink, NemesisMixin))
    for bases in (*between, (Plain, CoOp), (NemesisMixin, Plain, CoOp), (Overrides,)):
        assert not made(*bases)


@pytest.mark.parametrize("name", ["CoOp", "CoCoOp", "PLOT", "CoOpNemesis", "PLOTNemesis"])
def test_our_methods_resume_within_epochs(name: str) -> None:
    assert TRAINER_REGISTRY.get(name).resumes_within_epoch


def test_only_state_is_saved(tmp_path: Path) -> None:
    with reuse_loaded():
        trainer = tiny(type("N", (NemesisMixin, CoOp), {}), tmp_path, tmp_path / "run", 1)
        trainer.train()
    changed = changed_attributes(trainer, trainer.resuming.attributes)["values"]
    assert set(changed) == {"_selections"}
    saved = load_checkpoint(tmp_path / "run/prompt_learner/model.pth.tar-1")["settings"]
    assert json.loads(saved)["SEED"] == 1 and "OUTPUT_DIR" not in json.loads(saved)
