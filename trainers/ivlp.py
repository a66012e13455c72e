"""IVLP: independent vision-language prompting, the uncoupled baseline of MaPLe.

MaPLe (Khattak et al., CVPR 2023), section 4.1. It learns text prompts T and vision prompts V of
the first layers, each with its own length and depth:

    L = CE(exp(logit_scale) * f(V) @ g(T)^T, y).

With PROMPT_DEPTH_VISION 0 it is deep language prompting, with a text depth of 1 as well CoOp.
"""

from dassl.config import declare_config
from dassl.engine import TRAINER_REGISTRY

from .core.two_tower_trainer import TwoTowerTrainer
from .tower_nemesis import TowerNemesisMixin

declare_config(
    "TRAINER.IVLP",
    {
        "N_CTX_TEXT": 2,  # vectors per layer
        "N_CTX_VISION": 2,
        "CTX_INIT": "a photo of a",  # of T_0 with up to 4 vectors; further words stay fixed
        "PROMPT_DEPTH_TEXT": 9,  # prompted layers, from the first one on
        "PROMPT_DEPTH_VISION": 9,  # 0: language only
        "PREC": "fp32",  # fp32, fp16, bf16, amp
    },
)


@TRAINER_REGISTRY.register()
class IVLP(TwoTowerTrainer):
    """Independent vision-language prompts."""

    paper = "Khattak et al., CVPR 2023"
    node = "IVLP"


@TRAINER_REGISTRY.register()
class IVLPNemesis(TowerNemesisMixin, IVLP):
    """IVLP with Nemesis."""
