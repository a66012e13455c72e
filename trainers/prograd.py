"""ProGrad: Prompt-aligned Gradient for Prompt Tuning (Zhu et al., ICCV 2023).

CoOp that does not forget the zero-shot teacher's knowledge: a step whose gradient opposes that of
kl loses its component along it. With logits z of the prompts and z_t of the teacher,

    L = CE(z, y),   kl = T^2 CE(z / T, softmax(z_t / T)),
    a = dCE/dV,  u = b / |b|,  b = dkl/dV;   a := a - LAMBDA min(a.u, 0) u   per learned tensor.

SGD's momentum and weight decay follow, as does the gradient of Nemesis' norm losses.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from clip.simple_tokenizer import tokenizer
from dassl.config import CfgNode, declare_aliases, declare_config
from dassl.engine import TRAINER_REGISTRY
from dassl.metrics import compute_accuracy
from safeio.errors import UserError

from .core.frozen_encoder import autocast
from .core.prompt_learner import embed_words
from .core.prompt_trainer import PromptTrainer
from .core.prompted_clip import PromptedCLIP
from .core.teacher import DEFAULT_TEMPLATE, TaughtCLIP, check_settings, encode_template
from .nemesis_trainer import NemesisMixin

# Where the prompts are the teacher's, b is rounding noise (5e-8 |a| in fp32).
NEGLIGIBLE = 1e-6

declare_config(
    "TRAINER.PROGRAD",
    {
        "N_CTX": 16,
        "CSC": False,
        "CTX_INIT": "",
        "WORDS": False,  # start from the words of TEACHER before {}, behind vectors of zeros
        "PREC": "fp32",
        "CLASS_TOKEN_POSITION": "end",
        "T": 1.0,  # temperature of both softmaxes in kl
        "LAMBDA": 1.0,  # share of the opposing component to remove; 0 is CoOp
        "TEACHER": DEFAULT_TEMPLATE,
    },
)
declare_aliases({f"LOSS.{key}": f"TRAINER.PROGRAD.{key}" for key in ("T", "LAMBDA")})


def project(
    a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"], strength: float
) -> tuple[Float[Tensor, "*shape"], Bool[Tensor, ""], Bool[Tensor, ""]]:
    """Remove from a its component along -b (ProGrad, section 3.2).

    Returns:
        The gradient to use, NaN if b is not finite; whether a opposed b; and whether b was
        negligible, so that nothing was removed.
    """
    size = torch.linalg.vector_norm(b)
    counts = size > NEGLIGIBLE * torch.linalg.vector_norm(a)
    unit = b / torch.where(counts, size, 1.0)
    along = (a * unit).sum()
    opposed = counts & (along < 0)
    return a - torch.where(opposed, strength * along, 0 * size) * unit, opposed, ~counts


@TRAINER_REGISTRY.register()
class ProGrad(PromptTrainer):
    """Prompt-aligned gradient."""

    paper = "Zhu et al., ICCV 2023"
    prompts = "context vectors whose steps do not oppose the zero-shot teacher"
    normalizes = "the context vectors, after the gradient is projected"
    node = "PROGRAD"
    prompted_clip = TaughtCLIP
    resumes_within_epoch = trains_on_features = True
    model: TaughtCLIP

    def check_cfg(self, cfg: CfgNode) -> None:
        """Also check the template, T, LAMBDA and the words before anything is loaded."""
        super().check_cfg(cfg)
        check_settings(cfg, self.node, "LAMBDA")
        node = cfg.TRAINER.PROGRAD
        if not node.T > 0:
            raise UserError(f"TRAINER.PROGRAD.T is {node.T}, but must be above 0.")
        count = len(tokenizer().encode(_words(node)))
        if node.WORDS and (node.CTX_INIT or not 1 <= count <= node.N_CTX):
            raise UserError(
                f"TRAINER.PROGRAD.WORDS needs 1 to N_CTX ({node.N_CTX}) tokens before {{}} in "
                f'TEACHER "{node.TEACHER}", which has {count}, and an empty CTX_INIT.'
            )

    def build_prompted_clip(self, classnames: list[str]) -> PromptedCLIP:
        """Build CLIP with the teacher's text features, and start from its words with WORDS."""
        model, node = super().build_prompted_clip(classnames), self.method_cfg
        model.teacher = encode_template(model.clip_model, node.TEACHER, classnames)
        if node.WORDS:
            words, ctx = embed_words(model.clip_model, _words(node)), model.prompt_learner.ctx
            with torch.no_grad():
                ctx.zero_()[..., -len(words) :, :] = words
        return model

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Run one optimisation step on the projected gradient."""
        temperature = self.method_cfg.T
        with autocast(self.clip_precision, self.device):
            image_features, labels = self.features_and_labels(batch)
            logits = self.model.logits(image_features, self.model.prompt_learner())[0]
            cross_entropy = functional.cross_entropy(logits, labels)
            target = (self.model.teacher_logits(image_features).float() / temperature).softmax(-1)
            kl = temperature**2 * functional.cross_entropy(logits.float() / temperature, target)
            penalty, entries = self.penalty(image_features, labels, logits)
        loss = cross_entropy + penalty
        self.model_zero_grad()
        self.detect_anomaly(loss)
        projections = self._set_gradients(cross_entropy, kl)
        if isinstance(penalty, Tensor):
            self.scaler.scale(penalty).backward()
        self.model_update()
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        losses = {"loss": loss.detach(), "ce": cross_entropy.detach(), "kl": kl.detach()}
        numbers = {"norm": self.position_norms().mean(), "acc": compute_accuracy(logits, labels)[0]}
        return {**losses, **projections, **entries, **numbers}

    def _set_gradients(self, cross_entropy: Tensor, kl: Tensor) -> dict[str, Tensor]:
        """Set the projected gradient of each learned tensor, scaled; return shares to log."""
        tensors, shares = list(self.model.prompt_learner.parameters()), []
        toward = torch.autograd.grad(self.scaler.scale(cross_entropy), tensors, retain_graph=True)
        knowledge = torch.autograd.grad(self.scaler.scale(kl), tensors)
        for tensor, a, b in zip(tensors, toward, knowledge, strict=True):
            tensor.grad, *found = project(a, b, self.method_cfg.LAMBDA)
            shares.append(torch.stack(found).float())
        projected, ignored = torch.stack(shares).mean(0)
        return {"projected": projected, "kl_ignored": ignored}


def _words(node: CfgNode) -> str:
    """Return the words of the teacher's template before the class name."""
    words: str = node.TEACHER.partition("{}")[0]
    return words


@TRAINER_REGISTRY.register()
class ProGradNemesis(NemesisMixin, ProGrad):
    """ProGrad with Nemesis: the norm losses' gradient is added to the projected one."""
