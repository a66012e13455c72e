import os.path as osp

import torch
import torch.nn as nn
from torch.nn import functional as F
from torch.cuda.amp import GradScaler, autocast

from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import load_checkpoint, load_pretrained_weights

from clip import clip
from clip.simple_tokenizer import SimpleTokenizer as _Tokenizer

_tokenizer = _Tokenizer()


def load_clip_to_cpu(cfg):
    model_path = clip._download(clip._MODELS[cfg.MODEL.BACKBONE.NAME])
    try:
        model = torch.jit.load(model_path, map_location="cpu").eval()
        state_dict = None
    except RuntimeError:
        state_dict = torch.load(model_path, map_location="cpu")
    return clip.build_model(state_dict or model.state_dict())


class TextEncoder(nn.Module):
    def __init__(self, clip_model):
        super().__init__()
        self.transformer = clip_model.transformer
        self.positional_embedding = clip_model.positional_embedding
        self.ln_final = clip_model.ln_final
        self.text_projection = clip_model.text_projection
        self.dtype = clip_model.dtype

    def forward(self, prompts, tokenized):
        x = prompts + self.positional_embedding.type(self.dtype)
        x = self.transformer(x.permute(1, 0, 2)).permute(1, 0, 2)
        x = self.ln_final(x).type(self.dtype)
        return x[torch.arange(len(x)), tokenized.argmax(dim=-1)] @ self.text_projection


class PromptLearner(nn.Module):
    def __init__(self, n_ctx, csc, classnames, clip_model):
        super().__init__()
        dtype, width = clip_model.dtype, clip_model.ln_final.weight.shape[0]
        shape = (len(classnames), n_ctx, width) if csc else (n_ctx, width)
        self.ctx = nn.Parameter(nn.init.normal_(torch.empty(*shape, dtype=dtype), std=0.02))
        names = [name.replace("_", " ") for name in classnames]
        print("Name lengths:", [len(_tokenizer.encode(name)) for name in names])
        texts = [" ".join(["X"] * n_ctx) + " " + name + "." for name in names]
        self.tokenized = torch.cat([clip.tokenize(text) for text in texts])
        with torch.no_grad():
            embedding = clip_model.token_embedding(self.tokenized).type(dtype)
        self.register_buffer("token_prefix", embedding[:, :1])
        self.register_buffer("token_suffix", embedding[:, 1 + n_ctx:])

    def forward(self, ctx=None):
        ctx = self.ctx if ctx is None else ctx
        if ctx.dim() == 2:
            ctx = ctx.unsqueeze(0).expand(len(self.token_prefix), -1, -1)
        return torch.cat([self.token_prefix, ctx, self.token_suffix], dim=1)


class CustomCLIP(nn.Module):
    def __init__(self, n_ctx, csc, classnames, clip_model):
        super().__init__()
        self.prompt_learner = PromptLearner(n_ctx, csc, classnames, clip_model)
        self.image_encoder = clip_model.visual
        self.text_encoder = TextEncoder(clip_model)
        self.logit_scale = clip_model.logit_scale
        self.dtype = clip_model.dtype

    def forward(self, image, ctx=None):
        images = F.normalize(self.image_encoder(image.type(self.dtype)), dim=-1)
        tokenized = self.prompt_learner.tokenized
        texts = F.normalize(self.text_encoder(self.prompt_learner(ctx), tokenized), dim=-1)
        return self.logit_scale.exp() * images @ texts.t()


@TRAINER_REGISTRY.register()
class Context(TrainerX):
    node = "CONTEXT"

    def check_cfg(self, cfg):
        assert cfg.TRAINER[self.node].PREC in ["fp16", "fp32", "amp"]

    def build_model(self):
        cfg = self.cfg
        node = cfg.TRAINER[self.node]
        classnames = self.dm.dataset.classnames
        clip_model = load_clip_to_cpu(cfg)
        if node.PREC in ["fp32", "amp"]:
            clip_model.float()
        self.model = CustomCLIP(node.N_CTX, node.get("CSC", False), classnames, clip_model)
        for name, param in self.model.named_parameters():
            if "prompt_learner" not in name:
                param.requires_grad_(False)
        if cfg.MODEL.INIT_WEIGHTS:
            load_pretrained_weights(self.model.prompt_learner, cfg.MODEL.INIT_WEIGHTS)
        self.model.to(self.device)
        self.optim = build_optimizer(self.model.prompt_learner, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("prompt_learner", self.model.prompt_learner, self.optim, self.sched)
        self.scaler = GradScaler() if node.PREC == "amp" else None

    def loss(self, image, label):
        output = self.model(image)
        return output, F.cross_entropy(output, label)

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        output, loss = self.loss(image, label)
        self.model_backward_and_update(loss)
        loss_summary = {"loss": loss.item(), "acc": compute_accuracy(output, label)[0].item()}
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return loss_summary

    def parse_batch_train(self, batch):
        return batch["img"].to(self.device), batch["label"].to(self.device)

    def load_model(self, directory, epoch=None):
        if not directory:
            print("Note that load_model() is skipped as no pretrained model is given")
            return
        model_file = "model-best.pth.tar" if epoch is None else "model.pth.tar-" + str(epoch)
        for name in self.get_model_names():
            model_path = osp.join(directory, name, model_file)
            if not osp.exists(model_path):
                raise FileNotFoundError('Model not found at "{}"'.format(model_path))
            checkpoint = load_checkpoint(model_path)
            state_dict = checkpoint["state_dict"]
            for fixed in ("token_prefix", "token_suffix"):
                state_dict.pop(fixed, None)
            print('Loading weights to {} from "{}" (epoch = {})'.format(
                name, model_path, checkpoint["epoch"]))
            self._models[name].load_state_dict(state_dict, strict=False)
