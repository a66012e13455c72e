"""A tiny GPT-2 or RoBERTa of transformers with random weights, its tokenizer, and lines of MRPC."""

from pathlib import Path
from typing import Any

import torch

HEADER = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
WORDS = ("the", "cat", "dog", '"sat', "ran", "home", "away", "not", "it's", ".")
LINES = [
    '1\t1\t2\tthe cat "sat home .\tthe cat "sat home\n',
    "0\t3\t4\tthe dog ran away .\tit's not the cat\n",
    "1\t5\t6\tthe dog ran .\tthe dog ran away\n",
    "0\t7\t8\tnot home\tthe dog\n",
]


def write_mrpc(folder: Path, copies: int = 1) -> Path:
    """Write both files of MRPC."""
    folder.mkdir()
    for part in ("train", "test"):
        text = HEADER + "".join(LINES * copies)
        (folder / f"msr_paraphrase_{part}.txt").write_text(text, encoding="utf-8", newline="\r\n")
    return folder


def write_language_model(folder: Path, kind: str = "gpt2") -> Path:
    """Write a tiny model and its tokenizer as transformers does."""
    import tokenizers
    import transformers

    vocabulary = {word: index for index, word in enumerate(("<pad>", "<unk>", "<eos>", *WORDS))}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    pad = {"pad_token": "<pad>"} if kind != "gpt2" else {}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<eos>", unk_token="<unk>", **pad
    ).save_pretrained(folder)
    torch.manual_seed(0)
    size: dict[str, Any] = {"vocab_size": len(vocabulary), "pad_token_id": 0}
    model: Any
    if kind == "gpt2":
        size |= {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
        model = transformers.GPT2Model(transformers.GPT2Config(**size))
    else:
        size |= {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        size |= {"intermediate_size": 32}
        model = transformers.RobertaModel(transformers.RobertaConfig(**size))
    model.save_pretrained(folder)
    return folder
