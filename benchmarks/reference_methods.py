"""Reference implementations of CoOp, PLOT, CoCoOp and their Nemesis variants.

They follow the published code with one exception: the published pre-inference of PAN may encode
the batch's images again for every corrupted position; here it reuses the step's image features, so
that the reported ratios are relative to the faster variant.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from .reference_clip import ReferenceCLIP, ReferencePrompts, named


@dataclass(frozen=True)
class ReferenceNemesis:
    """Settings of beta * PUN + (1 - beta) * PAN, without a schedule.

    Attributes:
        beta: weight of PUN.
        n: number of random positions that PAN rescales.
        tau: their factor.
        order: p of the vectors' p-norm.
    """

    beta: float
    n: int = 1
    tau: float = 0.5
    order: float = 2.0


class ReferenceCoOp(nn.Module):
    """CoOp's CustomCLIP and its training step.

    Args:
        clip_model: the frozen model.
        classnames: C names.
        ctx: (L, D), or (C, L, D) if class-specific, with PLOT's sets as the third-last dimension;
            copied.
        position: of the class name.
    """

    def __init__(
        self,
        clip_model: ReferenceCLIP,
        classnames: Sequence[str],
        ctx: Tensor,
        position: str = "end",
    ) -> None:
        super().__init__()
        self.clip_model = clip_model
        self.prompts = ReferencePrompts(clip_model, classnames, ctx.shape[-2], position)
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
        norms = vector_norms(self.ctx, nemesis.order)
        if nemesis.beta > 0:
            loss = loss + nemesis.beta * norms.mean()
        if nemesis.beta < 1:
            positions = torch.randperm(len(norms))[: nemesis.n].tolist()
            corrupted = self.pre_inference(features, self.ctx, positions, nemesis.tau)
            selected = better_positions(logits, corrupted, labels, positions)
            if selected:
                loss = loss + (1 - nemesis.beta) * norms[selected].mean()
        return loss

    @torch.no_grad()
    def pre_inference(
        self, features: Tensor, ctx: Tensor, positions: Sequence[int], tau: float
    ) -> list[Tensor]:
        """Return the logits with each position rescaled: one more full text pass per position."""
        rows = []
        for position in positions:
            corrupted = ctx.detach().clone()
            corrupted[..., position, :] *= tau
            rows.append(self.logits(features, corrupted))
        return rows

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

    eps = 0.1

    def image_features(self, images: Tensor) -> Tensor:
        """Return normalised pooled and local features (B, M, E)."""
        return functional.normalize(self.clip_model.visual(images, local=True), dim=-1)

    def text_features(self, ctx: Tensor) -> Float[Tensor, "sets classes embed"]:
        """Return normalised features of every set's prompts."""
        sets = ctx.unbind(-3)
        prompts = torch.cat([self.prompts(vectors) for vectors in sets])
        features = self.clip_model.encode_prompts(prompts, self.prompts.eos.repeat(len(sets)))
        return functional.normalize(features, dim=-1).unflatten(0, (len(sets), -1))

    def match(
        self, image_features: Tensor, text_features: Tensor
    ) -> Float[Tensor, "batch classes"]:
        """Return scaled similarity under the transport plan."""
        similarity = torch.einsum("bme,pce->bcmp", image_features, text_features)
        plan = transport(similarity.detach(), self.eps)
        return self.clip_model.logit_scale.exp() * (plan * similarity).sum(dim=(-2, -1))


class ReferenceCoCoOp(ReferenceCoOp):
    """CoCoOp; every image of a batch has its own prompts and text-encoder pass."""

    def __init__(self, clip_model: ReferenceCLIP, classnames: Sequence[str], ctx: Tensor) -> None:
        super().__init__(clip_model, classnames, ctx)
        embed, width = clip_model.text_projection.shape[1], ctx.shape[-1]
        self.meta_net = named(
            linear1=nn.Linear(embed, embed // 16),
            relu=nn.ReLU(inplace=True),
            linear2=nn.Linear(embed // 16, width),
        ).to(ctx.device)
        self.learned += list(self.meta_net.parameters())

    def logits(self, image_features: Tensor, ctx: Tensor) -> Float[Tensor, "batch classes"]:
        """Return each image's logits under the prompts conditioned on it."""
        shifts = self.meta_net(image_features).unsqueeze(1)
        rows = [
            self.match(feature, self.text_features(ctx + shift))
            for feature, shift in zip(image_features, shifts, strict=True)
        ]
        return torch.stack(rows)


def vector_norms(ctx: Tensor, order: float = 2.0) -> Float[Tensor, " length"]:
    """Return the p-norm of each position's vector, summed over classes and prompt sets."""
    norms = torch.linalg.vector_norm(ctx, order, dim=-1)
    return norms.reshape(-1, norms.shape[-1]).sum(dim=0)


def better_positions(
    logits: Tensor, corrupted: Sequence[Tensor], labels: Tensor, positions: Sequence[int]
) -> list[int]:
    """Return the positions whose corrupted prompt classifies more of the batch correctly."""
    correct = [int((row.argmax(dim=-1) == labels).sum()) for row in (logits, *corrupted)]
    return [p for p, count in zip(positions, correct[1:], strict=True) if count > correct[0]]


def transport(
    similarity: Float[Tensor, "*pairs tokens sets"],
    eps: float = 0.1,
    max_iter: int = 100,
    thresh: float = 0.01,
) -> Tensor:
    """Return Sinkhorn's transport plans as PLOT's code computes them, with its stopping rule."""
    kernel = torch.exp((similarity - 1) / eps)
    row, column = torch.ones_like(kernel[..., 0]), torch.ones_like(kernel[..., 0, :])
    for _ in range(max_iter):
        before = row
        row = 1 / kernel.shape[-2] / (kernel @ column.unsqueeze(-1)).squeeze(-1)
        column = 1 / kernel.shape[-1] / (kernel.mT @ row.unsqueeze(-1)).squeeze(-1)
        if (row - before).abs().mean() < thresh:
            break
    return row.unsqueeze(-1) * kernel * column.unsqueeze(-2)
