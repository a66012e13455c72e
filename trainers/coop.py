"""CoOp: Learning to Prompt for Vision-Language Models (Zhou et al., IJCV 2022).

The context vectors V in front of, around or behind the class name are learned by

    L = CE(exp(logit_scale) * f @ g(V)^T, y)

with both towers of CLIP frozen.
"""

from dassl.config import declare_config
from dassl.engine import TRAINER_REGISTRY

from .core.prompt_trainer import PromptTrainer
from .nemesis_trainer import NemesisMixin

declare_config(
    "TRAINER.COOP",
    {
        "N_CTX": 16,  # number of context vectors
        "CSC": False,  # class-specific contexts
        "CTX_INIT": "",  # words to start from; they decide the number of vectors
        "PREC": "fp32",  # fp32, fp16, bf16, amp
        "CLASS_TOKEN_POSITION": "end",  # end, middle, front
    },
)


@TRAINER_REGISTRY.register()
class CoOp(PromptTrainer):
    """Context optimisation."""

    node = "COOP"


@TRAINER_REGISTRY.register()
class CoOpNemesis(NemesisMixin, CoOp):
    """Context optimisation with normalised soft prompts."""
