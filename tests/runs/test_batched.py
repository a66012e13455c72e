"""Runs trained as one batch come to what each comes to alone."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import train
from clip import text_encoding
from dassl.engine import Interrupted, run_experiment
from dassl.engine.run_record import read_history
from dassl.utils import load_checkpoint
from safeio.errors import UserError
from tests.helpers.runs import command, finish, results
from trainers.coop import CoOp, CoOpNemesis
from trainers.core import graphed_step
from trainers.core.batch_key import batch_key, can_batch
from trainers.core.batched import train_together
from trainers.core.batched_epochs import BatchedEpochs
from trainers.core.batched_step import NUMBERS, BatchedPrompts

# Small, but with two epochs behind the warm-up.
SHORT = {
    "OPTIM.MAX_EPOCH": 3,
    "DATASET.NUM_SHOTS": 1,
    "TEST.SPLIT": "val",
    "DATASET.SUBSAMPLE_CLASSES": "base",
    "TRAIN.CHECKPOINT_FREQ": 1,
    "INPUT.TRAIN_VIEWS": 2,
}
NEMESIS = "TRAINER.NEMESIS."
PUN: dict[str, Any] = {
    NEMESIS + "OMEGA": 0.1,
    NEMESIS + "NORM": "one",
    NEMESIS + "SCHEDULE": "constant",
}
PAN: dict[str, Any] = {NEMESIS + "BETA": 0.0, NEMESIS + "N": 1}
WIDE_PAN: dict[str, Any] = {NEMESIS + "BETA": 0.0, NEMESIS + "N": 4, NEMESIS + "TAU": 0.1}
BOTH: dict[str, Any] = {NEMESIS + "BETA": 0.3, NEMESIS + "N": 2, NEMESIS + "OMEGA": 2.0}

Options = dict[str, Any]
Variant = tuple[str, Options]  # trainer, options


def arguments(output: Path, data_root: Path, variant: Variant, config: str = "") -> list[str]:
    trainer, given = variant
    options = [str(item) for pair in {**SHORT, **given}.items() for item in pair]
    return command(output, data_root, *options, trainer=trainer, config=config)


def finish_alone(
    folder: Path, data_root: Path, variants: Sequence[Variant], config: str = ""
) -> None:
    for k, variant in enumerate(variants):
        finish(arguments(folder / f"alone{k}", data_root, variant, config))


def configs(
    folder: Path, data_root: Path, variants: Sequence[Variant], config: str = ""
) -> list[Any]:
    parser = train.build_parser()
    return [
        train.make_config(
            parser.parse_args(arguments(folder / f"together{k}", data_root, variant, config))
        )
        for k, variant in enumerate(variants)
    ]


def assert_alike(alone: Path, together: Path, size: int) -> None:
    """The same folder: the same files with the same numbers, but for rounding and wall time."""
    names = [sorted(p.name for p in folder.rglob("*.*")) for folder in (alone, together)]
    assert [n for n in names[0] if "events" not in n] == [n for n in names[1] if "events" not in n]
    assert_equal_prompts(alone, together)
    for one, two in zip(read_history(alone), read_history(together), strict=True):
        assert one.keys() == two.keys()
        assert one.get("selections") == two.get("selections")
        assert one["event"] == two["event"]
        for key in one.keys() - {"seconds", "event", "split"}:
            assert two[key] == pytest.approx(one[key], rel=1e-4, abs=1e-5), key
    last = f"prompt_learner/model.pth.tar-{results(alone)['epochs']}"
    states = [load_checkpoint(folder / last) for folder in (alone, together)]
    # Every draw was that of a run of its own. (Loading a dataset draws from Python's generator,
    # more where its items are not yet kept.)
    assert torch.equal(*(state["random_states"]["torch"] for state in states))
    assert states[0]["random_states"]["numpy"] == states[1]["random_states"]["numpy"]
    assert states[0]["scheduler"] == states[1]["scheduler"]
    own, shared = results(alone), results(together)
    assert shared.pop("batched") == size
    assert own.keys() == shared.keys()
    changing = {"train_seconds", "config", "ece"}
    assert {k: v for k, v in own.items() if k not in changing} == {
        k: v for k, v in shared.items() if k not in changing
    }
    assert own["ece"] == pytest.approx(shared["ece"], abs=1e-3)


def assert_equal_prompts(alone: Path, together: Path) -> None:
    one, two = (load_file(folder / "prompt.safetensors")["ctx"] for folder in (alone, together))
    assert (one - two).abs().max() <= 1e-5


def check(folder: Path, data_root: Path, variants: Sequence[Variant], config: str = "") -> None:
    """Train the variants alone and together, and compare."""
    finish_alone(folder, data_root, variants, config)
    cfgs = configs(folder, data_root, variants, config)
    assert train_together(cfgs) == [None] * len(cfgs)
    for k in range(len(variants)):
        assert_alike(folder / f"alone{k}", folder / f"together{k}", len(variants))


@pytest.mark.parametrize("config", ["mini_ctx16", "mini"])
def test_all_kinds_generic_and_class_specific(config: str, tmp_path: Path, data_root: Path) -> None:
    """Methods, seeds, norms, rates and views of one batch may differ."""
    chosen_blindly: Options = {**WIDE_PAN, NEMESIS + "SELECT": False, NEMESIS + "NORM": "inf"}
    variants: list[Variant] = [
        ("CoOp", {"SEED": 1, "OPTIM.LR": 0.02, "OPTIM.WEIGHT_DECAY": 0.01}),
        ("CoOpNemesis", {**PUN, "SEED": 2}),
        ("CoOpNemesis", {**PAN, "SEED": 1, "TEST.FINAL_MODEL": "best_val"}),
        ("CoOpNemesis", {**WIDE_PAN, "SEED": 3, "INPUT.TRAIN_VIEWS": 1}),
        ("CoOpNemesis", {**BOTH, "SEED": 2, "OPTIM.MOMENTUM": 0.5}),
        ("CoOpNemesis", {**chosen_blindly, "SEED": 4, "INPUT.TRAIN_VIEWS": "epochs"}),
    ]
    check(tmp_path, data_root, variants, config)


def test_plot(tmp_path: Path, data_root: Path) -> None:
    few = {"OPTIM.MAX_EPOCH": 1, "TEST.NO_TEST": True}
    variants: list[Variant] = [
        ("PLOT", {**few, "SEED": 1}),
        ("PLOTNemesis", {**BOTH, **few, "SEED": 2}),
    ]
    finish_alone(tmp_path, data_root, variants)
    assert train_together(configs(tmp_path, data_root, variants)) == [None, None]
    for k in range(2):
        assert_equal_prompts(tmp_path / f"alone{k}", tmp_path / f"together{k}")
        assert results(tmp_path / f"together{k}")["batched"] == 2


def test_a_run_that_diverges_ends_alone(tmp_path: Path, data_root: Path) -> None:
    variants: list[Variant] = [
        ("CoOp", {"SEED": 1}),
        ("CoOp", {"SEED": 2, "OPTIM.LR": 1e38}),
        ("CoOpNemesis", {"SEED": 3, **PAN}),
    ]
    for k in (0, 2):
        finish(arguments(tmp_path / f"alone{k}", data_root, variants[k]))
    first, error, last = train_together(configs(tmp_path, data_root, variants))
    assert first is None
    assert last is None
    assert isinstance(error, FloatingPointError)
    assert "diverged" in str(error)
    assert not (tmp_path / "together1" / "results.json").exists()
    for k in (0, 2):
        assert_alike(tmp_path / f"alone{k}", tmp_path / f"together{k}", 3)


def test_killed_runs_go_on_each_where_it_was(tmp_path: Path, data_root: Path) -> None:
    """One run was killed in its third epoch and one in its second; the third had not begun."""
    variants: list[Variant] = [("CoOpNemesis", {**BOTH, "SEED": k}) for k in range(3)]
    finish_alone(tmp_path, data_root, variants)
    for k, epoch in ((0, 2), (1, 1)):
        folder = tmp_path / f"together{k}"
        shutil.copytree(tmp_path / f"alone{k}", folder)
        for name in ("results.json", "prompt.safetensors", "log.txt"):
            (folder / name).unlink()
        for later in range(epoch + 1, 4):
            (folder / f"prompt_learner/model.pth.tar-{later}").unlink()
        (folder / "prompt_learner" / "checkpoint").write_text(f"model.pth.tar-{epoch}\n")
    assert train_together(configs(tmp_path, data_root, variants)) == [None] * 3
    for k in range(3):
        assert_alike(tmp_path / f"alone{k}", tmp_path / f"together{k}", 3)


@pytest.mark.parametrize(
    ("variant", "part"),
    [
        (("CoOp", {"TRAINER.COOP.CLASS_TOKEN_POSITION": "front"}), "CLASS_TOKEN_POSITION differs"),
        (("CoOp", {"TRAINER.COOP.N_CTX": 4}), "TRAINER.COOP.N_CTX differs"),
        (("CoOp", {"DATASET.NUM_SHOTS": 2, "OPTIM.MAX_EPOCH": 2}), "NUM_SHOTS, OPTIM.MAX_EPOCH"),
        (("CoOp", {"INPUT.TRAIN_VIEWS": 0}), "INPUT.TRAIN_VIEWS is 0"),
        (("CoOp", {"OPTIM.NAME": "adam"}), "OPTIM.NAME is not sgd"),
        (("CoCoOp", {}), "step of CoCoOp"),
    ],
)
def test_what_does_not_fit_is_named_and_trained_alone(
    variant: Variant,
    part: str,
    tmp_path: Path,
    data_root: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    quick = {"OPTIM.MAX_EPOCH": 1, "TEST.NO_TEST": True}
    variants: list[Variant] = [
        ("CoOp", {**quick, "SEED": 1}),
        ("CoOpNemesis", {**quick, **PAN, "SEED": 2}),
        (variant[0], {**quick, **variant[1]}),
    ]
    assert train_together(configs(tmp_path, data_root, variants)) == [None] * 3
    (line,) = [line for line in capsys.readouterr().out.splitlines() if part in line]
    assert line.startswith(f"{tmp_path / 'together2'} is not in the first batch")
    found = [results(tmp_path / f"together{k}").get("batched") for k in range(3)]
    assert found[:2] == [2, 2]
    assert found[2] in (None, 1)


@pytest.mark.parametrize("cause", ["the limit", "the caches", "an error"])
def test_batches_are_cut_to_the_memory(
    cause: str, tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    train_part = BatchedEpochs._train

    def train(self: BatchedEpochs, part: Any, bank: Any) -> None:
        sizes.append(len(part))
        if len(part) > 2:
            raise torch.OutOfMemoryError("no memory left")
        train_part(self, part, bank)

    monkeypatch.setattr(BatchedEpochs, "_train", train)
    if cause == "the limit":  # one activation of two prompts
        monkeypatch.setattr(text_encoding.SoftPromptEncoder, "saved_bytes", lambda *_: 2 << 30)
    if cause == "the caches":  # the states of two prompts
        monkeypatch.setattr(
            *(text_encoding.SoftPromptEncoder, "_states_at_once"),
            lambda self, ctx: 2 * self._count_states(ctx.dim() == 4, (0, len(self.prompts))),
        )
    quick = {"OPTIM.MAX_EPOCH": 1, "TEST.NO_TEST": True}
    variants: list[Variant] = [("CoOp", {**quick, "SEED": seed}) for seed in range(3)]
    finish_alone(tmp_path, data_root, variants)
    assert train_together(configs(tmp_path, data_root, variants)) == [None] * 3
    assert sizes == ([3, 1, 1, 1] if cause == "an error" else [2, 1])
    for k in range(3):
        assert_equal_prompts(tmp_path / f"alone{k}", tmp_path / f"together{k}")


def test_folders_are_not_shared_and_not_taken(tmp_path: Path, data_root: Path) -> None:
    cfgs = configs(tmp_path, data_root, [("CoOp", {})])
    with pytest.raises(UserError, match="its own folder"):
        train_together([*cfgs, *cfgs])
    (tmp_path / "together0" / "results.json").write_text(json.dumps({"status": "finished"}))
    with pytest.raises(UserError, match="already holds a finished run"):
        train_together(cfgs)


def test_a_step_of_its_own_is_not_batched(tmp_path: Path, data_root: Path) -> None:
    class OwnStep(CoOp):
        def forward_backward(self, batch: dict[str, Any]) -> dict[str, Any]:
            return super().forward_backward(batch)

    class OwnModel(CoOp):
        def build_prompted_clip(self, classnames: list[str]) -> Any:
            return super().build_prompted_clip(classnames)

    class OwnLog(CoOp):
        def epoch_entries(self) -> dict[str, Any]:
            return {"mine": 1}

    assert can_batch(OwnLog)
    assert not can_batch(OwnStep)
    assert not can_batch(OwnModel)
    assert not can_batch(lambda cfg: CoOp(cfg))
    (cfg,) = configs(tmp_path, data_root, [("CoCoOp", {})])
    assert "CoCoOp" in batch_key(cfg).why


def test_a_batch_stopped_within_an_epoch_resumes(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal arrives in the fourth step of the second epoch."""
    longer = {"DATASET.NUM_SHOTS": 4, "OPTIM.MAX_EPOCH": 2}  # 5 steps per epoch
    variants: list[Variant] = [
        ("CoOpNemesis", {**WIDE_PAN, **longer, "SEED": 1}),
        ("CoOpNemesis", {**BOTH, **longer, "SEED": 2}),
    ]
    finish_alone(tmp_path, data_root, variants)
    steps = 0
    step = BatchedPrompts.step

    def signalled(self: BatchedPrompts, inputs: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 5 + 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, inputs)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(BatchedPrompts, "step", signalled)
        train_together(configs(tmp_path, data_root, variants))
    for k in range(2):
        saved = load_checkpoint(tmp_path / f"together{k}" / "resume.pth.tar")
        assert (saved["epoch"], saved["batches"]) == (1, 3)
    assert train_together(configs(tmp_path, data_root, variants)) == [None, None]
    for k in range(2):
        (log,) = (tmp_path / f"together{k}").glob("log.txt-*")  # of the second attempt
        log.unlink()
        assert_alike(tmp_path / f"alone{k}", tmp_path / f"together{k}", 2)


