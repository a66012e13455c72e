"""Encode deep text prompts `[SOS] T [words] [class name] . [EOS]` with CLIP's frozen text encoder.

T_l replaces the rows behind SOS before layer l = 0 ... d-1 (IVLP and MaPLe, Khattak et al., CVPR
2023, section 3.2; PromptSRC, ICCV 2023). The prompts stand before the names, so their states are
the same for all classes. Rows that the next layer replaces serve as keys and values only: they have
no query, no MLP, and no gradient into the vectors of earlier layers.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from .errors import PromptError
from .model import CLIP
from .packed_transformer import attend_in_blocks
from .prompt_layout import PromptTrie, block_size, fill_blocks, make_blocks
from .text_encoding import SoftPromptEncoder
from .transformer import ResidualAttentionBlock


def check_depth(depth: int, layers: int, tower: str, least: int = 0) -> None:
    """Refuse prompts for layers that a tower does not have.

    Args:
        depth: d, the number of prompted layers from the first one on.
        layers: those of the tower.
        tower: its name, for the message.
        least: the smallest accepted depth.

    Raises:
        PromptError: the depth is not from `least` to `layers`.
    """
    if not least <= depth <= layers:
        raise PromptError(
            f"The prompts' depth is {depth}, but the {tower} encoder has {layers} layers; choose a "
            f"depth from {least} to {layers}."
        )


class ReplacedRows:
    """Blocks of the transformer whose prompt rows are replaced by the next block.

    The residual stream has the rows of the other nodes, group by group; each block appends the keys
    and values of its prompts.

    Attributes:
        nodes: the trie node of each row of a group.
        row: the place of every node in every group, among the stream's rows and then the prompts.
    """

    def __init__(self, trie: PromptTrie, groups: int, dtype: torch.dtype) -> None:
        device, length = trie.token.device, int(trie.slot.max()) + 1
        blocks = trie.everywhere.to(torch.device("cpu"))
        paths = [
            keys[used].tolist()
            for keys, mask in zip(blocks.key_index, blocks.mask, strict=True)
            for used in mask
        ]
        stays = trie.slot.cpu() < 0
        # The trie's last nodes may repeat another one, with which the path of such a node ends.
        fixed = [node for node, path in enumerate(paths) if stays[node] and path[-1] == node]
        filled = fill_blocks(fixed)
        place = {node: number for number, node in enumerate(fixed)}
        own = torch.tensor([place.get(path[-1], 0) for path in paths], device=device)
        group, rows = torch.arange(groups, device=device)[:, None], len(filled)
        prompt = groups * rows + group * length + trie.slot
        self.nodes = torch.tensor(filled, device=device)
        self.row = torch.where(trie.slot < 0, group * rows + own, prompt)
        queries = make_blocks([paths[node] for node in filled], block_size(len(fixed))).to(device)
        self.attention = attend_in_blocks(queries, self.row, dtype)

    def run(
        self,
        blocks: Sequence[ResidualAttentionBlock],
        rows: Float[Tensor, "rows width"],
        prompts: Sequence[Float[Tensor, "vectors width"]],
    ) -> Float[Tensor, "rows width"]:
        """Return the stream after these blocks, each with the prompts of all groups."""
        width = rows.shape[1]
        for block, vectors in zip(blocks, prompts, strict=True):
            layer, normed = block.attn, block.ln_1(rows)
            query = layer.project(normed, slice(width))
            states = (normed, block.ln_1(vectors))
            key_value = torch.cat([layer.project(part, slice(width, None)) for part in states])
            rows = block.finish(rows, self.attention.attend(query, key_value, layer.heads))
        return rows

    def join(
        self, rows: Float[Tensor, "rows width"], prompts: Float[Tensor, "vectors width"]
    ) -> Float[Tensor, "nodes width"]:
        """Return the stream and the prompts as the rows of all nodes in order, group by group."""
        return functional.embedding(self.row.flatten(), torch.cat([rows, prompts]))


class DeepPromptEncoder(SoftPromptEncoder):
    """Encoder of deep prompts for C fixed classes: (G, d, n, D) -> text features (G, C, E)."""

    def __init__(
        self, clip_model: CLIP, classnames: Sequence[str], length: int, words_behind: str = ""
    ) -> None:
        """Lay out the prompts of all classes.

        Args:
            clip_model: the CLIP whose text encoder is used; it is not changed.
            classnames: C names.
            length: n, the number of vectors per layer.
            words_behind: fixed words between the vectors and the name, such as "of a".

        Raises:
            PromptError: a prompt is too long for the text encoder.
        """
        super().__init__(clip_model, classnames, length, words_behind=words_behind)
        self._replaced: dict[tuple[object, ...], ReplacedRows] = {}

    def forward(
        self,
        prompts: Float[Tensor, "depth length width"] | Float[Tensor, "groups depth length width"],
        *inputs: Tensor,
    ) -> Float[Tensor, "classes embed"] | Float[Tensor, "groups classes embed"]:
        """Return the text features at EOS after the projection, not normalised.

        Args:
            prompts: T_0 ... T_{d-1}, the vectors that enter each of the first d layers.
            inputs: what else a subclass's `_encode` takes.

        Raises:
            PromptError: d is not from 1 to the number of layers.
        """
        check_depth(prompts.shape[-3], self.clip_model.transformer.layers, "text", least=1)
        if prompts.dim() == 3:
            return self._encode_in_parts(prompts.unsqueeze(0))[0]
        return self._encode_in_parts(prompts)

    def _class_specific(self, ctx: Tensor) -> bool:
        return False

    def _encode(
        self, prompts: Tensor, span: tuple[int, int], *inputs: Tensor
    ) -> Float[Tensor, "groups classes embed"]:
        """Return the text features of the classes of a span, computed in one pass."""
        groups, depth, _, width = prompts.shape
        if depth == 1:
            return super()._encode(prompts[:, 0], span)
        classes, blocks = self._class_range(False, span), self.clip_model.transformer.blocks
        vectors = prompts.to(classes.frozen.dtype)
        packed = self._packed_apart(classes, vectors, groups)
        replaced = self._replaced_rows(classes.trie, packed.dtype, groups, span)
        first = vectors[:, 0] + classes.frozen[1 : 1 + self.length]  # the positional embedding
        layers = [first, *vectors[:, 1:].unbind(1)]
        *most, last = (layer.reshape(-1, width) for layer in layers)
        rows = classes.frozen[replaced.nodes].repeat(groups, 1)
        rows = replaced.join(replaced.run(blocks[: depth - 1], rows, most), last)
        return self._features(packed.encode(blocks[depth - 1 :], rows), groups, classes)

    def _replaced_rows(
        self, trie: PromptTrie, dtype: torch.dtype, groups: int, span: tuple[int, int]
    ) -> ReplacedRows:
        key = (groups, dtype, span, trie.token.device)
        if key not in self._replaced:
            self._replaced[key] = ReplacedRows(trie, groups, dtype)
        return self._replaced[key]
