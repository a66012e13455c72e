"""Features of the frozen image tower, computed once: cache, files, cached augmentations."""
