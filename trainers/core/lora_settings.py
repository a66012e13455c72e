"""Settings of low-rank adapters: where they are, their rank and their factor."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safeio.errors import UserError

VISION, TEXT = TOWERS = ("vision", "text")
PROJECTIONS = ("q", "k", "v", "o")
# Position -> first and last block as fractions of the tower's depth.
POSITIONS = {
    "all": (0.0, 1.0),
    "bottom": (0.0, 1 / 3),
    "mid": (1 / 3, 2 / 3),
    "up": (2 / 3, 1.0),
    "half-bottom": (0.0, 0.5),
    "half-up": (0.5, 1.0),
}
TOP3 = "top3"  # the last three blocks of any tower
SCALINGS = ("sqrt", "rank")


@dataclass(frozen=True)
class LoRASettings:
    """Where the adapters are, and their shape.

    Attributes:
        encoder: text, vision or both.
        params: the adapted projections, of q, k, v, o.
        position: a key of `POSITIONS`, or top3.
        blocks: block numbers from 0 in every adapted tower, instead of a position.
        r, alpha, dropout: rank, numerator of gamma, probability in training.
        scaling: gamma is alpha / sqrt(r) (`sqrt`, CLIP-LoRA's code) or alpha / r (`rank`).
    """

    encoder: str
    params: tuple[str, ...]
    position: str
    blocks: tuple[int, ...]
    r: int
    alpha: float
    dropout: float
    scaling: str

    @classmethod
    def from_config(cls, node: Any, group: str) -> "LoRASettings":
        """Read the node cfg.TRAINER.`group`.

        Raises:
            UserError: a value is not accepted.
        """
        settings = cls(
            encoder=node.ENCODER,
            params=tuple(node.PARAMS),
            position=node.POSITION,
            blocks=tuple(node.BLOCKS),
            r=node.R,
            alpha=float(node.ALPHA),
            dropout=float(node.DROPOUT),
            scaling=node.SCALING,
        )
        settings._check(f"TRAINER.{group}")
        return settings

    def _check(self, group: str) -> None:
        choices = {
            "ENCODER": ([self.encoder], (*TOWERS, "both")),
            "PARAMS": (self.params or [""], PROJECTIONS),
            "POSITION": ([self.position], (*POSITIONS, TOP3)),
            "SCALING": ([self.scaling], SCALINGS),
        }
        for key, (values, accepted) in choices.items():
            for value in values:
                if value not in accepted or len(set(values)) < len(values):
                    found = ", ".join(map(str, values))
                    names = ", ".join(accepted)
                    raise UserError(
                        f"{group}.{key} is {found!r}, but must be of {names}, each once"
                    )
        if self.r < 1:
            raise UserError(f"{group}.R is {self.r}, but the rank must be at least 1")
        if not 0 < self.alpha < float("inf"):
            raise UserError(f"{group}.ALPHA is {self.alpha:g}, but must be a number above 0")
        if not 0 <= self.dropout < 1:
            raise UserError(f"{group}.DROPOUT is {self.dropout:g}, but must be from 0 to below 1")
        if not all(type(block) is int for block in self.blocks):
            raise UserError(f"{group}.BLOCKS is {list(self.blocks)}, but must be block numbers")

    @property
    def gamma(self) -> float:
        """The factor of B A."""
        return self.alpha / (self.r if self.scaling == "rank" else self.r**0.5)

    @property
    def towers(self) -> tuple[str, ...]:
        """The adapted towers, vision first."""
        return TOWERS if self.encoder == "both" else (self.encoder,)

    def blocks_of(self, tower: str, depth: int) -> list[int]:
        """Return the adapted blocks of a tower with `depth` blocks, ascending.

        Raises:
            UserError: a block is outside the tower, or the position selects none.
        """
        if self.blocks:
            outside = [block for block in self.blocks if not 0 <= block < depth]
            if outside or len(set(self.blocks)) < len(self.blocks):
                raise UserError(
                    f"BLOCKS is {list(self.blocks)}, but the {tower} tower has the blocks 0 to "
                    f"{depth - 1}; list some of these, each once"
                )
            return sorted(self.blocks)
        if self.position == TOP3:
            return list(range(max(0, depth - 3), depth))
        first, last = (round(part * depth) for part in POSITIONS[self.position])
        if first == last:
            raise UserError(
                f"POSITION {self.position} selects no block of a {tower} tower with {depth} "
                "blocks; choose another position, or list BLOCKS"
            )
        return list(range(first, last))

    def keys(self, depths: Mapping[str, int]) -> list[str]:
        """Return the adapters' keys, vision first, by block and projection.

        Args:
            depths: the number of blocks of each transformer tower of the CLIP.

        Raises:
            UserError: a tower has no such layers.
        """
        found = []
        for tower in self.towers:
            if tower not in depths:
                raise UserError(
                    "The image encoder is a ResNet, which has no attention blocks to adapt; set "
                    "ENCODER text, or choose a vision transformer"
                )
            blocks = self.blocks_of(tower, depths[tower])
            params = [name for name in PROJECTIONS if name in self.params]
            found += [f"{tower}.{block}.{name}" for block in blocks for name in params]
        return found
