"""KgCoOp: Visual-Language Prompt Tuning with Knowledge-guided Context Optimization (CVPR 2023).

CoOp whose text features g(V) stay near those t of a hand-written template (Yao et al.):

    L = CE + W * kg,   kg = 1 - (1/C) sum_c cos(g_c(V), t_c).
"""

from dassl.config import CfgNode, declare_config
from dassl.engine import TRAINER_REGISTRY

from .core.prompt_trainer import PromptTrainer
from .core.prompted_clip import PromptedCLIP
from .core.teacher import DEFAULT_TEMPLATE, TaughtCLIP, check_settings, encode_template
from .nemesis_trainer import NemesisMixin

declare_config(
    "TRAINER.KGCOOP",
    {
        "N_CTX": 4,
        "CSC": False,
        "CTX_INIT": "",
        "PREC": "fp32",
        "CLASS_TOKEN_POSITION": "end",
        "W": 8.0,  # weight of kg
        "TEACHER": DEFAULT_TEMPLATE,
    },
)


@TRAINER_REGISTRY.register()
class KgCoOp(PromptTrainer):
    """Knowledge-guided context optimization."""

    paper = "Yao et al., CVPR 2023"
    prompts = "context vectors whose text features stay near those of a hand-written template"
    node = "KGCOOP"
    prompted_clip = TaughtCLIP
    standard_step = True  # the batch adds its CLIP's term, too

    def check_cfg(self, cfg: CfgNode) -> None:
        """Also check the template and W before anything is loaded."""
        super().check_cfg(cfg)
        check_settings(cfg, self.node, "W")

    def build_prompted_clip(self, classnames: list[str]) -> PromptedCLIP:
        """Build CLIP with the teacher's text features of these classes."""
        model = super().build_prompted_clip(classnames)
        assert isinstance(model, TaughtCLIP)
        model.term_weight = self.method_cfg.W
        model.teacher = encode_template(model.clip_model, self.method_cfg.TEACHER, classnames)
        return model


@TRAINER_REGISTRY.register()
class KgCoOpNemesis(NemesisMixin, KgCoOp):
    """KgCoOp with Nemesis: PAN compares the accuracy alone, without kg."""
