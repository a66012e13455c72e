"""What nemesis report refuses or leaves out, and names: unlike runs, damaged files, mistakes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from nemesis.commands import report
from nemesis.report.checks import stated
from nemesis.report.reading import read_runs
from tests.helpers.report_runs import a_run, pun, refuse, report_of, table, write


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three seeds of CoOp; their mean is 62."""
    return write(tmp_path / "runs", *(a_run(60.0 + seed, seed=seed) for seed in (1, 2, 3)))


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"backbone": "RN50"}, "backbone: mini in .*0, RN50 in .*1"),
        ({"weights_sha256": "1" * 64}, "weights .*: 00000000 in .*0, 11111111 in .*1"),
        ({"train_views": 4}, "train_views: 0 in .*0, 4 in .*1"),
        ({"versions": {"torch": "3.0.1"}}, "major version of torch: 2 in .*0, 3 in .*1"),
        ({"split": "val"}, "split: test in .*0, val in .*1"),
        ({"size": [224, 224]}, "image size: 64x64 in .*0, 224x224 in .*1; name rows .* --by size"),
        ({"num_test": 999}, "number of test images: 1000 in .*0, 999 in .*1"),
    ],
)
def test_unlike_runs_are_not_mixed(
    other: dict[str, Any], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = a_run(62.0, seed=2, **other)
    run["config"]["INPUT"]["SIZE"] = other.get("size", [64, 64])
    message = refuse(capsys, write(tmp_path / "runs", a_run(60.0), run))
    assert re.search(f"Runs of CoOp differ in {sentence}", message), message
    assert "--allow-mixed" in message


def test_unlike_runs_are_mixed_when_told(tmp_path: Path) -> None:
    folder = write(tmp_path / "runs", a_run(60.0), a_run(62.0, seed=2, num_test=999))
    output = report_of(folder, "--allow-mixed")
    assert table(output / "few_shot.md")[1][2] == "61.0 ± 1.4"
    assert "CoOp mixes runs that differ in number of test images" in (
        output / "report.md"
    ).read_text(encoding="utf-8")


def test_zero_shot_clip_has_no_training_views(tmp_path: Path) -> None:
    zero_shot = [
        a_run(1.0, "ZeroshotCLIP", dataset=name, shots=0, train_views=views)
        for name, views in (("A", 0), ("B", 4))
    ]
    report_of(write(tmp_path / "runs", *zero_shot))


def test_rows_that_state_a_trait_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        a_run(60.0 + views, seed=seed, train_views=views) for views in (1, 4) for seed in (1, 2)
    ]
    folder = write(tmp_path / "runs", *runs)
    report_of(folder, "--by", "train_views", "--baseline", "CoOp (train_views 4)")
    printed = capsys.readouterr().out
    assert "Not all rows are comparable" not in printed and "left out" not in printed
    assert "\N{MINUS SIGN}3.00 points" in printed


def test_the_size_of_a_batch_states_no_image_size() -> None:
    assert stated("size", "CoOp (size 64x64)", "CoOp (omega 1, size 224x224)")
    assert not stated("size", "CoOp (size 64x64)", "CoOp (batch_size 32)")


def test_a_cached_augmentation_for_every_epoch(tmp_path: Path) -> None:
    runs = [a_run(60.0, train_views="epochs"), pun(62.0, train_views=4)]
    text = (report_of(write(tmp_path / "runs", *runs)) / "report.md").read_text(encoding="utf-8")
    assert "trained on 4 or one per epoch cached augmentations of each image" in text


def test_rows_that_are_not_comparable_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_of(write(tmp_path / "runs", a_run(60.0), pun(62.0, backbone="RN50")))
    printed = capsys.readouterr().out
    assert "Not all rows are comparable: backbone is mini for CoOp and RN50 for CoOp+PUN" in printed
    assert "1 pair left out" in printed


def test_two_runs_of_one_cell_and_seed_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither is known to be the right one, and the newest need not be."""
    folder = write(tmp_path / "runs", a_run(60.0), a_run(62.0))
    message = refuse(capsys, folder)
    assert f"{folder / '0'} and {folder / '1'} are two runs of CoOp on EmojiFood" in message
    assert "seed 1" in message
    assert "two runs of CoOp" in refuse(capsys, folder, "--allow-mixed")


def test_a_run_named_twice_counts_once(runs: Path) -> None:
    assert report.main([str(runs), str(runs / "1"), "--output-dir", str(runs.parent / "a")]) == 0


def test_no_finished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not a folder" in refuse(capsys, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "empty contains no finished run" in refuse(capsys, tmp_path / "empty")
    begun = write(tmp_path / "begun", {**a_run(1.0), "status": "begun"})
    assert "no finished and tested run in" in refuse(capsys, begun)
    assert not (tmp_path / "begun" / "report").exists()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "it is not JSON"),
        ('{"status": "finished", "trainer": "Co', "it is not JSON"),
        ("\x00\x01", "it is not JSON"),
        ("[1, 2]", "it is not a JSON object"),
        ("{}", "it has no status"),
        (json.dumps({"status": "finished"}), "it has no trainer"),
        (json.dumps({**a_run(1.0), "shots": "four"}), "its shots is 'four'"),
        (json.dumps({**a_run(1.0), "accuracy": float("nan")}), "its accuracy is nan"),
        (json.dumps({**a_run(1.0), "config": None}), "its config is None"),
        (
            json.dumps(a_run(1.0, source_run={"config": {}})),
            "its source_run does not contain valid trainer",
        ),
        (json.dumps({**a_run(1.0, "CoOpNemesis"), "config": {}}), "BETA is None"),
    ],
)
def test_a_damaged_file_is_recognised(content: str, why: str, tmp_path: Path) -> None:
    write(tmp_path / "good", a_run(60.0))
    damaged = tmp_path / "results.json"
    damaged.write_text(content)
    found = read_runs([tmp_path])
    assert [run["accuracy"] for run in found.runs] == [60.0]
    ((path, reason),) = found.damaged.items()
    assert path == damaged
    assert why in reason


def test_a_damaged_file_is_named_and_the_others_reported(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = runs / "damaged" / "results.json"
    damaged.parent.mkdir()
    damaged.write_text("{")
    output = runs.parent / "made"
    assert report.main([str(runs), "--output-dir", str(output)]) == 1
    printed = capsys.readouterr()
    assert f"error: {damaged} is damaged: it is not JSON" in printed.err
    assert "62.0 ± 1.0" in printed.out
    assert "damaged/results.json is left out" in (output / "report.html").read_text()


def test_only_damaged_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results.json").write_text("{")
    assert "results.json is damaged: it is not JSON" in refuse(capsys, tmp_path)


def test_untested_and_stray_runs_are_named(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(runs / "more", a_run(None), a_run(1.0, subsample_classes="new"))
    report_of(runs)
    printed = capsys.readouterr().out
    assert "finished, but were not tested are left out: 1" in printed
    assert "belong to no protocol's table are left out: 1" in printed


def test_mistakes(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "must be at least 1" in refuse(capsys, runs, "--seeds", "-1")
    assert 'did you mean "a5"' in refuse(capsys, runs, "--paper", "a55")
    assert "invalid choice" in refuse(capsys, runs, "--test", "z")


def test_a_report_beside_the_runs_is_no_run(runs: Path) -> None:
    for _ in range(2):
        assert report.main([str(runs)]) == 0
    assert (runs / "report" / "report.html").is_file()
