"""Table A11's example: Nemesis with peft on a tiny language model and a few lines of MRPC."""

import builtins
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from examples import prefix_tuning_mrpc as example
from tests.helpers.pages import code_with
from tests.helpers.refusals import refused
from tests.helpers.shell import recorded, script
from tests.helpers.tiny_language_model import HEADER, LINES, write_language_model, write_mrpc

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),  # peft's
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with MRPC in `mrpc`, a GPT-2 in `gpt2` and a RoBERTa in `roberta`."""
    folder = tmp_path_factory.mktemp("files")
    write_mrpc(folder / "mrpc", copies=4)
    for kind in ("gpt2", "roberta"):
        write_language_model(folder / kind, kind)
    return folder


def arguments(files: Path, *words: str, model: str = "gpt2") -> Any:
    given = ["--model", str(files / model), "--data", str(files / "mrpc"), "--device", "cpu"]
    short = ["--epochs", "3", "--tokens", "4", "--batch", "4", "--seeds", "1"]
    return example.build_parser().parse_args([*given, *short, *words])


def test_lines_of_mrpc_are_read_as_they_are(files: Path) -> None:
    pairs = example.read_mrpc(files / "mrpc/msr_paraphrase_train.txt")
    assert len(pairs) == 16 and sum(pair.label for pair in pairs) == 8
    assert pairs[0] == example.Pair('the cat "sat home .', 'the cat "sat home', 1)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (None, ("cannot be read", "msr_paraphrase_train.txt and msr_paraphrase_test.txt")),
        ("", ("first line is ''", "Quality, #1 ID")),
        (HEADER, ("no pair of sentences",)),
        (HEADER + LINES[0] + "1\t2\tthe cat\n", ("line 3", "5 columns")),
        (HEADER + LINES[0].replace("1\t1", "2\t1", 1), ("line 2", "0 or 1")),
        (b"\xff\xfe", ("not a file of MRPC in UTF-8",)),
    ],
)
def test_a_broken_file_is_one_sentence(
    text: str | bytes | None, parts: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "msr_paraphrase_train.txt"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with refused("msr_paraphrase_train.txt", *parts):
        example.read_mrpc(path)


@pytest.mark.parametrize(("method", "model"), [("prefix", "gpt2"), ("prompt", "roberta")])
def test_pun_shrinks_the_vectors_and_a_seed_repeats(
    method: str, model: str, files: Path, tmp_path: Path
) -> None:
    words = ["--method", method, "--omega", "0", "50", "0", "--output-dir", str(tmp_path)]
    example.run(arguments(files, *words, "--lr", "0.05", model=model))
    without, strong, again = json.loads((tmp_path / "results.json").read_text())["runs"]
    assert without == again
    assert strong["norm"] < without["norm"] - 0.1
    assert all(0 <= run[key] <= 100 for run in (without, strong) for key in ("accuracy", "f1"))
    text = (tmp_path / "table_a11.md").read_text()
    assert "mean norm" in text and "| 50 " in text


def test_pun_is_omega_times_the_mean_norm_of_the_virtual_tokens(files: Path) -> None:
    model, _ = example.load_model(arguments(files))
    vectors = example.soft_prompts(model)
    assert vectors.shape == (4, 2 * 2 * 16)  # keys and values of two layers
    torch.testing.assert_close(example.pun(model, 10.0), 10 * vectors.norm(dim=1).mean())
    example.pun(model, 1.0).backward()
    assert vectors.grad is not None and math.isclose(float(vectors.grad.norm()), 0.5, rel_tol=1e-5)


@pytest.mark.parametrize(
    ("words", "model", "parts"),
    [
        ((), "mrpc", ("mrpc is not a language model", "such as gpt2")),
        ((), "roberta", ("roberta has no key-value cache", "--method prompt")),
        (("--omega", "-1"), "gpt2", ("--omega is -1.0, but must be at least 0",)),
        (("--tokens", "0"), "gpt2", ("--tokens is 0, but must be above 0",)),
        (("--data", "gone"), "gpt2", ("gone/msr_paraphrase_train.txt cannot be read",)),
    ],
)
def test_a_mistake_is_one_sentence(
    words: tuple[str, ...], model: str, parts: tuple[str, ...], files: Path, tmp_path: Path
) -> None:
    with refused(*parts):
        example.run(arguments(files, *words, "--output-dir", str(tmp_path / "out"), model=model))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("package", ["peft", "transformers"])
def test_a_missing_extra_is_one_sentence(
    package: str, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with refused(rf"needs {package}, which is not installed; pip install '\.\[nlp\]'"):
        example.load_model(arguments(files))


def test_the_script_has_the_grid_of_the_paper(tmp_path: Path) -> None:
    ((name, *words),) = recorded("table_a11", tmp_path, "--lr", "0.1", DATA="my data", SEEDS="1 2")
    assert name == "examples.prefix_tuning_mrpc"
    flags = example.build_parser().parse_args(words)
    assert (flags.omega, flags.seeds, flags.lr) == ([0, 0.1, 1, 10, 50], [1, 2], 0.1)
    assert (flags.data, flags.output_dir.name) == (Path("my data/mrpc"), "table_a11")
    refusal = script("table_a11", tmp_path / "runs", BENCH="mini")
    assert refusal.returncode == 2 and "Table A11 has no bundled data" in refusal.stderr


def test_a_prefix_acts_on_the_logits_and_padding_does_not(files: Path) -> None:
    given = arguments(files)
    model, tokenizer = example.load_model(given)
    model.eval()
    device = torch.device("cpu")
    pairs = example.read_mrpc(files / "mrpc/msr_paraphrase_test.txt")[:4]
    (batch,) = example.batches(pairs, tokenizer, given, device)
    together = example.outputs(model, batch).logits
    plain = model.get_base_model()(**batch).logits
    assert float((together - plain).abs().max().detach()) > 1e-4
    for index, pair in enumerate(pairs):
        (single,) = example.batches([pair], tokenizer, given, device)
        logits = example.outputs(model, single).logits
        torch.testing.assert_close(logits[0], together[index], rtol=1e-4, atol=1e-5)


def test_the_lines_of_the_documentation_train(files: Path) -> None:
    given = arguments(files, "--method", "prompt", model="roberta")
    _, tokenizer = example.load_model(given)
    model = transformers.RobertaForSequenceClassification.from_pretrained(files / "roberta")
    pairs = example.read_mrpc(files / "mrpc/msr_paraphrase_train.txt")
    loader = list(example.batches(pairs, tokenizer, given, torch.device("cpu")))
    names: dict[str, Any] = {"model": model, "loader": loader, "epochs": 1}
    exec(code_with("PromptTuningConfig"), names)
    assert len(names["prompts"]) == 20 and names["prompts"].grad.abs().sum() > 0
    assert names["loss"].isfinite()
