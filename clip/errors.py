"""What clip says when it is given something it cannot use: one sentence for a person."""

from safeio.errors import UserError


class WeightsError(UserError, ValueError):
    """Weights that cannot be had, are damaged, are not CLIP's, or are not fully described."""


class PromptError(UserError, ValueError, RuntimeError):
    """A text that the text tower cannot hold, or a prompt that cannot be laid out.

    Also a RuntimeError, because that is what OpenAI's `clip.tokenize` raises for a long text.
    """


class ImageSizeError(UserError, ValueError):
    """Images of another size than the image tower was built for."""
