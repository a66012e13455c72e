"""What the methods share: the prompt trainer, prompts and their CLIP, cached features, files."""
