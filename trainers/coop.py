"""CoOp: Learning to Prompt for Vision-Language Models (Zhou et al., IJCV 2022).

It learns the context vectors V before, around or after the class name with a frozen CLIP:

    L = CE(exp(logit_scale) * f @ g(V)^T, y).
"""

from dassl.config import declare_config
from dassl.engine import TRAINER_REGISTRY

from .core.prompt_trainer import PromptTrainer
from .nemesis_trainer import NemesisMixin

declare_config(
    "TRAINER.COOP",
    {
        "N_CTX": 16,  # number of context vectors
        "CSC": False,  # class-specific context
        "CTX_INIT": "",  # initial words; their number of tokens overrides N_CTX
        "PREC": "fp32",  # fp32, fp16, bf16, amp
        "CLASS_TOKEN_POSITION": "end",  # end, middle, front
    },
)


@TRAINER_REGISTRY.register()
class CoOp(PromptTrainer):
    """Context optimization."""

    paper = "Zhou et al., IJCV 2022"
    prompts = "context vectors, shared by all classes or one set for each (CSC)"
    node = "COOP"


@TRAINER_REGISTRY.register()
class CoOpNemesis(NemesisMixin, CoOp):
    """CoOp with Nemesis."""
