"""Runs of CLIP-LoRA and CoTo: length, resuming, merging, interpolating, pruning, exporting."""

import shutil
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

import nemesis
import train
from clip.weights import load_clip
from dassl.config.node import read_yaml_layers
from dassl.utils import load_checkpoint
from nemesis.__main__ import main
from tests.golden import FOLDER
from tests.helpers.killing import Killed, assert_same, killed_after
from tests.helpers.refusals import refused
from tests.helpers.runs import Capture, command, finish, results

# A vision transformer, few classes and images.
TINY = (
    *("MODEL.BACKBONE.NAME", str(FOLDER / "tiny_vit.safetensors"), "MODEL.CLIP.TEXT_HEADS", "2"),
    *("INPUT.SIZE", "(32, 32)", "DATASET.SUBSAMPLE_CLASSES", "base", "TEST.SPLIT", "val"),
    *("DATASET.NUM_SHOTS", "1", "TRAINER.CLIPLORA.ENCODER", "both", "INPUT.TRAIN_VIEWS", "0"),
    *("DATALOADER.TRAIN_X.BATCH_SIZE", "16", "OPTIM.LR", "0.02"),
)
TINY_RESNET = ("MODEL.BACKBONE.NAME", str(FOLDER / "tiny_rn.safetensors"))


def lora(output: Path, data_root: Path, *extra: str, trainer: str = "CLIPLoRA") -> list[str]:
    return command(output, data_root, *TINY, *extra, trainer=trainer, configured_as="CLIPLoRA")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> tuple[Path, Path]:
    """Two runs that differ in the method and the rank's factor alone."""
    base = tmp_path_factory.mktemp("pair")
    for trainer in ("CLIPLoRA", "CoTo"):
        finish(lora(base / trainer, data_root, "OPTIM.MAX_EPOCH", "3", trainer=trainer))
    return base / "CLIPLoRA", base / "CoTo"


def accuracy(folder: Path) -> float:
    return float(results(folder)["accuracy"])


def test_a_number_of_iterations_ends_within_an_epoch(tmp_path: Path, data_root: Path) -> None:
    options = ("TRAINER.CLIPLORA.ITERS_PER_SHOT", "5", "DATASET.NUM_SHOTS", "1")
    finish(lora(tmp_path / "run", data_root, *options))
    found = results(tmp_path / "run")
    assert (found["iterations"], found["epochs"]) == (5, 2)  # epochs of 16 + 16 + 11 images
    state = load_checkpoint(tmp_path / "run/adapters/model.pth.tar-2")
    assert state["scheduler"]["last_epoch"] == 5
    assert state["scheduler"]["_last_lr"] == pytest.approx([1e-6])
    assert set(state["state_dict"]) == set(load_file(tmp_path / "run/adapters.safetensors"))
    assert "classnames" not in state["adapters"]
    code = train.main(lora(tmp_path / "all", data_root, *options, "DATASET.NUM_SHOTS", "-1"))
    assert code == 2 and not (tmp_path / "all").exists()


@pytest.mark.parametrize("reached", [3, 5])
def test_coto_resumes_bit_for_bit(reached: int, tmp_path: Path, data_root: Path) -> None:
    options = ("OPTIM.MAX_EPOCH", "4", "TRAINER.COTO.INITIAL_P", "0.3")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(lora(whole, data_root, *options, trainer="CoTo"))
    with killed_after(reached), pytest.raises(Killed):
        train.main(lora(killed, data_root, *options, trainer="CoTo"))
    finish(lora(killed, data_root, *options, "--resume", str(killed), trainer="CoTo"))
    assert_same(whole, killed)


def test_a_merged_run_is_a_run(
    pair: tuple[Path, Path], tmp_path: Path, data_root: Path, capsys: Capture
) -> None:
    first, second = map(str, pair)
    merged = tmp_path / "merged"
    assert main(["merge", first, second, "--weights", "0.5", "2", "--output-dir", str(merged)]) == 0
    assert read_yaml_layers(merged / "config.yaml")[-1][1]["TRAINER"]["CLIPLORA"]["R"] == 4
    table = (merged / "merge.csv").read_text().splitlines()
    assert len(table) == 3 and (merged / "merge_figure.png").is_file()
    one, two, both = (
        cast(Any, nemesis.load(folder, with_data=True).trainer) for folder in (*pair, merged)
    )
    expected = {
        key: 0.5 * delta + 2 * two.adapters.deltas()[key]
        for key, delta in one.adapters.deltas().items()
    }
    for key, delta in both.adapters.deltas().items():
        torch.testing.assert_close(delta, expected[key], atol=1e-6, rtol=1e-5)
    config = ("--config-file", str(merged / "config.yaml"))
    evaluated = ["--eval-only", "--model-dir", str(merged), "--output-dir", str(tmp_path / "eval")]
    finish(["--root", str(data_root), *config, *evaluated])
    assert accuracy(tmp_path / "eval") == pytest.approx(both.test())
    assert main(["predict", str(merged), str(FOLDER.parent / "images")]) in (0, 1)
    # The same command resumes a killed merge; another merge is refused.
    (merged / "merge.md").unlink()
    assert main(["merge", first, second, "--weights", "0.5", "2", "--output-dir", str(merged)]) == 0
    assert (merged / "merge.md").is_file()
    assert main(["merge", first, second, "--output-dir", str(merged)]) == 2
    assert "holds a run already" in capsys.readouterr().err
    (merged / "config.yaml").unlink()  # half written
    assert main(["merge", first, second, "--output-dir", str(merged)]) == 0


