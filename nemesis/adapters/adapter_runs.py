"""Runs of CLIP-LoRA or CoTo as adapters: reading them, comparing them, writing a merged run."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dassl.config import CfgNode
from dassl.engine import CONFIG, RESULTS, TRAINER_REGISTRY
from dassl.utils import CheckpointFolder, load_checkpoint
from nemesis.inference.load_run import LoadOptions, known_classnames, run_config
from safeio.errors import UserError
from safeio.files import prepare_output_dir, write_text
from trainers.core.lora import deltas_of
from trainers.core.lora_checkpoints import ADAPTER_FILE, FACTS
from trainers.core.lora_trainer import LoRATrainer
from trainers.core.prompt_file import save_tensors
from trainers.core.prompt_metadata import FINGERPRINTS

from .analysis import rank_sum

LEARNER = "adapters"
MERGED_OF = "merged_of"  # a fact of merged runs: the runs with their weights


@dataclass(frozen=True)
class AdapterRun:
    """The adapters of a run, without its CLIP.

    Attributes:
        path: the run's folder.
        cfg: its configuration.
        state: A and B by key.
        facts: see `trainers.core.lora_checkpoints.adapter_facts`.
    """

    path: Path
    cfg: CfgNode
    state: Mapping[str, Tensor]
    facts: Mapping[str, Any]

    @property
    def gamma(self) -> float:
        """The factor of B A."""
        return float(self.facts["gamma"])

    def deltas(self) -> dict[str, Tensor]:
        """Return gamma B A by key."""
        return deltas_of(self.state, self.gamma)


def read_run(path: Path, options: LoadOptions) -> AdapterRun:
    """Read the adapters of a run.

    Raises:
        UserError: the folder contains no finished run, or one without adapters.
    """
    cfg = run_config(path, options)
    trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    if not (isinstance(trainer, type) and issubclass(trainer, LoRATrainer)):
        raise UserError(
            f'"{path}" is a run of {cfg.TRAINER.NAME}, which learns no adapters; choose runs of '
            "CLIPLoRA or CoTo"
        )
    file = CheckpointFolder(path / LEARNER).choose(options.epoch)
    content = load_checkpoint(file)
    state, facts = content.get("state_dict"), content.get(FACTS)
    if not isinstance(state, dict) or not isinstance(facts, dict) or "gamma" not in facts:
        raise UserError(f'"{file}" is refused: it does not hold adapters and their facts')
    if options.epoch is None and not (path / RESULTS).is_file() and MERGED_OF not in facts:
        raise UserError(
            f'"{path}" is not finished: it has no {RESULTS}; repeat the command that started it, '
            "or choose a checkpoint with --epoch"
        )
    return AdapterRun(path, cfg, state, facts)


def check_alike(runs: Sequence[AdapterRun], same_rank: bool = False) -> None:
    """Check that the adapters are of the same layers of the same CLIP.

    Raises:
        UserError: names the run and what differs.
    """
    first = runs[0]
    for run in runs[1:]:
        fault = _difference(first, run, same_rank)
        if fault:
            raise UserError(
                f'The adapters of "{run.path}" do not fit those of "{first.path}": {fault}; '
                "choose runs of one backbone with adapters in the same layers"
            )


def _difference(first: AdapterRun, run: AdapterRun, same_rank: bool) -> str:
    facts = first.facts, run.facts
    known = [key for key in ("weights_sha256", *FINGERPRINTS) if all(f.get(key) for f in facts)]
    backbones = [f.get("backbone") for f in facts]
    same = any(facts[0][key] == facts[1][key] for key in known) if known else None
    if not (backbones[0] == backbones[1] if same is None else same):
        return f"their backbones are {backbones[1]} and {backbones[0]}, or have other weights"
    if odd := sorted(set(first.state) ^ set(run.state)):
        return f"{odd[0]} is only in one of them"
    for name, tensor in first.state.items():
        width, other = (
            one.shape[0 if name.endswith(".B") else 1] for one in (tensor, run.state[name])
        )
        if width != other:
            return f"{name} has the width {other} and {width}"
    if same_rank and (facts[0]["r"], facts[0]["gamma"]) != (facts[1]["r"], facts[1]["gamma"]):
        return "ranks are {1[r]} and {0[r]}, or their alpha or scaling differs".format(*facts)
    return ""


def write_merged(runs: Sequence[AdapterRun], weights: Sequence[float], folder: Path) -> Path:
    """Write sum_k w_k gamma_k B_k A_k as a run of one adapter of the rank sum.

    The other settings are those of the first run. The configuration is written last, so that a
    folder without it holds no run.

    Raises:
        UserError: the folder contains another run, or cannot be written to.
    """
    first = runs[0]
    cfg, rank = first.cfg.clone(), sum(int(run.facts["r"]) for run in runs)
    cfg.defrost()
    cfg.TRAINER.CLIPLORA.R, cfg.OUTPUT_DIR = rank, str(folder)
    cfg.freeze()
    scaled = rank if first.facts["scaling"] == "rank" else rank**0.5
    gamma = float(first.facts["alpha"]) / scaled
    merged_of = [f"{weight:g} x {run.path}" for weight, run in zip(weights, runs, strict=True)]
    facts = {**first.facts, "r": rank, "gamma": gamma, MERGED_OF: merged_of}
    state = rank_sum([run.state for run in runs], [run.gamma for run in runs], weights, gamma)
    if (folder / CONFIG).exists():
        if _holds(folder, state, merged_of):
            return folder
        raise UserError(f"{folder} holds a run already; choose another --output-dir")
    prepare_output_dir(folder)
    content = {"state_dict": state, "epoch": 1, "optimizer": None, "scheduler": None, FACTS: facts}
    CheckpointFolder(folder / LEARNER).save(content)
    names = known_classnames(first.path)
    save_tensors(
        folder / ADAPTER_FILE, state, {**facts, **({"classnames": names} if names else {})}
    )
    write_text(cfg.dump(), folder / CONFIG)
    return folder


def _holds(folder: Path, state: Mapping[str, Tensor], merged_of: Sequence[str]) -> bool:
    """Return whether an earlier call has written the same merged run."""
    with suppress(UserError):
        run = read_run(folder, LoadOptions())
        same = run.state.keys() == state.keys() and run.facts.get(MERGED_OF) == merged_of
        return same and all(torch.equal(run.state[name], one) for name, one in state.items())
    return False
