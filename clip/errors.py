"""What this package says when it is given something it cannot use: one sentence for a person."""


class ClipError(ValueError):
    """Base of the errors below; its text is one sentence and needs no stack trace."""


class WeightsError(ClipError):
    """Weights that cannot be had, are damaged, are not CLIP's, or are not fully described."""


class PromptError(ClipError, RuntimeError):
    """A text that the text tower cannot hold, or a prompt that cannot be laid out.

    Also a RuntimeError, because that is what OpenAI's `clip.tokenize` raises for a long text.
    """


class ImageSizeError(ClipError):
    """Images of another size than the image tower was built for."""
