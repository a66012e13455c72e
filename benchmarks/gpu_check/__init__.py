"""Check a device in one go: parity, determinism, resuming, costs, graphs and batches of runs."""
