"""Trainer files in the style of CoOp's forks run on our `dassl` and `clip` as they are.

Each is written as its authors write them: a text encoder and a prompt learner of its own, CLIP
loaded through `_MODELS`, `_download` and `build_model`, the hooks of `TrainerX` overridden.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from dassl.engine import TRAINER_REGISTRY
from tests.helpers.runs import SHORT, command, finish, results

OWN_ENCODER = """
import torch
import torch.nn as nn
from torch.nn import functional as F
from torch.cuda.amp import GradScaler, autocast  # noqa: F401

from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.metrics import compute_accuracy
from dassl.utils import load_pretrained_weights, load_checkpoint  # noqa: F401
from dassl.optim import build_optimizer, build_lr_scheduler

from clip import clip
from clip.simple_tokenizer import SimpleTokenizer as _Tokenizer

_tokenizer = _Tokenizer()


def load_clip_to_cpu(cfg):
    backbone_name = cfg.MODEL.BACKBONE.NAME
    url = clip._MODELS[backbone_name]
    model_path = clip._download(url)
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

    def forward(self, prompts, tokenized_prompts):
        x = prompts + self.positional_embedding.type(self.dtype)
        x = self.transformer(x.permute(1, 0, 2)).permute(1, 0, 2)
        x = self.ln_final(x).type(self.dtype)
        return x[torch.arange(x.shape[0]), tokenized_prompts.argmax(dim=-1)] @ self.text_projection


class PromptLearner(nn.Module):
    def __init__(self, cfg, classnames, clip_model):
        super().__init__()
        n_ctx = cfg.TRAINER.COOP.N_CTX
        dtype = clip_model.dtype
        ctx = torch.empty(n_ctx, clip_model.ln_final.weight.shape[0], dtype=dtype)
        nn.init.normal_(ctx, std=0.02)
        self.ctx = nn.Parameter(ctx)
        names = [name.replace("_", " ") for name in classnames]
        assert all(len(_tokenizer.encode(name)) > 0 for name in names)
        prompts = [" ".join(["X"] * n_ctx) + " " + name + "." for name in names]
        tokens = torch.cat([clip.tokenize(p) for p in prompts])
        with torch.no_grad():
            embedding = clip_model.token_embedding(tokens).type(dtype)
        self.register_buffer("token_prefix", embedding[:, :1])
        self.register_buffer("token_suffix", embedding[:, 1 + n_ctx:])
        self.tokenized_prompts = tokens

    def forward(self):
        ctx = self.ctx.unsqueeze(0).expand(len(self.token_prefix), -1, -1)
        return torch.cat([self.token_prefix, ctx, self.token_suffix], dim=1)


class CustomCLIP(nn.Module):
    def __init__(self, cfg, classnames, clip_model):
        super().__init__()
        self.prompt_learner = PromptLearner(cfg, classnames, clip_model)
        self.tokenized_prompts = self.prompt_learner.tokenized_prompts
        self.image_encoder = clip_model.visual
        self.text_encoder = TextEncoder(clip_model)
        self.logit_scale = clip_model.logit_scale
        self.dtype = clip_model.dtype

    def forward(self, image):
        image_features = self.image_encoder(image.type(self.dtype))
        text_features = self.text_encoder(self.prompt_learner(), self.tokenized_prompts)
        image_features = image_features / image_features.norm(dim=-1, keepdim=True)
        text_features = text_features / text_features.norm(dim=-1, keepdim=True)
        return self.logit_scale.exp() * image_features @ text_features.t()


