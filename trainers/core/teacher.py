"""The frozen CLIP with a hand-written template as teacher: t (C, E), once per class list.

Each method's roles are keys of its node with a template, which the dataset's file sets. They count
for the identity of the runs that use them alone.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from clip import tokenize
from clip.model import CLIP
from clip.prompt_layout import clean_classname
from dassl.config import CfgNode
from safeio.errors import UserError

from .dataset_settings import declare_dataset_settings
from .prompted_clip import PromptedCLIP

DEFAULT_TEMPLATE = "a photo of a {}."
ROLES = {"KGCOOP": ("TEACHER",), "PROGRAD": ("TEACHER",), "TCP": ("TEACHER", "STUDENT")}

for _node, _roles in ROLES.items():
    declare_dataset_settings(_node, *_roles)


def check_template(key: str, template: str) -> None:
    """Raise an error for a template without a place for the class name.

    Raises:
        UserError: it has no {}.
    """
    if "{}" not in template:
        raise UserError(
            f'{key}: "{template}" has no {{}} for the class name; add one, as in '
            f'"{DEFAULT_TEMPLATE}"'
        )


def check_settings(cfg: CfgNode, node: str, *weights: str) -> None:
    """Check the templates of a method's node, and that its weights are not negative.

    Raises:
        UserError: a template has no {}, or a weight is below 0.
    """
    for role in ROLES[node]:
        check_template(f"TRAINER.{node}.{role}", cfg.TRAINER[node][role])
    for name in weights:
        if not cfg.TRAINER[node][name] >= 0:
            value = cfg.TRAINER[node][name]
            raise UserError(f"TRAINER.{node}.{name} is {value}, but must be at least 0.")


@torch.no_grad()
def encode_template(
    clip_model: CLIP, template: str, classnames: Sequence[str]
) -> Float[Tensor, "classes embed"]:
    """Return the normalised text features of a template with each class name."""
    prompts = [template.replace("{}", clean_classname(name)) for name in classnames]
    print(f"Prompts: {prompts[:5]} ...")
    tokens = tokenize(prompts).to(clip_model.token_embedding.weight.device)
    return functional.normalize(clip_model.encode_text(tokens), dim=-1)


class TaughtCLIP(PromptedCLIP):
    """A frozen CLIP with soft prompts, and the teacher's text features for the same classes.

    If `term_weight` is set, training adds term_weight * kg to the loss,

        kg = 1 - (1/C) sum_c cos(g_c, t_c).

    Attributes:
        teacher: t, normalised, without gradient.
    """

    term_name = "kg"
    teacher: Tensor

    def teacher_logits(
        self, image_features: Float[Tensor, "batch embed"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the teacher's logits of image features."""
        return self.match(image_features, self.teacher.unsqueeze(0))[0]

    def training_outputs(
        self,
        image_features: Float[Tensor, "*runs batch embed"],
        ctx: Float[Tensor, "groups *sets length width"],
    ) -> tuple[Float[Tensor, "groups batch classes"], Float[Tensor, " groups"] | None]:
        """Return the logits, and kg of every group."""
        if self.term_weight is None:
            return super().training_outputs(image_features, ctx)
        text = self.text_features(ctx)
        cosines = (text.float() * self.teacher.float()).sum(-1)
        return self.match(image_features, text), 1 - cosines.mean(-1)
