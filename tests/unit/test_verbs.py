"""The front door: each verb describes itself, and is typed wrong once; lists of what there is."""

import json
import os
from pathlib import Path

import pytest

import nemesis
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
from nemesis.__main__ import VERBS, main
from tests.helpers.runs import ROOT, Capture
from trainers.core.prompt_trainer import PromptTrainer
from trainers.nemesis_trainer import NemesisMixin

# An argument that names a file or a thing, and what a wrong one says.
RUN = ROOT / "tests/data/runs_2026_11/coop_nemesis"
PNG = str(ROOT / "tests/data/images/gray.png")
NO_RUN = 'error: "gone" holds no run: there is no such folder'
KEY = ("--set", "OPTIM.LRR", "1")
WRONG: dict[str, dict[tuple[str, ...], str]] = {
    "sweep": {("gone.yaml",): "gone.yaml", ("demo", *KEY): "OPTIM.LRR"},
    "report": {("gone",): "gone", ("--sweep", "demo", *KEY): "OPTIM.LRR"},
    "predict": {("gone", "gone.png"): "gone.png does not exist", ("gone", PNG): NO_RUN},
    "export": {("gone",): NO_RUN},
    "merge": {
        ("gone", "--output-dir", "x"): "there is no such folder",
        ("gone", "--output-dir", ""): "--output-dir is empty",
    },
    "interpolate": {("gone", "gone", "--points", "1"): "--points is 1"},
    "prune": {("gone",): "there is no such folder", ("gone", "--output-dir="): "is empty"},
    "low-norm": {("gone", "--rescale", "-1"): "--rescale is -1", ("gone",): NO_RUN},
    "words": {("gone", "--set", "KEY"): "--set: expected 2 arguments", ("gone",): NO_RUN},
    "effect": {("gone",): "gone", ("gone", "--rescale", "x"): "x"},
    "continual": {("emoji_food", "--tasks", "1"): "--tasks is 1"},
    "methods": {("CoOp",): "CoOp"},
    "datasets": {("food",): "food", ("--root", ""): "--root is empty"},
    "download": {("caltech100",): 'did you mean "caltech101"'},
    "reproduce": {("--check", "--profile", "gone"): 'no profile "gone"'},
    "bench": {("--threads", "none"): "none"},
}
OF_A_RUN = ("predict", "export", "low-norm", "words")
NEEDED = {
    **dict.fromkeys(
        ("sweep", "report", "export", "low-norm", "effect", "words", "download"), ("x",)
    ),
    "predict": ("x", PNG),
    "continual": ("x",),
    "merge": ("x", "--output-dir", "x"),
    "interpolate": ("x", "x"),
    "prune": ("x",),
}


def refusal(capsys: Capture, *words: str) -> str:
    capsys.readouterr()
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_typed_wrong(
    verb: str, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert f'did you mean "{verb}"' in refusal(capsys, verb[:-1] + "z")
    flag = refusal(capsys, verb, *NEEDED.get(verb, ()), "--jsom")
    assert "--jsom is not a flag of this command" in flag
    for words, part in WRONG[verb].items():
        assert part in refusal(capsys, verb, *words)
    if verb in OF_A_RUN:
        assert 'did you mean "OPTIM.LR"' in refusal(capsys, verb, str(RUN), *NEEDED[verb][1:], *KEY)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_describes_itself(verb: str, capsys: Capture) -> None:
    assert main([]) == 0
    assert f"  {verb} " in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: python -m nemesis {verb} ")
    assert "Exit codes:" in printed
    known = {"output", "load-epoch", "opts", "bench"}
    own = {"export": {"output"}}.get(verb, set())
    flags = {word.strip("[],").removeprefix("--") for word in printed.split() if "--" in word}
    assert not flags & (known - own)


def test_methods(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["methods", "--json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert set(found) == set(TRAINER_REGISTRY.registered_names())
    assert all(found[name]["paper"] and found[name]["prompts"] for name in found)
    assert found["CoOpNemesis"]["paper"] == found["CoOp"]["paper"] == "Zhou et al., IJCV 2022"
    variants = [name for name in found if found[name]["nemesis"]]
    assert variants == [name for name in found if name.endswith("Nemesis")]
    assert "mini" in found["CoOp"]["configs"]

    class Mine(PromptTrainer):
        """A method of a user."""

        paper = "Me, 2026"

    class MineNemesis(NemesisMixin, Mine):
        """With Nemesis."""

    monkeypatch.setattr(TRAINER_REGISTRY, "_objects", dict(TRAINER_REGISTRY._objects))
    for method in (Mine, MineNemesis):
        TRAINER_REGISTRY.register(method)
    mine = {one["name"]: one for one in nemesis.methods() if one["name"].startswith("Mine")}
    assert mine["Mine"]["summary"] == "A method of a user."
    assert mine["MineNemesis"]["paper"] == "Me, 2026"
    assert mine["MineNemesis"]["nemesis"] == "the context vectors"
    assert main(["methods"]) == 0
    assert "Me, 2026" in capsys.readouterr().out


def test_datasets(tmp_path: Path, capsys: Capture) -> None:
    for path in ("stanford_cars/cars_train/1.jpg", "dtd/images/1.jpg", "emoji_food/images/x.png"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    assert main(["datasets", "--root", str(tmp_path), "--json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    registered = set(DATASET_REGISTRY.registered_names()) - {"ClassNames"}
    assert {one["dataset"] for one in found.values()} == registered
    states = {name: found[name]["state"] for name in ("dtd", "emoji_food", "emoji_travel")}
    assert states == {"dtd": "complete", "emoji_food": "complete", "emoji_travel": "generated"}
    assert found["stanford_cars"]["missing"] == ["cars_test"]
    assert found["oxford_pets"]["missing"] == ["images"]
    assert found["folder"]["state"] == "own"
    assert found["oxford_pets"]["folder"] == os.fspath(tmp_path / "oxford_pets")
    assert all(one["summary"] for one in found.values())
    assert main(["datasets", "--root", str(tmp_path / "none")]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines if line[:1].strip()]
    assert (names[2], names[9], names[-1]) == ("emoji_activities", "caltech101", "folder")
