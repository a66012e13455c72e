"""PyTorch's optimisers under the names of Dassl's own implementations."""

from torch.optim import AdamW, RAdam

PlainRAdam = RAdam

__all__ = ["AdamW", "PlainRAdam", "RAdam"]