def test_an_unfinished_run_is_not_merged(
    pair: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    stopped = tmp_path / "stopped"
    shutil.copytree(pair[1], stopped)
    (stopped / "results.json").unlink()
    flags = ("--output-dir", str(tmp_path / "merged"))
    assert main(["merge", str(pair[0]), str(stopped), *flags]) == 2
    assert "is not finished: it has no results.json" in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()


def test_a_solution_and_itself_have_no_barrier(pair: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = map(str, pair)
    for number, end in enumerate((first, second)):
        out = tmp_path / str(number)
        flags = ("--points", "3", "--output-dir", str(out))
        assert main(["interpolate", first, end, *flags]) == 0
        rows = [line.split(",") for line in (out / "interpolate.csv").read_text().splitlines()]
        assert len(rows) == 4 and (out / "interpolate_figure.pdf").is_file()
        if end == first:
            assert len({tuple(row[1:3]) for row in rows[1:]}) == 1
        assert float(rows[-1][2]) == pytest.approx(accuracy(Path(end)), abs=1e-4)


def test_shapley_values_of_a_run_sum_to_its_gain(pair: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "prune"
    assert main(["prune", str(pair[0]), "--output-dir", str(out)]) == 0
    rows = [line.split(",") for line in (out / "prune.csv").read_text().splitlines()]
    assert [row[0] for row in rows[1:]] == ["vision.0", "vision.1", "text.0", "text.1"]
    by_order = {int(row[5]): float(row[6]) for row in rows[1:]}
    gain = accuracy(pair[0]) - by_order[4]
    assert sum(float(row[1]) for row in rows[1:]) == pytest.approx(gain, abs=1e-3)
    assert (out / "prune_figure.png").is_file()


def test_the_exported_clip_in_both_layouts(pair: tuple[Path, Path], tmp_path: Path) -> None:
    from transformers import CLIPModel

    output = tmp_path / "new" / "classifier.safetensors"
    assert main(["export", str(pair[0]), "-o", str(output)]) == 0
    folder = output.parent / "merged_clip"
    trainer: Any = nemesis.load(pair[0], with_data=True).trainer
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with trainer.cached_text_features():
        expected = trainer.model_inference(images)
    exported = load_file(output)
    features = []
    for name in ("openai.safetensors", "model.safetensors"):
        loaded = load_clip(str(folder / name))
        assert not {"activation", "text_heads", "vision_heads"} & set(loaded.assumed)
        with torch.no_grad():
            features.append(functional.normalize(loaded.model.encode_image(images), dim=-1))
        assert loaded.model.logit_scale.exp().item() == pytest.approx(float(exported["scale"]))
    with torch.no_grad():
        theirs = CLIPModel.from_pretrained(folder).get_image_features(pixel_values=images)
    theirs = getattr(theirs, "pooler_output", theirs)
    features.append(functional.normalize(theirs, dim=-1))
    for one in features:
        logits = exported["scale"] * one @ exported["text_features"].T
        torch.testing.assert_close(logits, expected, atol=1e-3, rtol=1e-4)
    assert main(["export", str(pair[0]), "-o", str(output)]) == 2


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (("TRAINER.CLIPLORA.R", "4"), "the rank was 2 in training and is 4 now"),
        (("TRAINER.CLIPLORA.SCALING", "rank"), "the scaling was 'sqrt'"),
        (("TRAINER.CLIPLORA.BLOCKS", "[0]"), "the adapted blocks was"),
        (("MODEL.CLIP.TEXT_HEADS", "4"), "the number of text heads was 2"),
        (("INPUT.SIZE", "(64, 64)", *TINY_RESNET), "is a ResNet"),
    ],
)
def test_a_mismatch_is_named(
    change: tuple[str, ...], part: str, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    pairs = dict(zip(change[::2], change[1::2], strict=True))
    with refused(part):
        nemesis.load(pair[0], settings=pairs, classnames=["cat", "dog"])


def test_other_classes_fit(pair: tuple[Path, Path], tmp_path: Path, data_root: Path) -> None:
    new = ("--eval-only", "--model-dir", str(pair[0]), "DATASET.SUBSAMPLE_CLASSES", "new")
    finish(lora(tmp_path / "new", data_root, *new))
    assert results(tmp_path / "new")["num_test"] > 0
    assert nemesis.load(pair[0], classnames=["cat", "dog"]).text_features.shape[0] == 2


def test_adapters_that_do_not_fit_each_other(
    pair: tuple[Path, Path], tmp_path: Path, data_root: Path, capsys: Capture
) -> None:
    other = tmp_path / "other"
    finish(lora(other, data_root, "OPTIM.MAX_EPOCH", "1", "TRAINER.CLIPLORA.BLOCKS", "[1]"))
    prompts = tmp_path / "prompts"
    shutil.copytree(pair[0], prompts)
    config = (prompts / "config.yaml").read_text()
    (prompts / "config.yaml").write_text(config.replace("NAME: CLIPLoRA", "NAME: CoOp"))
    first, output = str(pair[0]), ("--output-dir", str(tmp_path / "out"))
    refusals = [
        (["merge", first, str(other)], "is only in one of them"),
        (["interpolate", first, str(other)], "is only in one of them"),
        (["merge", first, str(pair[1]), "--weights", "1", "2", "3"], "3 numbers for 2 runs"),
        (["merge", first, "--weights", "half"], "--weights is 'half'"),
        (["prune", str(prompts)], "run of CoOp, which learns no adapters"),
        (["interpolate", first, first, "--points", "2"], "--points is 2"),
    ]
    for words, part in refusals:
        capsys.readouterr()
        assert main([*words, *output]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert part in line
        assert not (tmp_path / "out").exists()
