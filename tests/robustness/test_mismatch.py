"""Prompts tested with other classes, another backbone or another class token position."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import nemesis
from clip.clip import tokenize
from clip.prompt_layout import clean_classname
from dassl.utils import load_checkpoint, save_checkpoint
from nemesis.commands import export, predict
from nemesis.inference.load_run import known_classnames
from safeio.errors import UserError
from tests.helpers.runs import Capture, command, finish, refuse, results
from trainers.core.prompt_metadata import METADATA

MINI = Path(__file__).parents[2] / "clip" / "mini.safetensors"
EPOCH = ("OPTIM.MAX_EPOCH", "1", "DATASET.NUM_SHOTS", "1", "DATALOADER.TEST.BATCH_SIZE", "500")
IMAGES = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def train_once(output: Path, data_root: Path, *extra: str, config: str = "mini") -> Path:
    finish(command(output, data_root, *EPOCH, *extra, config=config))
    return output


@pytest.fixture(scope="module")
def specific(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """A prompt for each of the base classes."""
    output = tmp_path_factory.mktemp("specific") / "run"
    return train_once(output, data_root, "DATASET.SUBSAMPLE_CLASSES", "base")


@pytest.fixture(scope="module")
def generic(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """One prompt for all classes, before the class name."""
    output = tmp_path_factory.mktemp("generic") / "run"
    return train_once(output, data_root, config="mini_ctx16")


def evaluation(
    model_dir: Path, output: Path, data_root: Path, *extra: str, config: str = "mini"
) -> list[str]:
    flags = ("--eval-only", "--model-dir", str(model_dir))
    return command(output, data_root, *flags, *extra, *EPOCH, config=config)


def logits(trainer: Any) -> torch.Tensor:
    with torch.no_grad():
        return trainer.model_inference(IMAGES)


def checkpoint_of(run_dir: Path) -> Path:
    return run_dir / "prompt_learner" / "model.pth.tar-1"


def rewrite(run_dir: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the content of a run's checkpoint."""
    path = checkpoint_of(run_dir)
    save_checkpoint(change(load_checkpoint(path)), path.parent)


@pytest.mark.parametrize("known_from", ["checkpoint", "prompt.safetensors", "config.yaml"])
def test_class_specific_prompts_are_refused_for_other_classes(
    specific: Path, known_from: str, tmp_path: Path, data_root: Path, capsys: Capture
) -> None:
    run_dir = Path(shutil.copytree(specific, tmp_path / "run"))
    if known_from != "checkpoint":
        rewrite(run_dir, lambda s: {key: s[key] for key in s if key != METADATA})
    if known_from == "config.yaml":
        (run_dir / "prompt.safetensors").unlink()
    new = ("DATASET.SUBSAMPLE_CLASSES", "new")
    message = refuse(evaluation(run_dir, tmp_path / "new", data_root, *new), capsys)
    if known_from == "config.yaml":
        assert "were those of EmojiActivities (base) in training" in message
        assert "those of EmojiActivities (new) now" in message
    else:
        assert "class-specific (CSC), but the checkpoint has no prompt, or several, for" in message
    assert not (tmp_path / "new" / "results.json").exists()
    base = ("DATASET.SUBSAMPLE_CLASSES", "base")
    finish(evaluation(run_dir, tmp_path / "base", data_root, *base))
    assert results(tmp_path / "base")["accuracy"] == results(specific)["accuracy"]


def test_a_user_may_insist(generic: Path, tmp_path: Path, data_root: Path, capsys: Capture) -> None:
    front = ("TRAINER.COOP.CLASS_TOKEN_POSITION", "front")
    arguments = evaluation(generic, tmp_path / "out", data_root, *front, config="mini_ctx16")
    message = refuse(arguments, capsys)
    assert "the class token position was 'end' in training and is front now" in message
    assert "--ignore-mismatch" in message
    finish([arguments[0], arguments[1], "--ignore-mismatch", *arguments[2:]])
    assert "class token position" in results(tmp_path / "out")["ignored_mismatch"]
    assert results(tmp_path / "out")["config"].keys() == results(generic)["config"].keys()


