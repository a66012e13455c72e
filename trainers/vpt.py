"""VPT: Visual Prompt Tuning (Jia et al., ECCV 2022), as MaPLe's code applies it to CLIP.

It learns the vision prompts V of the first d layers; the text is "a photo of a <name>.":

    L = CE(exp(logit_scale) * f(V) @ g^T, y).   d = 1: shallow; d = number of layers: deep.
"""

from dassl.config import CfgNode, declare_config
from dassl.engine import TRAINER_REGISTRY

from .core.two_tower_trainer import TwoTowerTrainer
from .core.two_towers import Shape
from .tower_nemesis import TowerNemesisMixin

declare_config(
    "TRAINER.VPT",
    {
        "N_CTX_VISION": 2,  # vectors per layer
        "PROMPT_DEPTH_VISION": 1,  # prompted layers, from the first one on
        "PREC": "fp32",  # fp32, fp16, bf16, amp
    },
)


@TRAINER_REGISTRY.register()
class VPT(TwoTowerTrainer):
    """Visual prompt tuning."""

    paper = "Jia et al., ECCV 2022"
    prompts = "vectors in the first layers (1: shallow, all: deep)"
    towers = "image"
    node = "VPT"
    least_depth = (0, 1)
    features = None
    trains_on_features = False

    def shapes(self, cfg: CfgNode) -> tuple[Shape, Shape]:
        """Return the shapes: no text prompts, and the vision prompts."""
        node = cfg.TRAINER.VPT
        return Shape(), Shape(node.N_CTX_VISION, node.PROMPT_DEPTH_VISION)


@TRAINER_REGISTRY.register()
class VPTNemesis(TowerNemesisMixin, VPT):
    """VPT with Nemesis."""
