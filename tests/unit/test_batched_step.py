"""A step of a batch updates each run's prompts as the run alone would, rounding included."""

import torch

from benchmarks.synthetic import Backbone, class_names, synthetic_trainer
from trainers.core.batched_step import BatchedPrompts, Settings

CPU = torch.device("cpu")
SETTINGS = [(0.9, 5e-4, 0.3), (0.0, 0.0, 0.002), (0.5, 0.1, 1e-5)]  # momentum, decay, rate


def test_sgd_in_closed_form_is_pytorchs_bit_for_bit() -> None:
    """Another rounding would grow, until a long training differs visibly."""
    model = synthetic_trainer("CoOp", Backbone.find("mini"), class_names(3), CPU).model
    shape = model.prompt_learner.ctx.shape
    settings = [Settings(None, momentum, decay) for momentum, decay, _ in SETTINGS]
    prompts = BatchedPrompts(model, "fp32", settings, shape)
    torch.manual_seed(0)
    alone = [torch.nn.Parameter(torch.randn(shape)) for _ in SETTINGS]
    optimizers = [
        torch.optim.SGD([ctx], lr=rate, momentum=momentum, weight_decay=decay)
        for ctx, (momentum, decay, rate) in zip(alone, SETTINGS, strict=True)
    ]
    rates = torch.tensor([rate for _, _, rate in SETTINGS])
    with torch.no_grad():
        prompts.ctx.copy_(torch.stack([*alone]))
        for _ in range(20):
            gradient = torch.randn(len(SETTINGS), *shape)
            prompts._update(gradient, rates)
            for ctx, own, optimizer in zip(alone, gradient, optimizers, strict=True):
                ctx.grad = own
                optimizer.step()
            assert torch.equal(prompts.ctx, torch.stack([*alone]))