def test_class_specific_prompts_follow_their_classes(specific: Path) -> None:
    names = known_classnames(specific) or []
    trained = logits(nemesis.load(specific).trainer)
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(1))[:-2].tolist()
    some = [names[index].upper().replace(" ", "_") for index in order]
    found = logits(nemesis.load(specific, some).trainer)
    torch.testing.assert_close(found, trained[:, order], atol=1e-4, rtol=1e-4)
    with pytest.raises(UserError, match=r'for "a teapot"; use .* learned with$'):
        nemesis.load(specific, [*names, "a teapot"])
    others = [*names[1:], "a teapot"]
    with pytest.raises(UserError, match="--ignore-mismatch"):
        nemesis.load(specific, others)
    insisting: Any = nemesis.load(specific, others, ignore_mismatch=True).trainer
    state = load_checkpoint(checkpoint_of(specific))["state_dict"]
    assert torch.equal(insisting.model.prompt_learner.ctx.cpu(), state["ctx"])


def save_mini(weights: dict[str, torch.Tensor], path: Path, **more: str) -> str:
    """Write weights with the metadata of the bundled ones."""
    with safe_open(MINI, "pt") as file:
        save_file(weights, path, {**file.metadata(), **more})
    return str(path)


def test_another_backbone_of_the_same_width(generic: Path, tmp_path: Path) -> None:
    weights = load_file(MINI)
    any_classes = nemesis.load(generic, ["a teapot", "a kettle", "a cup"]).trainer
    assert logits(any_classes).shape == (4, 3)
    # The same weights in other bytes:
    opts = {"MODEL.BACKBONE.NAME": save_mini(weights, tmp_path / "copy.safetensors", note="mine")}
    same = nemesis.load(generic, settings=opts).trainer
    assert torch.equal(logits(same), logits(nemesis.load(generic).trainer))
    for key in ("ln_final.weight", "transformer.resblocks.1.mlp.c_fc.weight", "text_projection"):
        changed = {**weights, key: weights[key] * 1.01}
        opts = {"MODEL.BACKBONE.NAME": save_mini(changed, tmp_path / "other.safetensors")}
        with pytest.raises(UserError, match=r"the backbone was 'mini' in training and is .*other"):
            nemesis.load(generic, settings=opts)
    insisting: Any = nemesis.load(generic, settings=opts, ignore_mismatch=True).trainer
    assert "the backbone was" in insisting.prompt_checkpoints.mismatch
    with pytest.raises(UserError, match="the activation was 'quick_gelu' in training and is gelu"):
        nemesis.load(generic, settings={"MODEL.CLIP.ACTIVATION": "gelu"})


def test_resuming_on_other_weights_in_the_same_file(
    data_root: Path, tmp_path: Path, capsys: Capture
) -> None:
    weights = tmp_path / "weights.safetensors"
    shutil.copy(MINI, weights)
    same = ("MODEL.BACKBONE.NAME", str(weights))
    run = train_once(tmp_path / "run", data_root, *same)
    tensors = load_file(MINI)
    save_mini({**tensors, "logit_scale": tensors["logit_scale"] * 0.9}, weights)
    more = (*EPOCH, *same, "--resume", str(run), "OPTIM.MAX_EPOCH", "2")
    longer = command(tmp_path / "longer", data_root, *more, config="mini")
    message = refuse(longer, capsys)
    assert "cannot be resumed: the backbone was" in message
    assert "with other weights in training" in message
    assert not (tmp_path / "longer").exists()
    shutil.copy(MINI, weights)
    finish(longer)


def published(run_dir: Path, folder: Path, best: bool = False) -> Path:
    """The run's prompt as CoOp's own code saves it, in fp16 and without a configuration."""
    state = load_checkpoint(checkpoint_of(run_dir))
    trainer: Any = nemesis.load(run_dir).trainer
    ctx = state["state_dict"]["ctx"]
    before = " ".join(["X"] * ctx.shape[-2])
    texts = [f"{before} {clean_classname(name)}." for name in trainer.dm.dataset.classnames]
    rows = trainer.loaded_clip.model.token_embedding(tokenize(texts)).detach()
    buffers = {"token_prefix": rows[:, :1], "token_suffix": rows[:, 1 + ctx.shape[-2] :]}
    weights = {key: value.half() for key, value in {"ctx": ctx, **buffers}.items()}
    name = "model-best.pth.tar" if best else ""
    content = {"state_dict": weights, "epoch": 50, "optimizer": None, "scheduler": None}
    save_checkpoint({**content, "val_result": None}, folder / "prompt_learner", model_name=name)
    return folder


