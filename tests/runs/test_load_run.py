"""A finished run opened again: with its data, without, and for other classes."""

from pathlib import Path

import pytest
import torch

from nemesis.inference.load_run import load_run, trained_classnames
from safeio.errors import UserError
from tests.helpers.runs import SHORT, command, finish, results


@pytest.fixture(scope="module", params=["CoOp", "CoCoOp", "PLOT", "ZeroshotCLIP"])
def run_dir(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, data_root: Path
) -> Path:
    output = tmp_path_factory.mktemp("open") / request.param
    few = (*SHORT, "OPTIM.MAX_EPOCH", "1", "DATALOADER.TEST.BATCH_SIZE", "500")
    finish(command(output, data_root, *few, trainer=request.param))
    return output


def test_it_classifies_as_it_did(run_dir: Path) -> None:
    trainer = load_run(run_dir)
    assert trainer.test() == results(run_dir)["accuracy"]


def test_without_data(run_dir: Path) -> None:
    with_data = load_run(run_dir)
    names = with_data.dm.dataset.classnames
    bare = load_run(run_dir, ["DATASET.ROOT", "nowhere"], with_data=False, classnames=names)
    assert bare.dm.dataset.classnames == names
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, found = (t.model_inference(images) for t in (with_data, bare))
    assert torch.equal(expected, found)
    if "Zeroshot" not in run_dir.name:
        assert trained_classnames(run_dir) == names


def test_other_classes(run_dir: Path) -> None:
    if run_dir.name == "PLOT":  # its settings on the bundled benchmark are class-specific
        with pytest.raises(UserError, match='no prompt, or several, for "a cat", "a dog"'):
            load_run(run_dir, with_data=False, classnames=["a cat", "a dog"])
        names, images = trained_classnames(run_dir), torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            expected, backwards = (
                load_run(run_dir, with_data=False, classnames=order).model_inference(images)
                for order in (names, names[::-1])
            )
        torch.testing.assert_close(backwards.flip(1), expected, atol=1e-4, rtol=1e-4)
        return
    trainer = load_run(run_dir, with_data=False, classnames=["a cat", "a dog"])
    with torch.no_grad():
        assert trainer.model_inference(torch.randn(2, 3, 64, 64)).shape == (2, 2)


def test_mistakes(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        load_run(tmp_path)
    with pytest.raises(UserError, match="given twice"):
        load_run(run_dir, with_data=False, classnames=["a cat", "a cat"])
    (tmp_path / "config.yaml").write_text((run_dir / "config.yaml").read_text())
    with pytest.raises(UserError, match="names the classes that its prompts were learned on"):
        load_run(tmp_path, with_data=False)
    if "Zeroshot" not in run_dir.name:
        with pytest.raises(UserError, match="No checkpoint in"):
            load_run(tmp_path)
