r"""Prefix-tuning with Nemesis on MRPC: Table A11, and how to add Nemesis to any method of peft.

    python -m examples.prefix_tuning_mrpc --model gpt2 --data data/mrpc --omega 0 0.1 1 10 50

It tunes a prefix (Li & Liang, ACL 2021) or, with --method prompt, a soft prompt (Lester et al.,
EMNLP 2021) of a frozen language model with L = CE + omega_E * PUN; omega 0 is the method itself.
MRPC's folder contains msr_paraphrase_train.txt and msr_paraphrase_test.txt as published. Prefixes
are key-value caches, so that prefix-tuning needs a model that has one, such as GPT-2.

The numbers of the paper's Table A11 and its settings are not known to this repository; the
defaults are ours. results.json in --output-dir has the results of every seed and omega.

Exit codes: 0 done, 2 an error in the command or its files.
"""

import argparse
import inspect
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor

from dassl.utils import Parser, choose_device, exit_code, set_random_seed
from nemesis.report.scores import Score
from nemesis.report.table import Table
from safeio.errors import UserError
from safeio.files import prepare_output_dir, write_json
from safeio.untrusted import read_bounded, short_repr
from trainers.nemesis import norm_loss, omega_schedule

PARTS = ("train", "test")
COLUMNS = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")
LARGEST = 2**26


@dataclass(frozen=True)
class Pair:
    """Two sentences; label 1 if they are paraphrases, else 0."""

    first: str
    second: str
    label: int


def soft_prompts(model: Any) -> Float[Tensor, "length width"]:
    """Return the learned vectors of a peft model, one row per virtual token.

    A row of a prefix holds the keys and values of all layers at this position.
    """
    weight: Tensor = model.prompt_encoder["default"].embedding.weight
    return weight


def pun(model: Any, omega: float) -> Float[Tensor, ""]:
    """Return the PUN loss of a peft model: omega times its vectors' mean norm. Nemesis, eq. 3."""
    prompts = soft_prompts(model)
    return norm_loss(prompts, prompts.new_full((len(prompts),), omega))


def read_mrpc(path: Path) -> list[Pair]:
    """Read a file of MRPC (Dolan & Brockett, IWP 2005): tab-separated, quotes are ordinary letters.

    Raises:
        UserError: the file is missing, or a line is not of MRPC's form.
    """
    try:
        lines = read_bounded(path, LARGEST).decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); --data takes the folder of MRPC's "
            + " and ".join(f"msr_paraphrase_{part}.txt" for part in PARTS)
        ) from error
    except ValueError as error:
        raise UserError(f"{path} is not a file of MRPC in UTF-8: {error}") from error
    if tuple(lines[0].split("\t")) != COLUMNS:
        raise UserError(
            f"{path}: the first line is {short_repr(lines[0])}, but MRPC's columns are "
            f"{', '.join(COLUMNS)}, separated by tabs"
        )
    rows = [(number, line.split("\t")) for number, line in enumerate(lines[1:], 2) if line]
    for number, row in rows:
        if len(row) != len(COLUMNS) or row[0] not in ("0", "1"):
            raise UserError(
                f"{path}, line {number}: {short_repr(row)} is not a line of MRPC; it needs "
                f"{len(COLUMNS)} columns separated by tabs, the first of which is 0 or 1"
            )
    if not rows:
        raise UserError(f"{path} contains no pair of sentences; download MRPC again")
    return [Pair(row[3], row[4], int(row[0])) for _, row in rows]