@TRAINER_REGISTRY.register()
class OwnEncoder(TrainerX):
    def check_cfg(self, cfg):
        assert cfg.TRAINER.COOP.PREC in ["fp16", "fp32", "amp"]

    def build_model(self):
        cfg = self.cfg
        clip_model = load_clip_to_cpu(cfg)
        clip_model.float()
        self.model = CustomCLIP(cfg, self.dm.dataset.classnames, clip_model)
        for name, param in self.model.named_parameters():
            if "prompt_learner" not in name:
                param.requires_grad_(False)
        if cfg.MODEL.INIT_WEIGHTS:
            load_pretrained_weights(self.model.prompt_learner, cfg.MODEL.INIT_WEIGHTS)
        self.model.to(self.device)
        self.optim = build_optimizer(self.model.prompt_learner, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("prompt_learner", self.model.prompt_learner, self.optim, self.sched)

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        output = self.model(image)
        loss = F.cross_entropy(output, label)
        self.model_backward_and_update(loss)
        loss_summary = {"loss": loss.item(), "acc": compute_accuracy(output, label)[0].item()}
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return loss_summary

    def parse_batch_train(self, batch):
        return batch["img"].to(self.device), batch["label"].to(self.device)
"""

OWN_INFERENCE = """
@TRAINER_REGISTRY.register()
class OwnInference(OwnEncoder):
    def model_inference(self, image):
        return 0.5 * (self.model(image) + self.model(image.flip(-1)))
"""

TWO_MODELS = """
@TRAINER_REGISTRY.register()
class TwoModels(OwnEncoder):
    def build_model(self):
        super().build_model()
        self.scale = nn.Linear(self.num_classes, self.num_classes)
        nn.init.eye_(self.scale.weight)
        nn.init.zeros_(self.scale.bias)
        self.optim_scale = build_optimizer(self.scale, self.cfg.OPTIM)
        self.sched_scale = build_lr_scheduler(self.optim_scale, self.cfg.OPTIM)
        self.register_model("scale", self.scale, self.optim_scale, self.sched_scale)

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        loss = F.cross_entropy(self.scale(self.model(image)), label)
        self.model_backward_and_update(loss, names=["prompt_learner", "scale"])
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr(["prompt_learner", "scale"])
        return {"loss": loss.item()}

    def model_inference(self, image):
        return self.scale(self.model(image))
"""


@pytest.fixture(scope="module")
def _registered() -> Any:
    """Run the files as an import would, and forget their trainers afterwards."""
    source = OWN_ENCODER + OWN_INFERENCE + TWO_MODELS
    exec(compile(source, "foreign.py", "exec"), {"__name__": "foreign"})
    yield
    for name in ("OwnEncoder", "OwnInference", "TwoModels"):
        del TRAINER_REGISTRY._objects[name]


@pytest.fixture
def _weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundled CLIP as a state dict that `_download` has fetched."""
    from clip import clip
    from clip.weights import load_clip

    path = tmp_path / "mini.pt"
    torch.save(load_clip("mini").model.state_dict(), path)
    monkeypatch.setitem(clip._MODELS, "mini", "somewhere/mini.pt")
    monkeypatch.setattr(clip, "_download", lambda url: str(path))


@pytest.mark.filterwarnings("ignore:.*torch.jit.load.*")
@pytest.mark.usefixtures("_registered", "_weights")
@pytest.mark.parametrize("name", ["OwnEncoder", "OwnInference", "TwoModels"])
def test_runs_unmodified(name: str, tmp_path: Path, data_root: Path) -> None:
    arguments = command(tmp_path / "run", data_root, *SHORT, trainer="CoOp")
    arguments[arguments.index("--trainer") + 1] = name
    finish(arguments)
    run = results(tmp_path / "run")
    assert (run["trainer"], run["status"]) == (name, "finished")
    folders = {"prompt_learner", "scale"} if name == "TwoModels" else {"prompt_learner"}
    for folder in folders:
        assert (tmp_path / "run" / folder / "model.pth.tar-3").is_file()

    # A prompt that such a trainer saved loads into ours, without its class names' buffers.
    if name == "OwnEncoder":
        model = ("--eval-only", "--model-dir", str(tmp_path / "run"), "--load-epoch", "3")
        finish(command(tmp_path / "ours", data_root, *model))
        assert results(tmp_path / "ours")["accuracy"] == pytest.approx(run["accuracy"], abs=0.2)