def setup_of(data_root: Path, config: str = "mini") -> list[str]:
    arguments = command(Path("unused"), data_root, config=config)
    keep = ("--trainer", "--config-file", "--dataset-config-file", "--root")
    pairs = zip(arguments[::2], arguments[1::2], strict=True)
    return [word for pair in pairs if pair[0] in keep for word in pair]


@pytest.fixture
def picture(tmp_path: Path) -> str:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "picture.png")
    return str(tmp_path / "picture.png")


@pytest.mark.parametrize("best", [False, True])
def test_predict_and_export_read_coops_own_checkpoints(
    generic: Path, best: bool, tmp_path: Path, data_root: Path, picture: str, capsys: Capture
) -> None:
    folder = str(published(generic, tmp_path / "coop", best))
    # Many published folders contain only the checkpoint itself.
    (tmp_path / "coop" / "prompt_learner" / "checkpoint").unlink(missing_ok=True)
    assert predict.main([folder, picture]) == 2
    error = capsys.readouterr().err
    assert "it has checkpoints but no config.yaml, as CoOp's own code leaves it" in error
    assert "--trainer, --config-file and --dataset-config-file" in error
    setup = setup_of(data_root, "mini_ctx16")
    assert predict.main([str(generic), picture, "--json"]) == 0
    expected = capsys.readouterr().out
    assert predict.main([folder, picture, "--json", *setup]) == 0
    found = capsys.readouterr().out
    names, theirs = ([w for w in text.split() if w.startswith('"')] for text in (found, expected))
    assert names == theirs
    classes = ("--classes", "a cup", "a ball", *setup[:4], *setup[-2:])
    assert predict.main([folder, picture, *classes]) == 0
    assert "a cup" in capsys.readouterr().out
    assert export.main([folder, *setup, "-o", str(tmp_path / "c.safetensors")]) == 0
    assert export.main([str(generic), "-o", str(tmp_path / "own.safetensors")]) == 0
    rows = [load_file(tmp_path / f"{name}.safetensors")["text_features"] for name in ("c", "own")]
    torch.testing.assert_close(*rows, atol=2e-3, rtol=0)


def test_coops_own_checkpoints_with_other_settings_are_refused(
    generic: Path, tmp_path: Path, data_root: Path, picture: str, capsys: Capture
) -> None:
    folder, setup = str(published(generic, tmp_path / "coop")), setup_of(data_root, "mini_ctx16")
    assert predict.main([folder, picture, *setup, "--set", "TRAINER.COOP.N_CTX", "4"]) == 2
    error = capsys.readouterr().err
    assert "holds 16 context vectors, but TRAINER.COOP.N_CTX is 4" in error
    weights = load_file(MINI)
    weights["token_embedding.weight.rows"] += 0.1
    other = ("--set", "MODEL.BACKBONE.NAME", save_mini(weights, tmp_path / "other.safetensors"))
    assert predict.main([folder, picture, *setup, *other]) == 2
    assert "the backbone was another one in training" in capsys.readouterr().err
    assert predict.main([folder, picture, "--ignore-mismatch", *setup, *other]) == 0
    assert predict.main([str(generic), picture, *setup]) == 2
    assert "has a config.yaml of its own" in capsys.readouterr().err
    assert predict.main([f"{folder}/prompt_learner", picture, *setup]) == 2
    assert f'give the folder above, "{folder}"' in capsys.readouterr().err


def test_class_specific_prompts_of_coops_own_code_follow_their_classes(
    specific: Path, tmp_path: Path, data_root: Path, picture: str, capsys: Capture
) -> None:
    """CoOp saves the embeddings of the class names next to the prompts."""
    folder = published(specific, tmp_path / "coop")
    capsys.readouterr()
    names = known_classnames(specific) or []
    shown = []
    for order in (names, names[::-1]):
        flags = [*setup_of(data_root), "--json", "--top-k", "99", "--classes", *order]
        assert predict.main([str(folder), picture, *flags]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    new = evaluation(folder, tmp_path / "new", data_root, "DATASET.SUBSAMPLE_CLASSES", "new")
    assert "the prompts are class-specific (CSC)" in refuse(new, capsys)
