"""Trainer files in the style of CoOp's forks run unmodified on our `dassl` and `clip`.

The first is that of the third-party repository in tests/data: its own text encoder and prompt
learner, CLIP loaded by `_MODELS`, `_download` and `build_model`, overridden hooks of `TrainerX`.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from clip import clip
from clip.weights import load_clip
from dassl.engine import TRAINER_REGISTRY
from tests.helpers.runs import ONE_EPOCH, ROOT, command, finish, results

CONTEXT = ROOT / "tests/data/foreign_repository/trainers/context.py"
VARIANTS = """
@TRAINER_REGISTRY.register()
class OwnEncoder(Context):
    node = "COOP"


@TRAINER_REGISTRY.register()
class OwnInference(OwnEncoder):
    def model_inference(self, image):
        return 0.5 * (self.model(image) + self.model(image.flip(-1)))


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
NAMES = ("OwnEncoder", "OwnInference", "TwoModels")


@pytest.fixture(scope="module")
def _registered() -> Iterator[None]:
    """Run the files as an import would, and remove their trainers afterwards."""
    source = CONTEXT.read_text(encoding="utf-8") + VARIANTS
    exec(compile(source, "foreign.py", "exec"), {"__name__": "foreign"})
    yield
    for name in ("Context", *NAMES):
        del TRAINER_REGISTRY._objects[name]


@pytest.fixture
def _weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundled CLIP as a state dict that `_download` has fetched."""
    path = tmp_path / "mini.pt"
    torch.save(load_clip("mini").model.state_dict(), path)
    monkeypatch.setitem(clip._MODELS, "mini", "somewhere/mini.pt")
    monkeypatch.setattr(clip, "_download", lambda url: str(path))


@pytest.mark.filterwarnings("ignore:.*torch.jit.load.*")
@pytest.mark.usefixtures("_registered", "_weights")
@pytest.mark.parametrize("name", NAMES)
def test_runs_unmodified(name: str, tmp_path: Path, data_root: Path) -> None:
    few = (*ONE_EPOCH, "TEST.SPLIT", "val")
    finish(command(tmp_path / "run", data_root, *few, trainer=name, configured_as="CoOp"))
    run = results(tmp_path / "run")
    assert (run["trainer"], run["status"]) == (name, "finished")
    for folder in ("prompt_learner", *(["scale"] if name == "TwoModels" else [])):
        assert (tmp_path / "run" / folder / "model.pth.tar-1").is_file()

    # A prompt of such a trainer loads into ours, without the buffers of its class names.
    if name == "OwnEncoder":
        model = ("--eval-only", "--model-dir", str(tmp_path / "run"), "--load-epoch", "1")
        finish(command(tmp_path / "ours", data_root, *model, *few))
        assert results(tmp_path / "ours")["accuracy"] == pytest.approx(run["accuracy"], abs=0.2)