def load_model(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Return the frozen language model with a classifier and prompts, and its tokenizer.

    Raises:
        UserError: transformers or peft is missing, the model is not a language model, or it has no
            key-value cache for a prefix.
    """
    try:
        import peft
        import transformers
    except ModuleNotFoundError as error:
        raise UserError(
            f"This example needs {error.name}, which is not installed; pip install '.[nlp]'"
        ) from error
    transformers.utils.logging.set_verbosity_error()  # the classifier's weights are new
    name = arguments.model
    local = {"local_files_only": True} if Path(name).is_dir() else {}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **local)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            name, num_labels=2, **local
        )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"--model {name} is not a language model of Hugging Face's transformers ({reason}); "
            "give the name of one, such as gpt2, or the folder of its files"
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    kinds = {"prefix": peft.PrefixTuningConfig, "prompt": peft.PromptTuningConfig}
    config = kinds[arguments.method](task_type="SEQ_CLS", num_virtual_tokens=arguments.tokens)
    if arguments.method == "prefix" and cache_name(model) is None:
        raise UserError(
            f"--model {name} has no key-value cache for a prefix; choose a model that has one, "
            "such as gpt2, or --method prompt"
        )
    return peft.get_peft_model(model, config), tokenizer


def cache_name(model: Any) -> str | None:
    """Return the argument that takes a key-value cache; None if a model has none."""
    names = inspect.signature(model.forward).parameters
    return next((name for name in ("cache", "past_key_values") if name in names), None)


def outputs(model: Any, batch: dict[str, Tensor]) -> Any:
    """Return the loss and the logits of a batch.

    peft 0.21 passes a classifier's prefix only under the name of transformers before 5, so that it
    is passed here.
    """
    if model.active_peft_config.peft_type != "PREFIX_TUNING":
        return model(**batch)
    base, mask = model.get_base_model(), batch["attention_mask"]
    prefix = mask.new_ones(len(mask), model.active_peft_config.num_virtual_tokens)
    cache = {str(cache_name(base)): model.get_prompt(len(mask))}
    return base(**{**batch, "attention_mask": torch.cat([prefix, mask], 1)}, **cache)


def batches(
    pairs: Sequence[Pair], tokenizer: Any, arguments: argparse.Namespace, device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """Yield the tokens and labels of batches of pairs, in their order."""
    for start in range(0, len(pairs), arguments.batch):
        part = pairs[start : start + arguments.batch]
        tokens = tokenizer(
            [pair.first for pair in part],
            [pair.second for pair in part],
            padding=True,
            truncation=True,
            max_length=arguments.length,
            return_tensors="pt",
        )
        labels = torch.tensor([pair.label for pair in part])
        yield {name: each.to(device) for name, each in {**tokens, "labels": labels}.items()}


def train(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[Pair],
    omega: float,
    arguments: argparse.Namespace,
    device: torch.device,
) -> None:
    """Tune the prompts and the classifier with L = CE + omega_E * PUN."""
    learned = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=arguments.lr)
    model.train()
    for epoch in range(arguments.epochs):
        shuffled = [pairs[index] for index in torch.randperm(len(pairs)).tolist()]
        factor = omega_schedule(epoch, arguments.epochs)
        for batch in batches(shuffled, tokenizer, arguments, device):
            loss = outputs(model, batch).loss + factor * pun(model, omega)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@torch.no_grad()
def test(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[Pair],
    arguments: argparse.Namespace,
    device: torch.device,
) -> dict[str, float]:
    """Return accuracy and F1 of "paraphrase", both in %, and the mean norm of the vectors."""
    model.eval()
    logits = [outputs(model, one).logits for one in batches(pairs, tokenizer, arguments, device)]
    predicted = torch.cat(logits).argmax(1).cpu().tolist()
    labels = [pair.label for pair in pairs]
    return {
        "accuracy": 100 * float(accuracy_score(labels, predicted)),
        "f1": 100 * float(f1_score(labels, predicted, zero_division=0)),
        "norm": float(soft_prompts(model).norm(dim=1).mean()),
    }


def build_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--model", default="gpt2", help="folder or name of a language model (default: gpt2)")
    add("--data", type=Path, default=Path("data/mrpc"), help="MRPC's folder (default: data/mrpc)")
    add("--method", choices=("prefix", "prompt"), default="prefix", help="default: prefix")
    grid = [0.0, 0.1, 1.0, 10.0, 50.0]
    add("--omega", type=float, nargs="+", default=grid, help="0: without Nemesis; default: all")
    add("--seeds", type=int, nargs="+", default=[1, 2, 3], help="default: 1 2 3")
    for name, default in (("tokens", 20), ("epochs", 20), ("batch", 32), ("length", 128)):
        add(f"--{name}", type=int, default=default, help=f"default: {default}")
    add("--lr", type=float, default=5e-3, help="learning rate of AdamW (default: 0.005)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    add("--output-dir", type=Path, default=Path("output/prefix_tuning_mrpc"))
    return parser


def check(arguments: argparse.Namespace) -> None:
    """Check the numbers of the command line.

    Raises:
        UserError: one is too small.
    """
    for name in ("tokens", "epochs", "batch", "length", "lr"):
        if not (value := getattr(arguments, name)) > 0:
            raise UserError(f"--{name} is {value}, but must be above 0")
    if wrong := [omega for omega in arguments.omega if not 0 <= omega < float("inf")]:
        raise UserError(f"--omega is {wrong[0]}, but must be at least 0")


def table(runs: Sequence[dict[str, Any]]) -> Table:
    """Tabulate the mean and standard deviation over the seeds by omega."""
    rows = []
    for omega in dict.fromkeys(run["omega"] for run in runs):
        own = [run for run in runs if run["omega"] == omega]
        scores = (Score(tuple(run[key] for run in own)).text for key in ("accuracy", "f1", "norm"))
        rows.append([f"{omega:g}", *scores])
    caption = "In %, mean ± standard deviation over the seeds; the paper's numbers are not known."
    return Table("table_a11", "MRPC", ["omega", "accuracy", "F1", "mean norm"], rows, caption)


def run(arguments: argparse.Namespace) -> None:
    """Train and test every seed and omega, and write the results after each.

    Raises:
        UserError: see `check`, `read_mrpc` and `load_model`.
    """
    check(arguments)
    device = choose_device({"DEVICE": arguments.device})
    data = {part: read_mrpc(arguments.data / f"msr_paraphrase_{part}.txt") for part in PARTS}
    runs: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        for omega in arguments.omega:
            set_random_seed(seed)
            model, tokenizer = load_model(arguments)
            model.to(device)
            train(model, tokenizer, data["train"], omega, arguments, device)
            result = test(model, tokenizer, data["test"], arguments, device)
            runs.append({"omega": omega, "seed": seed, **result})
            print(runs[-1], flush=True)
            output = prepare_output_dir(arguments.output_dir)
            settings = {name: str(value) for name, value in vars(arguments).items()}
            write_json({"settings": settings, "runs": runs}, output / "results.json")
    found = table(runs)
    found.write(arguments.output_dir)
    print(found.markdown())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return exit_code(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