def test_a_run_stopped_in_its_validation_goes_on_in_a_batch(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its second epoch, only the validation is left."""
    variants: list[Variant] = [
        ("CoOpNemesis", {**PAN, "TEST.FINAL_MODEL": "best_val", "SEED": 1}),
        ("CoOp", {"SEED": 2}),
    ]
    finish_alone(tmp_path, data_root, variants)
    tests, test = 0, CoOp.test

    def stopped(self: CoOp, split: str | None = None) -> float:
        nonlocal tests
        tests += 1
        if tests == 2:
            raise Interrupted(signal.SIGTERM)
        return test(self, split)

    cfgs = configs(tmp_path, data_root, variants)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(CoOpNemesis, "test", stopped)
        run_experiment(cfgs[0])
    saved = load_checkpoint(tmp_path / "together0" / "resume.pth.tar")
    assert (saved["epoch"], saved["batches"]) == (1, 1)
    assert train_together(cfgs) == [None, None]
    (log,) = (tmp_path / "together0").glob("log.txt-*")  # of the second attempt
    log.unlink()
    for k in range(2):
        assert_alike(tmp_path / f"alone{k}", tmp_path / f"together{k}", 2)


@pytest.mark.parametrize("works", [True, False])
def test_a_step_replayed_as_a_graph(
    works: bool, tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph reads and writes the same memory in every step; where none can be made, steps run.

    On a CPU, the graph is imitated by the step itself.
    """

    def imitate(step: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        if not works:
            raise RuntimeError("operation not permitted when stream is capturing")
        numbers = torch.zeros(len(NUMBERS), 2)

        def replay() -> None:
            numbers.copy_(step())

        return replay, numbers

    monkeypatch.setattr(graphed_step, "can_capture", lambda device: True)
    monkeypatch.setattr(graphed_step, "capture", imitate)
    variants: list[Variant] = [("CoOpNemesis", {**BOTH, "SEED": 1}), ("CoOp", {"SEED": 2})]
    finish_alone(tmp_path, data_root, variants)
    assert train_together(configs(tmp_path, data_root, variants)) == [None, None]
    for k in range(2):
        assert_alike(tmp_path / f"alone{k}", tmp_path / f"together{k}", 2)
