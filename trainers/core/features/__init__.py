"""Cached features of the frozen image encoder: cache, files, cached augmentations."""
