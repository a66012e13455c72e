"""The Low-Norm Effect: test corrupted prompts of finished runs; tables and figures."""
