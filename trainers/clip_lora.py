"""CLIP-LoRA: Low-Rank Few-Shot Adaptation of Vision-Language Models.

Zanella and Ben Ayed, CVPR workshops 2024. The projections of the attention become W + gamma B A
with A, B learned and all else frozen:

    L = CE(100 f @ g^T, y),   gamma = alpha / sqrt(r) as in the published code, or alpha / r.

The published code's gradients without dropout are wrong (it differentiates through W, not through
W + gamma B A); these are right. Few-shot samples are this project's, which differ from its own.
"""

from dassl.config import declare_config
from dassl.engine import TRAINER_REGISTRY

from .core.lora_trainer import LoRATrainer

declare_config(
    "TRAINER.CLIPLORA",
    {
        "ENCODER": "both",  # text, vision, both; a ResNet has text only
        "PARAMS": ["q", "k", "v"],  # adapted projections, of q, k, v, o
        "POSITION": "all",  # all, bottom, mid, up (thirds), half-bottom, half-up, top3
        "BLOCKS": [],  # block numbers from 0, instead of POSITION
        "R": 2,  # rank
        "ALPHA": 1.0,
        "SCALING": "sqrt",  # gamma is ALPHA / sqrt(R), or ALPHA / R (rank)
        "DROPOUT": 0.25,  # of the adapters' inputs
        "LOGIT_SCALE": 100.0,  # constant factor of the similarities; 0 takes the CLIP's own
        "ITERS_PER_SHOT": 500,  # iterations in total are this x shots; 0: OPTIM.MAX_EPOCH epochs
        "MIN_LR": 1e-6,  # at the end of the cosine over all iterations
        "PREC": "fp32",  # fp32, fp16, bf16, amp; adapters are always in fp32
    },
)


@TRAINER_REGISTRY.register()
class CLIPLoRA(LoRATrainer):
    """Low-rank adapters in the attention of both encoders."""

    paper = "Zanella and Ben Ayed, CVPR workshops 2024"
    node = "CLIPLORA"
