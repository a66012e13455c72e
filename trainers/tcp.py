"""TCP: Textual-based Class-aware Prompt Tuning (Yao et al., CVPR 2024).

A meta-net maps the features t of a hand-written template to class tokens K (C, 4, D), which replace
the states of the context V before block INSERT_LAYER of the text encoder:

    K = Linear(E/4, 4 D) - QuickGELU - Linear(E, E/4) of t,
    L = CE + W * kg,   kg = 1 - (1/C) sum_c cos(g_c(V, K), t_c).

Without Adam's eps of 1e-3, fp16 gives NaN; it changes the steps, so it is part of the recipe.
"""

from collections import OrderedDict

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from clip.class_tokens import COUNT, ClassTokenEncoder, arrange_text, check_layer
from clip.model import CLIP
from clip.transformer import QuickGELU
from clip.weights import known_config
from dassl.config import CfgNode, declare_config
from dassl.engine import TRAINER_REGISTRY
from safeio.errors import UserError

from .core.prompt_learner import PromptLearner, prompt_length
from .core.prompt_trainer import PromptTrainer
from .core.prompted_clip import PromptedCLIP
from .core.teacher import DEFAULT_TEMPLATE, TaughtCLIP, check_settings, encode_template
from .nemesis_trainer import NemesisMixin

declare_config(
    "TRAINER.TCP",
    {
        "N_CTX": COUNT,  # always 4
        "CTX_INIT": "",  # 4 tokens
        "PREC": "fp32",
        "W": 8.0,  # weight of kg
        "INSERT_LAYER": 8,  # l, the block before which the class tokens are inserted, from 0
        "BLEND": 1.0,  # w: share of the class tokens, the rest is the context's states
        "TEACHER": DEFAULT_TEMPLATE,
        "STUDENT": "X X X X {}.",  # the context replaces the first 4 tokens
    },
)


class ClassTokenLearner(PromptLearner):
    """Context vectors, and the meta-net that makes class tokens of the teacher's features."""

    def __init__(self, clip_model: CLIP, num_classes: int, ctx_init: str = "") -> None:
        super().__init__(clip_model, num_classes, COUNT, ctx_init)
        embed, width = clip_model.visual.output_dim, self.ctx.shape[-1]
        layers = [
            ("linear1", nn.Linear(embed, embed // 4)),
            ("gelu", QuickGELU()),
            ("linear2", nn.Linear(embed // 4, COUNT * width)),
        ]
        self.meta_net = nn.Sequential(OrderedDict(layers)).to(self.ctx.device)

    def class_tokens(
        self, teacher: Float[Tensor, "classes embed"]
    ) -> Float[Tensor, "classes 4 width"]:
        """Return K."""
        return self.meta_net(teacher.float()).unflatten(-1, (COUNT, -1))


class ClassTokenCLIP(TaughtCLIP):
    """A frozen CLIP whose text encoder takes context vectors and class tokens."""

    prompt_learner: ClassTokenLearner

    def text_features(
        self, ctx: Float[Tensor, "groups length width"]
    ) -> Float[Tensor, "groups classes embed"]:
        """Return normalised text features; all groups have the same class tokens."""
        tokens = self.prompt_learner.class_tokens(self.teacher)
        return functional.normalize(self.text_encoder(ctx, tokens), dim=-1)


@TRAINER_REGISTRY.register()
class TCP(PromptTrainer):
    """Textual-based class-aware prompts."""

    paper = "Yao et al., CVPR 2024"
    prompts = "context vectors, and class tokens of a meta-net inserted into the text encoder"
    normalizes = "the context vectors; corrupted prompts have the same class tokens"
    node = "TCP"

    def check_cfg(self, cfg: CfgNode) -> None:
        """Also check the templates, the length and the layer before anything is loaded."""
        super().check_cfg(cfg)
        node = cfg.TRAINER.TCP
        check_settings(cfg, self.node, "W")
        arrange_text(node.STUDENT, "")
        if (length := prompt_length(node.N_CTX, node.CTX_INIT)) != COUNT:
            source = f'CTX_INIT "{node.CTX_INIT}" has' if node.CTX_INIT else "N_CTX is"
            raise UserError(
                f"TRAINER.TCP.{source} {length}{' tokens' * bool(node.CTX_INIT)}, but TCP inserts "
                f"{COUNT} class tokens in place of {COUNT} context vectors; set {COUNT}."
            )
        if not 0 <= node.BLEND <= 1:
            raise UserError(f"TRAINER.TCP.BLEND is {node.BLEND}, but must be from 0 to 1.")
        known = known_config(cfg.MODEL.BACKBONE.NAME)
        check_layer(node.INSERT_LAYER, known.transformer_layers if known else node.INSERT_LAYER + 1)

    def build_prompted_clip(self, classnames: list[str]) -> PromptedCLIP:
        """Build CLIP with the meta-net, the teacher's features and the encoder of class tokens."""
        node, clip_model = self.method_cfg, self.loaded_clip.model
        check_layer(node.INSERT_LAYER, len(clip_model.transformer.blocks))
        learner = ClassTokenLearner(clip_model, len(classnames), node.CTX_INIT)
        model = ClassTokenCLIP(clip_model, classnames, learner)
        model.text_encoder = ClassTokenEncoder(
            clip_model, classnames, node.STUDENT, node.INSERT_LAYER, node.BLEND
        )
        model.term_weight = node.W
        model.teacher = encode_template(clip_model, node.TEACHER, classnames)
        return model


@TRAINER_REGISTRY.register()
class TCPNemesis(NemesisMixin, TCP):
    """TCP with Nemesis: corrupted prompts keep their class tokens."""
