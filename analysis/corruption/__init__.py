"""The Low-Norm Effect: corrupted prompts of finished runs, and what comes of them."""
