"""nemesis words: the nearest words of generic, class-specific and PLOT's prompts."""

import json
from pathlib import Path

import pytest
import torch

from clip.simple_tokenizer import tokenizer
from clip.weights import load_clip
from nemesis.commands import words
from nemesis.inference.words import nearest_words
from tests.helpers.runs import FEW, SHORT, Capture, command, finish

WORDS = ["a</w>", "photo</w>", "of</w>", "a</w>"]


@pytest.fixture(scope="module", params=["CoOp", "CoCoOp", "PLOT"])
def run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, data_root: Path
) -> Path:
    """Prompts that start as "a photo of a" and have hardly been trained: CoOp's class-specific."""
    output = tmp_path_factory.mktemp("words") / request.param
    few = (*SHORT, *FEW, "OPTIM.LR", "1e-6")
    finish(command(output, data_root, *few, trainer=request.param, config="mini"))
    return output


def test_prompts_that_start_as_words_say_them(run: Path, capsys: Capture) -> None:
    capsys.readouterr()
    chosen = ["baseball", "balloon"]
    arguments = [str(run), "--top-k", "2", "--classes", *chosen]
    assert words.main([*arguments, "--json"]) == 0
    vectors = json.loads(capsys.readouterr().out)[str(run)]
    classes = [None] if run.name == "CoCoOp" else sorted(chosen)
    sets = range(4) if run.name == "PLOT" else [None]
    places = [(vector["class"], vector["set"], vector["position"]) for vector in vectors]
    assert places == [(name, k, j) for name in classes for k in sets for j in range(4)]
    # PLOT's other prompt sets start with noise added.
    count = 1 if run.name == "PLOT" else len(classes)
    first = [vector["words"][0]["word"] for vector in vectors[: 4 * count]]
    assert first == WORDS * count
    embedding = load_clip("mini").model.token_embedding.weight
    ids = [tokenizer().encoder[word] for word in WORDS]
    norms = embedding[ids].norm(dim=1).tolist()
    assert [vector["norm"] for vector in vectors[:4]] == pytest.approx(norms, abs=1e-3)
    assert words.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "photo (0.0" in printed and ("baseball" in printed) == (run.name != "CoCoOp")


def test_distances_are_euclidean_and_empty_rows_no_words() -> None:
    vocabulary = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 0.0], [0.0, 0.0]])
    words, distances = nearest_words(torch.tensor([[0.0, 0.0], [3.0, 4.5]]), vocabulary, 9)
    assert words.tolist() == [[2, 1], [1, 2]]
    torch.testing.assert_close(distances[0], torch.tensor([1.0, 5.0]))
    assert distances[1, 0] == pytest.approx(0.5)


def test_mistakes(run: Path, tmp_path: Path, capsys: Capture) -> None:
    assert words.main([str(run), "--top-k", "0"]) == 2
    assert "not a whole number above 0" in capsys.readouterr().err
    assert words.main([str(run), str(tmp_path), "--top-k", "1"]) == 1
    (message,) = capsys.readouterr().err.strip().splitlines()
    assert message.startswith(f'error: "{tmp_path}" holds no run')
    assert words.main([str(run), "--classes", "basebal"]) == 2
    assert 'did you mean "baseball"' in capsys.readouterr().err
