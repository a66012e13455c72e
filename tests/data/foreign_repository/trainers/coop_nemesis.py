import random

import torch
from torch.nn import functional as F

from dassl.engine import TRAINER_REGISTRY
from dassl.engine.trainer import SummaryWriter
from dassl.utils.tools import mkdir_if_missing

from .context import Context

NORMS = {"one": 1, "two": 2, "inf": float("inf")}


@TRAINER_REGISTRY.register()
class CoOpNemesis(Context):
    node = "CoOpNemesis"

    def uniform(self, ctx):
        node = self.cfg.TRAINER.CoOpNemesis
        return node.A * ctx.norm(NORMS[node.NT], dim=-1).mean()

    def aware(self, image, label, output):
        node, ctx = self.cfg.TRAINER.CoOpNemesis, self.model.prompt_learner.ctx
        right = (output.argmax(-1) == label).sum()
        total, count = 0.0, 0
        for position in random.sample(range(node.N_CTX), node.NP):
            corrupted = ctx.detach().clone()
            corrupted[..., position, :] *= node.CW
            with torch.no_grad():
                better = (self.model(image, corrupted).argmax(-1) == label).sum() > right
            if better:
                total = total + ctx[..., position, :].norm(NORMS[node.NT], dim=-1).mean()
                count += 1
        return node.A * total / max(count, 1)

    def loss(self, image, label):
        node = self.cfg.TRAINER.CoOpNemesis
        output = self.model(image)
        loss = F.cross_entropy(output, label)
        omega = 1 - 1 / (1 + torch.exp(torch.tensor(-0.2 * (self.epoch - 0.5 * self.max_epoch))))
        uniform = self.uniform(self.model.prompt_learner.ctx)
        if node.BETA is None:
            return output, loss + omega * uniform
        aware = self.aware(image, label, output)
        return output, loss + omega * (node.BETA * uniform + (1 - node.BETA) * aware)

    def after_train(self):
        super().after_train()
        mkdir_if_missing(self.output_dir + "/norms")
        writer = SummaryWriter(self.output_dir + "/norms")
        writer.add_scalar("norm", self.model.prompt_learner.ctx.norm().item(), self.epoch)
        writer.close()
