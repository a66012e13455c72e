"""The frozen CLIP: architecture, tokenizer, loading of weights, and text encoding.

`clip.load`, `clip.tokenize` and `clip.available_models` are OpenAI's functions of these names.
Nothing here imports another package of this repository.
"""

from .clip import available_models, load, tokenize

__all__ = ["available_models", "load", "tokenize"]
