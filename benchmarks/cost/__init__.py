"""Benchmark of the cost of a step: this repository against a reference implementation."""
