"""Several runs trained together equal the same runs alone."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import train
from dassl.config import get_cfg_default
from dassl.engine.run_record import read_history
from dassl.utils import load_checkpoint
from safeio.errors import UserError
from tests.helpers.runs import command, finish, results
from trainers.coop import CoOp
from trainers.core import vectorised
from trainers.core.vectorised import can_train_together, train_together, vector_key

# Small, but with two epochs behind the warm-up and evaluation on the validation images.
SHORT = {
    "OPTIM.MAX_EPOCH": 3,
    "DATASET.NUM_SHOTS": 1,
    "TEST.SPLIT": "val",
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
BOTH: dict[str, Any] = {NEMESIS + "BETA": 0.5, NEMESIS + "N": 2, NEMESIS + "OMEGA": 2.0}

Options = dict[str, Any]
Variant = tuple[str, Options]  # trainer, options


def arguments(output: Path, data_root: Path, variant: Variant, config: str = "") -> list[str]:
    trainer, given = variant
    options = [str(item) for pair in {**SHORT, **given}.items() for item in pair]
    return command(output, data_root, *options, trainer=trainer, config=config)


def configs(
    folder: Path, data_root: Path, variants: Sequence[Variant], config: str = ""
) -> list[Any]:
    """The configurations of runs in folder/together0, ..."""
    parse, make = train.build_parser().parse_args, train.make_config
    folders = [folder / f"together{k}" for k in range(len(variants))]
    return [
        make(parse(arguments(own, data_root, variant, config)))
        for own, variant in zip(folders, variants, strict=True)
    ]


def finish_alone(
    folder: Path, data_root: Path, variants: Sequence[Variant], config: str = ""
) -> None:
    for k, variant in enumerate(variants):
        finish(arguments(folder / f"alone{k}", data_root, variant, config))


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
    assert shared.pop("vectorised") == size
    assert own.keys() == shared.keys()
    changing = {"train_seconds", "config", "ece"}
    assert {k: v for k, v in own.items() if k not in changing} == {
        k: v for k, v in shared.items() if k not in changing
    }
    assert own["ece"] == pytest.approx(shared["ece"], abs=1e-3)


def assert_equal_prompts(alone: Path, together: Path) -> None:
    one, two = (load_file(folder / "prompt.safetensors")["ctx"] for folder in (alone, together))
    assert ((one - two).norm() / one.norm()).item() < 1e-6


@pytest.mark.parametrize("config", ["mini_ctx16", "mini"])
def test_nemesis_of_all_kinds_generic_and_class_specific(
    config: str, tmp_path: Path, data_root: Path
) -> None:
    kinds = [PUN, PAN, WIDE_PAN, BOTH]
    variants: list[Variant] = [
        ("CoOpNemesis", {**kind, "SEED": 1 + k}) for k, kind in enumerate(kinds)
    ]
    finish_alone(tmp_path, data_root, variants, config)
    assert train_together(configs(tmp_path, data_root, variants, config)) == [None] * 4
    for k in range(4):
        assert_alike(tmp_path / f"alone{k}", tmp_path / f"together{k}", 4)


@pytest.mark.slow
def test_methods_epochs_shots_and_rates_may_differ_and_a_diverging_run_ends_alone(
    tmp_path: Path, data_root: Path
) -> None:
    """Fresh and cached augmentation; a run that ends early does not stop the others."""
    fresh = {"INPUT.TRAIN_VIEWS": 0}
    variants: list[Variant] = [
        ("CoOp", {"SEED": 3, **fresh, "OPTIM.MAX_EPOCH": 2}),
        ("CoOpNemesis", {**PAN, "SEED": 4, **fresh, "OPTIM.MAX_EPOCH": 1}),
        ("CoOp", {"SEED": 3, "OPTIM.LR": 0.02, "DATASET.NUM_SHOTS": 2, "OPTIM.NAME": "adam"}),
        ("CoOp", {"SEED": 5, "TEST.FINAL_MODEL": "best_val", "OPTIM.MAX_EPOCH": 2}),
        ("CoOp", {"SEED": 2, "OPTIM.LR": 1e38}),
    ]
    finish_alone(tmp_path, data_root, variants[:4])
    *others, error = train_together(configs(tmp_path, data_root, variants))
    assert others == [None] * 4
    assert isinstance(error, FloatingPointError) and "diverged" in str(error)
    assert not (tmp_path / "together4" / "results.json").exists()
    for k in range(4):
        assert_alike(tmp_path / f"alone{k}", tmp_path / f"together{k}", 5)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["CoCoOpNemesis", "PLOTNemesis"])
def test_the_other_methods(trainer: str, tmp_path: Path, data_root: Path) -> None:
    few = {"DATASET.SUBSAMPLE_CLASSES": "base", "OPTIM.MAX_EPOCH": 1, "TEST.NO_TEST": True}
    variants: list[Variant] = [
        (trainer, {**kind, **few, "SEED": k}) for k, kind in enumerate((PUN, BOTH))
    ]
    finish_alone(tmp_path, data_root, variants)
    assert train_together(configs(tmp_path, data_root, variants)) == [None, None]
    for k in range(2):
        assert_equal_prompts(tmp_path / f"alone{k}", tmp_path / f"together{k}")


@pytest.mark.slow
def test_killed_runs_resume_each_where_it_was(tmp_path: Path, data_root: Path) -> None:
    """One run was killed in its third epoch and one in its second; the third had not started."""
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
    ("variant", "config", "part"),
    [
        (("CoOp", {"TRAINER.COOP.CLASS_TOKEN_POSITION": "front"}), "", "CLASS_TOKEN_POSITION"),
        (("CoOp", {"TRAINER.COOP.N_CTX": 4}), "", "TRAINER.COOP.length"),
        (("CoOp", {"TRAINER.COOP.PREC": "bf16"}), "", "TRAINER.COOP.PREC"),
        (("CoOp", {"DATASET.SUBSAMPLE_CLASSES": "base"}), "", "DATASET.SUBSAMPLE_CLASSES"),
        (("CoOp", {}), "mini", "TRAINER.COOP.CSC, TRAINER.COOP.length"),
        (("ZeroshotCLIP", {"INPUT.TRAIN_VIEWS": 0}), "", "ZeroshotCLIP"),
    ],
)
def test_runs_that_differ_too_much_are_refused(
    variant: Variant, config: str, part: str, tmp_path: Path, data_root: Path
) -> None:
    first = configs(tmp_path / "a", data_root, [("CoOp", {})])
    other = configs(tmp_path / "b", data_root, [variant], config)
    with pytest.raises(UserError, match=part) as caught:
        train_together([*first, *other])
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "a").exists()


def test_on_a_cpu_groups_have_a_maximal_size(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vectorised.RUNS_AT_ONCE, "cpu", 2)
    quick = {"OPTIM.MAX_EPOCH": 1, "TEST.NO_TEST": True}
    variants: list[Variant] = [("CoOp", {**quick, "SEED": seed}) for seed in range(3)]
    assert train_together(configs(tmp_path, data_root, variants)) == [None] * 3
    assert [results(tmp_path / f"together{k}")["vectorised"] for k in range(3)] == [2, 2, 1]


def test_folders_are_not_shared_and_not_taken(tmp_path: Path, data_root: Path) -> None:
    cfgs = configs(tmp_path, data_root, [("CoOp", {})])
    with pytest.raises(UserError, match="its own folder"):
        train_together([*cfgs, *cfgs])
    (tmp_path / "together0" / "results.json").write_text(json.dumps({"status": "finished"}))
    with pytest.raises(UserError, match="already holds a finished run"):
        train_together(cfgs)


def test_the_key_contains_what_must_agree(tmp_path: Path, data_root: Path) -> None:
    def key(variant: Variant) -> str | None:
        return vector_key(configs(tmp_path, data_root, [variant])[0])

    same: list[Variant] = [
        ("CoOp", {}),
        ("CoOp", {"SEED": 9, "DATASET.NUM_SHOTS": 4, "OPTIM.MAX_EPOCH": 7}),
        ("CoOpNemesis", BOTH),
    ]
    assert len({key(variant) for variant in same}) == 1
    assert key(("CoOp", {"TRAINER.COOP.N_CTX": 4})) != key(("CoOp", {}))
    assert key(("ZeroshotCLIP", {"INPUT.TRAIN_VIEWS": 0})) is None


def test_a_trainer_with_its_own_step_or_loss_trains_alone() -> None:
    class OwnStep(CoOp):
        def forward_backward(self, batch: dict[str, Any]) -> dict[str, Any]:
            return super().forward_backward(batch)

    class OwnLoss(CoOp):
        def loss(self, *args: Any) -> Any:
            return super().loss(*args)

    class OwnLog(CoOp):
        def epoch_entries(self) -> dict[str, Any]:
            return {"mine": 1}

    assert can_train_together(OwnLog)
    assert not can_train_together(OwnStep)
    assert not can_train_together(OwnLoss)
    assert not can_train_together(lambda cfg: CoOp(cfg))
    assert "COOP" in get_cfg_default().TRAINER
