"""MaPLe: Multi-modal Prompt Learning (Khattak et al., CVPR 2023).

It learns text prompts T_l of the first d layers and linear maps F_l to the vision prompts:

    L = CE(exp(logit_scale) * f(V) @ g(T)^T, y),   V_l = F_l(T_l) = T_l W_l^T + b_l.
"""

from dassl.config import CfgNode, declare_config
from dassl.engine import TRAINER_REGISTRY

from .core.two_tower_trainer import TwoTowerTrainer
from .core.two_towers import Shape
from .tower_nemesis import TowerNemesisMixin

declare_config(
    "TRAINER.MAPLE",
    {
        "N_CTX": 2,  # vectors per layer of both encoders
        "CTX_INIT": "a photo of a",  # of T_0 with up to 4 vectors; further words stay fixed
        "PROMPT_DEPTH": 9,  # prompted layers of both encoders, from the first one on
        "PREC": "fp32",  # fp32, fp16, bf16, amp
    },
)


@TRAINER_REGISTRY.register()
class MaPLe(TwoTowerTrainer):
    """Multi-modal prompt learning."""

    paper = "Khattak et al., CVPR 2023"
    prompts = "text vectors in the first layers, and linear maps to vision prompts"
    normalizes = "the text vectors at a position, in all prompted layers; vision prompts follow"
    node = "MAPLE"
    least_depth = (1, 1)
    coupled = True
    features = None
    trains_on_features = False

    def shapes(self, cfg: CfgNode) -> tuple[Shape, Shape]:
        """Return the shape that both encoders' prompts have."""
        shape = Shape(cfg.TRAINER.MAPLE.N_CTX, cfg.TRAINER.MAPLE.PROMPT_DEPTH)
        return shape, shape


@TRAINER_REGISTRY.register()
class MaPLeNemesis(TowerNemesisMixin, MaPLe):
    """MaPLe with Nemesis."""
