"""Reference implementations of CoOp, PLOT, CoCoOp and their Nemesis variants.

They follow the published code with one exception: the published pre-inference of PAN may encode
the batch's images again for every corrupted position; here it reuses the step's image features, so
that the reported ratios are relative to the faster variant.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from trainers.core.sinkhorn import sinkhorn

from .reference_clip import ReferenceCLIP, ReferencePrompts


@dataclass(frozen=True)
class ReferenceNemesis:
    """Settings of beta * PUN + (1 - beta) * PAN with N random positions, omega 1, no schedule."""

    beta: float
    n: int = 1
    tau: float = 0.5


class ReferenceCoOp(nn.Module):
    """CoOp's CustomCLIP and its training step."""

    def __init__(self, clip_model: ReferenceCLIP, classnames: Sequence[str], ctx: Tensor) -> None:
        """Initialize from context vectors.

        Args:
            clip_model: the frozen model.
            classnames: C names.
            ctx: (L, D), or (P, L, D) for `ReferencePLOT`; copied.
        """
        super().__init__()
        self.clip_model = clip_model
        self.prompts = ReferencePrompts(clip_model, classnames, ctx.shape[-2])
        self.ctx = nn.Parameter(ctx.detach().clone())
        self.learned: list[nn.Parameter] = [self.ctx]
        self._optimiser: torch.optim.Optimizer | None = None

    def image_features(self, images: Tensor) -> Tensor:
        """Return normalised features (B, E); no_grad is not needed, as all weights are frozen."""
        return functional.normalize(self.clip_model.visual(images), dim=-1)

    def text_features(self, ctx: Tensor) -> Tensor:
        """Return normalised features (C, E) of one prompt for every class."""
        features = self.clip_model.encode_prompts(self.prompts(ctx), self.prompts.eos)
        return functional.normalize(features, dim=-1)

    def match(
        self, image_features: Tensor, text_features: Tensor
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits of image features and text features."""
        return self.clip_model.logit_scale.exp() * image_features @ text_features.t()

    def logits(self, image_features: Tensor, ctx: Tensor) -> Float[Tensor, "batch classes"]:
        """Return the logits of image features under one prompt."""
        return self.match(image_features, self.text_features(ctx))

    def loss(
        self, images: Tensor, labels: Int[Tensor, " batch"], nemesis: ReferenceNemesis | None = None
    ) -> Tensor:
        """Return the cross-entropy, plus Nemesis' penalty if configured."""
        features = self.image_features(images)
        logits = self.logits(features, self.ctx)
        loss = functional.cross_entropy(logits, labels)
        if nemesis is None:
            return loss
        norms = self.ctx.norm(dim=-1)
        norms = norms if norms.dim() == 1 else norms.sum(dim=0)
        if nemesis.beta > 0:
            loss = loss + nemesis.beta * norms.mean()
        if nemesis.beta < 1:
            selected = self._better_when_rescaled(features, labels, logits, nemesis)
            if selected:
                loss = loss + (1 - nemesis.beta) * norms[selected].mean()
        return loss

    @torch.no_grad()
    def _better_when_rescaled(
        self, features: Tensor, labels: Tensor, logits: Tensor, nemesis: ReferenceNemesis
    ) -> list[int]:
        """Run PAN's pre-inference: one more full pass of the text encoder per drawn position."""
        correct = int((logits.argmax(dim=-1) == labels).sum())
        selected = []
        for position in torch.randperm(self.ctx.shape[-2])[: nemesis.n].tolist():
            corrupted = self.ctx.detach().clone()
            corrupted[..., position, :] *= nemesis.tau
            predicted = self.logits(features, corrupted).argmax(dim=-1)
            if int((predicted == labels).sum()) > correct:
                selected.append(position)
        return selected

    def step(
        self, images: Tensor, labels: Tensor, nemesis: ReferenceNemesis | None = None
    ) -> float:
        """Run one optimisation step and return the loss."""
        if self._optimiser is None:
            self._optimiser = torch.optim.SGD(
                self.learned, lr=0.002, momentum=0.9, weight_decay=5e-4
            )
        loss = self.loss(images, labels, nemesis)
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        return loss.item()


class ReferencePLOT(ReferenceCoOp):
    """PLOT; the prompts of all sets and classes form one batch of full-length prompts."""

    def image_features(self, images: Tensor) -> Tensor:
        """Return normalised pooled and local features (B, M, E)."""
        return functional.normalize(self.clip_model.visual(images, local=True), dim=-1)

    def text_features(self, ctx: Tensor) -> Float[Tensor, "sets classes embed"]:
        """Return normalised features of every set's prompts."""
        prompts = torch.cat([self.prompts(vectors) for vectors in ctx])
        features = self.clip_model.encode_prompts(prompts, self.prompts.eos.repeat(len(ctx)))
        return functional.normalize(features, dim=-1).unflatten(0, (len(ctx), -1))

    def match(
        self, image_features: Tensor, text_features: Tensor
    ) -> Float[Tensor, "batch classes"]:
        """Return scaled similarity under the transport plan; both sides share one Sinkhorn."""
        similarity = torch.einsum("bme,pce->bcmp", image_features, text_features)
        plan = sinkhorn(1 - similarity.detach().unsqueeze(0))[0]
        return self.clip_model.logit_scale.exp() * (plan * similarity).sum(dim=(-2, -1))


class ReferenceCoCoOp(ReferenceCoOp):
    """CoCoOp; every image of a batch has its own prompts and text-encoder pass."""

    def __init__(self, clip_model: ReferenceCLIP, classnames: Sequence[str], ctx: Tensor) -> None:
        super().__init__(clip_model, classnames, ctx)
        embed, width = clip_model.text_projection.shape[1], ctx.shape[-1]
        layers = [
            ("linear1", nn.Linear(embed, embed // 16)),
            ("relu", nn.ReLU(inplace=True)),
            ("linear2", nn.Linear(embed // 16, width)),
        ]
        self.meta_net = nn.Sequential(OrderedDict(layers)).to(ctx.device)
        self.learned += list(self.meta_net.parameters())

    def logits(self, image_features: Tensor, ctx: Tensor) -> Float[Tensor, "batch classes"]:
        """Return each image's logits under the prompts conditioned on it."""
        shifts = self.meta_net(image_features).unsqueeze(1)
        rows = [
            self.match(feature, self.text_features(ctx + shift))
            for feature, shift in zip(image_features, shifts, strict=True)
        ]
        return torch.stack(rows)
