"""Our engine: configuration, data, training loop and evaluation, with the public API of Dassl.

Nothing here knows about CLIP, prompts or any particular dataset; the imports point from the
trainers and datasets to this package and never back.
"""

__version__ = "0.1.0"
