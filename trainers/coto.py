"""CoTo: progressive activation of LoRA (Come Together, But Not Right Now).

Zhuang et al., ICML 2025. CLIP-LoRA's loss, in which each group of adapters takes part in step t of
T with probability

    p(t) = min(p1, p0 + (p1 - p0) t / ceil(RATIO T)),   p0 = 0.1, p1 = 1, RATIO = 0.75.

Skipped adapters are neither computed nor updated. In evaluation all are active.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dassl.config import CfgNode, declare_config
from dassl.engine import TRAINER_REGISTRY
from safeio.errors import UserError

from .clip_lora import CLIPLoRA
from .core.lora import Adapter

declare_config(
    "TRAINER.COTO",
    {
        "INITIAL_P": 0.1,
        "FINAL_P": 1.0,
        "RATIO": 0.75,  # of the iterations after which the probability is FINAL_P
        "MODULES": 0,  # consecutive adapters that share a draw; 0: those of one block
    },
)
GENERATOR = "coto_generator"  # its state's key in a checkpoint


def activation_probability(
    step: int, steps: int, initial_p: float, final_p: float, ratio: float
) -> float:
    """Return p(t) of step t, from 0."""
    ramp = math.ceil(ratio * steps)
    return min(final_p, initial_p + (final_p - initial_p) * step / ramp)


@TRAINER_REGISTRY.register()
class CoTo(CLIPLoRA):
    """CLIP-LoRA whose blocks are skipped at random, ever more rarely."""

    paper = "Zhuang et al., ICML 2025"
    prompts = "low-rank adapters, skipped at random; the template is fixed"
    resumes_within_epoch = True  # the generator's state is in every checkpoint

    def check_cfg(self, cfg: CfgNode) -> None:
        """Check the probabilities before anything is loaded."""
        super().check_cfg(cfg)
        node = cfg.TRAINER.COTO
        for key in ("INITIAL_P", "FINAL_P", "RATIO"):
            if not 0 < node[key] <= 1:
                raise UserError(
                    f"TRAINER.COTO.{key} is {node[key]:g}, but must be above 0 and at most 1: with "
                    "probability 0 no adapter is ever drawn"
                )
        if node.MODULES < 0:
            raise UserError(f"TRAINER.COTO.MODULES is {node.MODULES}, but must be at least 0")

    def build_model(self) -> None:
        """Also divide the adapters into groups and create their generator."""
        super().build_model()
        by_key = self.adapters.by_key()
        size = self.cfg.TRAINER.COTO.MODULES or len(set(self.adapters.settings.params))
        found = list(by_key.values())
        self.groups: list[list[Adapter]] = [
            found[start : start + size] for start in range(0, len(found), size)
        ]
        self.generator = torch.Generator().manual_seed(torch.initial_seed())

    def draw(self) -> Float[Tensor, " groups"]:
        """Return a uniform number for each group."""
        return torch.rand(len(self.groups), generator=self.generator)

    def features_and_labels(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Also choose the active adapters of this step, of which there is at least one."""
        node = self.cfg.TRAINER.COTO
        p = activation_probability(
            self.sched.last_epoch, self.iterations, node.INITIAL_P, node.FINAL_P, node.RATIO
        )
        while not (active := self.draw() <= p).any():
            pass
        for group, is_active in zip(self.groups, active.tolist(), strict=True):
            for adapter in group:
                adapter.active = is_active
        return super().features_and_labels(batch)

    def state_dict(self) -> dict[str, Any]:
        """Also return the generator's state."""
        return {**super().state_dict(), GENERATOR: self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Also restore the generator."""
        super().load_state_dict(state)
        if isinstance(drawn := state.get(GENERATOR), Tensor):
            self.generator.set_state(drawn)


@TRAINER_REGISTRY.register()
class CopRA(CoTo):
    """Alias of CoTo, of which CopRA (Zhuang et al., 2024) is the predecessor: CoTo's schedule."""
