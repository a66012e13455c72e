"""Merge, interpolate and prune the low-rank adapters of finished runs."""
