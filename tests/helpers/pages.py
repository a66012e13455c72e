"""The README and the pages of docs/, with the commands and code that they show."""

import re
import shlex

from tests.helpers.runs import ROOT

PAGES = {
    path.name: path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}


def commands(page: str, start: str) -> list[list[str]]:
    """The arguments of every indented command on a page that starts like this."""
    pattern = rf"^ {{4}}\S*{re.escape(start)}\s+.*"
    text = re.sub(r"\$\([^)]*\)", "FOLDER", PAGES[page].replace("\\\n", ""))
    found = re.findall(pattern, text, re.M)
    return [shlex.split(text.partition(start)[2], comments=True) for text in found]


def runs_of(page: str) -> dict[str, list[str]]:
    """The arguments of train.py by the output folder below output/."""
    return {
        words[words.index("--output-dir") + 1].removeprefix("output/"): words
        for words in commands(page, "python train.py")
    }


def code_with(part: str) -> str:
    """The one block of Python on any page that contains a text."""
    blocks = [b for page in PAGES.values() for b in re.findall(r"```python\n(.*?)```", page, re.S)]
    (block,) = [block for block in blocks if part in block]
    return block
