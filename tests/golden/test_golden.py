"""Every golden case and record of every folder; unknown kinds fail.

NEMESIS_GOLDEN_DIR names other folders than the bundled ones, separated as in PATH:

    NEMESIS_GOLDEN_DIR=/data/golden:/data/more python -m pytest tests/golden
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.golden import lora, nemesis, plot, prompts, records, taught, tip_adapter, two_towers
from tests.golden.cases import VIT3, Case, golden_folders

FOLDERS = golden_folders()


def check_inputs(case: Case, root: Path) -> None:
    """The images go through the model, and the labels are classes."""
    del root
    sets = case.params.get("class_sets", {"": case.classes})
    for name, classes in sets.items():
        labels = case.expected["_".join(filter(None, ("labels", name)))]
        assert 0 <= labels.min() <= labels.max() < len(classes)
    for images in case.expected["images" if case.arch == VIT3 else f"images_{case.arch}"]:
        assert case.clip().encode_image(images).isfinite().all()


CHECKS: dict[str, Callable[[Case, Path], None]] = {
    "inputs": check_inputs,
    "clip_forward": prompts.check_clip_forward,
    "coop": prompts.check_coop,
    "crt": prompts.check_crt,
    "cocoop": prompts.check_cocoop,
    "pun": nemesis.check_pun,
    "pan": nemesis.check_pan,
    "combined": nemesis.check_combined,
    "steps": nemesis.check_steps,
    "plot": plot.check_plot,
    "plot_nemesis": nemesis.check_plot_nemesis,
    "steps_plot": nemesis.check_steps,
    "kgcoop": taught.check_kgcoop,
    "prograd": taught.check_prograd,
    "tcp": taught.check_tcp,
    "nemesis_on": taught.check_nemesis_on,
    "clip_lora": lora.check_clip_lora,
    "coto": lora.check_coto,
    "lora_pair": lora.check_pair,
    "tip_adapter": tip_adapter.check_tip_adapter,
    "inputs_vit3": check_inputs,
    "clip_forward_vit3": prompts.check_clip_forward,
    **dict.fromkeys(two_towers.TRAINERS, two_towers.check_method),
    "promptsrc_epochs": two_towers.check_epochs,
    "promptsrc_teacher": two_towers.check_teacher,
    "gpa_weights": two_towers.check_weights,
}
RECORDS: dict[str, Callable[[Any], None]] = {
    "templates.json": two_towers.check_templates,
    "schedules.json": records.check_schedules,
    "fewshot.json": records.check_fewshot,
    "tokenizer.json": records.check_tokenizer,
    "lora_schedules.json": lora.check_schedules,
}


def all_cases() -> list[Any]:
    return [
        pytest.param(case, id=f"{folder.path.name}-{case.entry['name']}-{case.arch}")
        for folder in FOLDERS
        for case in folder.cases()
    ]


def all_records() -> list[Any]:
    files = [file for folder in FOLDERS for file in sorted(folder.path.glob("*.json"))]
    return [
        pytest.param(file, id=f"{file.parent.name}-{file.name}")
        for file in files
        if file.name != "cases.json"
    ]


@pytest.mark.parametrize("case", all_cases())
def test_case(case: Case, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    record_property("golden", case.kind)
    if case.kind not in CHECKS:
        pytest.fail(
            f"{case.kind} is not a known kind of golden case; known are {', '.join(CHECKS)}"
        )
    for key, described in case.entry["arrays"].items():
        assert list(case.expected[key].shape) == described["shape"], key
    CHECKS[case.kind](case, tmp_path)


@pytest.mark.parametrize("file", all_records())
def test_record(file: Path, record_property: Callable[[str, object], None]) -> None:
    record_property("golden", file.name)
    if file.name not in RECORDS:
        pytest.fail(f"{file.name} is not a known record; known are {', '.join(RECORDS)}")
    RECORDS[file.name](json.loads(file.read_text(encoding="utf-8")))
