"""The arrows of the figure in docs/architecture.md are the imports between packages."""

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
NODE = re.compile(r"^\s*(\w+)\[\"(.+?)\"\]", re.MULTILINE)
ARROW = re.compile(r"^\s*(\w+(?: & \w+)*) --> (\w+(?: & \w+)*)$", re.MULTILINE)
NOT_IN_THE_PICTURE = {"tests", "setup"}


def imports_between_packages() -> dict[str, set[str]]:
    """Imports between top-level packages and scripts."""
    packages = {path.parent.name for path in ROOT.glob("*/*.py")}
    packages |= {path.stem for path in ROOT.glob("*.py")}
    found: dict[str, set[str]] = defaultdict(set)
    for path in [
        *ROOT.glob("*.py"),
        *(p for name in packages for p in ROOT.glob(f"{name}/**/*.py")),
    ]:
        own = path.relative_to(ROOT).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            tops = {name.partition(".")[0] for name in names}
            found[own] |= (tops & packages) - {own}
    return {name: tops for name, tops in found.items() if name not in NOT_IN_THE_PICTURE}


def picture() -> tuple[dict[str, str], dict[str, set[str]]]:
    """Package -> its box in the figure, and the arrows between boxes."""
    (text,) = re.findall(r"```mermaid\n(.*?)```", (ROOT / "docs/architecture.md").read_text(), re.S)
    boxes = {}
    for box, label in NODE.findall(text):
        for name in re.split(r"<br>", label)[0].split(", "):
            boxes[name.removesuffix("/").removesuffix(".py")] = box
    arrows: dict[str, set[str]] = defaultdict(set)
    for sources, targets in ARROW.findall(text):
        for source in sources.split(" & "):
            arrows[source] |= set(targets.split(" & "))
    return boxes, arrows


def below(box: str, arrows: dict[str, set[str]]) -> set[str]:
    """All boxes that a box's arrows lead to, directly or not."""
    found: set[str] = set()
    waiting = [box]
    while waiting:
        new = arrows.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


def test_every_import_follows_an_arrow() -> None:
    boxes, arrows = picture()
    imports = imports_between_packages()
    assert set(imports) == set(boxes), "each package and script stands in one box of the figure"
    wrong = [
        f"{name} -> {other}"
        for name, others in imports.items()
        for other in others
        if boxes[other] not in {boxes[name], *below(boxes[name], arrows)}
    ]
    assert not wrong


def test_every_arrow_is_an_import_without_cycles() -> None:
    boxes, arrows = picture()
    imports = imports_between_packages()
    real = {(boxes[name], boxes[other]) for name, others in imports.items() for other in others}
    drawn = {(source, target) for source, targets in arrows.items() for target in targets}
    assert drawn <= real
    assert not [box for box in boxes.values() if box in below(box, arrows)]
