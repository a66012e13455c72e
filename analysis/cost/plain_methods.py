"""CoOp, PLOT, CoCoOp and their Nemesis variants on the textbook CLIP, as published code does them.

One generosity: the published pre-inference of PAN may encode the batch's images again for every
corrupted position; here the image features of the step are used, so that the ratios that are
reported are those against the better of the two plain ways.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from trainers.core.sinkhorn import sinkhorn

from .plain import PlainCLIP, PlainPrompts


@dataclass(frozen=True)
class PlainNemesis:
    """beta * PUN + (1 - beta) * PAN with N drawn positions, omega 1 and no schedule."""

    beta: float
    n: int = 1
    tau: float = 0.5


class PlainCoOp(nn.Module):
    """CoOp's CustomCLIP and its training step."""

    def __init__(self, clip_model: PlainCLIP, classnames: Sequence[str], ctx: Tensor) -> None:
        """Start from a context.

        Args:
            clip_model: frozen.
            classnames: C names.
            ctx: (L, D), or (P, L, D) for `PlainPLOT`; copied.
        """
        super().__init__()
        self.clip_model = clip_model
        self.prompts = PlainPrompts(clip_model, classnames, ctx.shape[-2])
        self.ctx = nn.Parameter(ctx.detach().clone())
        self.learned: list[nn.Parameter] = [self.ctx]
        self._optimiser: torch.optim.Optimizer | None = None

    def image_features(self, images: Tensor) -> Tensor:
        """Normalised features (B, E). Gradient mode stays on: nothing here requires a gradient."""
        return functional.normalize(self.clip_model.visual(images), dim=-1)

    def text_features(self, ctx: Tensor) -> Tensor:
        """Normalised features (C, E) of one prompt for every class."""
        features = self.clip_model.encode_prompts(self.prompts(ctx), self.prompts.eos)
        return functional.normalize(features, dim=-1)

    def match(
        self, image_features: Tensor, text_features: Tensor
    ) -> Float[Tensor, "batch classes"]:
        """Logits of encoded images under encoded prompts."""
        return self.clip_model.logit_scale.exp() * image_features @ text_features.t()

    def logits(self, image_features: Tensor, ctx: Tensor) -> Float[Tensor, "batch classes"]:
        """Logits of encoded images under one prompt."""
        return self.match(image_features, self.text_features(ctx))

    def loss(
        self, images: Tensor, labels: Int[Tensor, " batch"], nemesis: PlainNemesis | None = None
    ) -> Tensor:
        """Cross-entropy, with Nemesis' penalty where it is asked for."""
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
            chosen = self._better_when_rescaled(features, labels, logits, nemesis)
            if chosen:
                loss = loss + (1 - nemesis.beta) * norms[chosen].mean()
        return loss

    @torch.no_grad()
    def _better_when_rescaled(
        self, features: Tensor, labels: Tensor, logits: Tensor, nemesis: PlainNemesis
    ) -> list[int]:
        """PAN's pre-inference: one more full pass of the text tower per drawn position."""
        correct = int((logits.argmax(dim=-1) == labels).sum())
        chosen = []
        for position in torch.randperm(self.ctx.shape[-2])[: nemesis.n].tolist():
            corrupted = self.ctx.detach().clone()
            corrupted[..., position, :] *= nemesis.tau
            predicted = self.logits(features, corrupted).argmax(dim=-1)
            if int((predicted == labels).sum()) > correct:
                chosen.append(position)
        return chosen

    def step(self, images: Tensor, labels: Tensor, nemesis: PlainNemesis | None = None) -> float:
        """One optimisation step; returns the loss."""
        if self._optimiser is None:
            self._optimiser = torch.optim.SGD(
                self.learned, lr=0.002, momentum=0.9, weight_decay=5e-4
            )
        loss = self.loss(images, labels, nemesis)
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        return loss.item()


class PlainPLOT(PlainCoOp):
    """PLOT: every prompt set for every class is a full-length prompt of one batch."""

    def image_features(self, images: Tensor) -> Tensor:
        """Normalised pooled and local features (B, M, E)."""
        return functional.normalize(self.clip_model.visual(images, local=True), dim=-1)

    def text_features(self, ctx: Tensor) -> Float[Tensor, "sets classes embed"]:
        """Normalised features of every set's prompts."""
        prompts = torch.cat([self.prompts(vectors) for vectors in ctx])
        features = self.clip_model.encode_prompts(prompts, self.prompts.eos.repeat(len(ctx)))
        return functional.normalize(features, dim=-1).unflatten(0, (len(ctx), -1))

    def match(
        self, image_features: Tensor, text_features: Tensor
    ) -> Float[Tensor, "batch classes"]:
        """Scaled similarity under the transport plan; Sinkhorn is ours, the same for both."""
        similarity = torch.einsum("bme,pce->bcmp", image_features, text_features)
        plan = sinkhorn(1 - similarity.detach().unsqueeze(0))[0]
        return self.clip_model.logit_scale.exp() * (plan * similarity).sum(dim=(-2, -1))


class PlainCoCoOp(PlainCoOp):
    """CoCoOp: the images of a batch one after the other, each with prompts of its own."""

    def __init__(self, clip_model: PlainCLIP, classnames: Sequence[str], ctx: Tensor) -> None:
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
        """Each image's logits under the prompts that its feature shifts."""
        shifts = self.meta_net(image_features).unsqueeze(1)
        rows = [
            self.match(feature, self.text_features(ctx + shift))
            for feature, shift in zip(image_features, shifts, strict=True)
        ]
        return torch.stack(rows)
