"""Code that the methods share: prompt trainer, prompt learner, CLIP, cached features, files."""
