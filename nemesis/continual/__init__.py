"""Continual learning: a dataset's classes in tasks, trained one after the other."""
