"""The optimisers that Dassl has in this place, which PyTorch has by now."""

from torch.optim import AdamW, RAdam

PlainRAdam = RAdam

__all__ = ["AdamW", "PlainRAdam", "RAdam"]
