"""Errors that users of clip can fix, each with a message of one sentence."""

from safeio.errors import UserError


class WeightsError(UserError, ValueError):
    """Weights cannot be loaded, are damaged, are not those of a CLIP, or need settings."""


class PromptError(UserError, ValueError, RuntimeError):
    """A text is too long for the text encoder, or the layout of a prompt is unknown.

    Also a RuntimeError, because OpenAI's `clip.tokenize` raises that for a text that is too long.
    """


class ImageSizeError(UserError, ValueError):
    """The images do not have the resolution of the image encoder."""
