"""Datasets: each file only says how to list its images and class names."""
