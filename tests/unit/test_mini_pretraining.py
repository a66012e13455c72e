"""The pretraining of the second bundled CLIP: student, schedule, resume, export."""

from pathlib import Path

import numpy as np
import pytest
import torch

from clip import tokenize
from clip.weights import load_clip
from tools.mini import export
from tools.mini.batches import Corpus
from tools.mini.captions import Captioner
from tools.mini.concepts import Concept
from tools.mini.pretrain_vit import SceneRecipe, SceneRun, Student, learning_rate
from tools.mini.styles import SIZE

RECIPE = SceneRecipe(pairs=24, batch=4, warmup=8)


def test_the_student_is_the_tower_and_sees_a_half_for_itself() -> None:
    torch.manual_seed(0)
    student, pixels = Student().eval(), torch.randn(2, 3, 64, 64)
    expected = torch.nn.functional.normalize(student.tower(pixels), dim=-1)
    torch.testing.assert_close(student(pixels)[:, 0], expected)
    halves = student(pixels, torch.arange(64).expand(2, -1))
    assert halves.shape == (2, 2, 256)
    below = pixels.clone()
    below[:, :, 32:] = 0
    torch.testing.assert_close(
        student(below, torch.arange(64).expand(2, -1))[:, 0], halves[:, 0], rtol=1e-4, atol=1e-5
    )


def test_the_rate_rises_stays_and_falls() -> None:
    rates = [learning_rate(RECIPE, pairs) / RECIPE.rate for pairs in range(0, 24, 4)]
    assert rates == [0.5, 1, 1, 1, 1, pytest.approx(2 / 3)]


@pytest.fixture
def corpus() -> Corpus:
    """Three concepts in every style that is trained on or probed."""
    concepts = [
        Concept(str(k), name, "food", (), ()) for k, name in enumerate(("tea", "pie", "egg"))
    ]
    captioner, rng = Captioner(concepts), np.random.default_rng(0)
    styles = np.repeat(["noto", "openmoji-black", "twemoji"], 3)
    drawings = rng.integers(0, 256, (9, SIZE, SIZE, 4), dtype=np.uint8)
    labels = np.tile(np.arange(3), 3)
    return Corpus(drawings, styles, labels, concepts, captioner, captioner.vocabulary())


class Killed(SceneRun):
    """Dies after its third step, right after a checkpoint."""

    def step(self, batch: object) -> float:
        loss = super().step(batch)  # type: ignore[arg-type]
        if self.pairs == 12:
            self._save()
            raise KeyboardInterrupt
        return loss


def test_a_killed_pretraining_resumes_to_the_same_bits(tmp_path: Path, corpus: Corpus) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = SceneRun(RECIPE, tmp_path / "whole", corpus)
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        Killed(RECIPE, tmp_path / "killed", corpus).train()
    resumed = SceneRun(RECIPE, tmp_path / "killed", corpus)
    assert resumed.pairs == 12
    resumed.train()
    for name, value in whole.learner.state_dict().items():
        assert torch.equal(resumed.learner.state_dict()[name], value)


def test_the_export_loads_as_a_clip_with_the_text_tower_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, output = Student().eval(), tmp_path / "vit.safetensors"
    state = {"learner": student.state_dict(), "pairs": 24, "recipe": {"rate": RECIPE.rate}}
    torch.save(state, tmp_path / "run.pt")
    given = ["--model", "mini_vit", "--date", "2026-11-26", "--output", str(output)]
    monkeypatch.setattr("sys.argv", ["export", "--checkpoint", str(tmp_path / "run.pt"), *given])
    export.main()
    loaded, first = load_clip(str(output)), load_clip("mini")
    assert (loaded.pixel_mean, loaded.pixel_std) == (first.pixel_mean, first.pixel_std)
    pixels, texts = torch.randn(2, 3, 64, 64), tokenize(["a photo of a pie.", "tea"])
    expected = student(pixels)[:, 0]
    found = torch.nn.functional.normalize(loaded.model.encode_image(pixels), dim=-1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-2)
    assert torch.equal(loaded.model.encode_text(texts), first.model.encode_text(texts))
