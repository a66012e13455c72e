"""What an unknown key was meant to be; nothing is better than a wrong guess."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from yacs.config import CfgNode as YacsNode

from ..utils.registry import skipped_note

# How alike two spellings of one name are, at least; "KGCOOP" and "COOP" (0.8) are two methods.
ALIKE_GROUP = 0.85
ALIKE_NAME = 0.75
MOST = 3  # guesses in one hint
LONGEST_KEY = 200  # characters that are compared

_aliases: dict[str, str] = {}


def declare_aliases(aliases: Mapping[str, str]) -> None:
    """Name keys of other code, and what they are called here, for the hint of an unknown key.

    Args:
        aliases: dotted path elsewhere -> dotted path here; upper and lower case are alike.
    """
    _aliases.update({_plain(path): known for path, known in aliases.items()})


def hint(path: str, cfg: YacsNode) -> str:
    """The end of the sentence about an unknown key.

    Args:
        path: the dotted key.
        cfg: the configuration that lacks it.

    Returns:
        '; did you mean "..."?' where that is clear, or else what the key's group holds.
    """
    path = path[:LONGEST_KEY]
    known = list(_leaves(cfg))
    guesses = _renamed(path, known) or _misspelt(path, known)
    if guesses and len(guesses) <= MOST:
        return "; did you mean " + " or ".join(f'"{guess}"' for guess in guesses) + "?"
    return _about_group(path, cfg)


def _plain(path: str) -> str:
    """A path whose spellings are alike: TRAINER.COOP.N_CTX and trainer.coop.nctx."""
    return path.upper().replace("_", "").replace("-", "")


def _leaves(node: Any, prefix: str = "") -> Iterator[str]:
    for name, value in node.items():
        if isinstance(value, YacsNode):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _renamed(path: str, known: Sequence[str]) -> list[str]:
    """Keys that are certainly meant: of an alias, another case, or without the outer groups."""
    plain = _plain(path)
    for spelling in (plain, f"TRAINER.{plain}"):
        if _aliases.get(spelling) in known:
            return [_aliases[spelling]]
    same = [key for key in known if _plain(key) == plain]
    return same or [key for key in known if _plain(key).endswith(f".{plain}")]


def _misspelt(path: str, known: Sequence[str]) -> list[str]:
    """The key of the same group, however that is spelt, whose name is most like the given one.

    Else the keys of that very name in other groups; a trainer's group has no others.
    """
    group, _, name = _plain(path).rpartition(".")

    def likeness(key: str) -> float:
        known_group, _, known_name = _plain(key).rpartition(".")
        names = _ratio(name, known_name)
        # "MEAN" is part of two names, and a misspelling of neither.
        alike = names >= ALIKE_NAME and name[:1] == known_name[:1]
        return names if alike and _same_group(group, known_group) else 0.0

    best = max(known, key=likeness)
    if likeness(best):
        return [best]
    if group.startswith("TRAINER."):
        return []
    return [key for key in known if _plain(key).rpartition(".")[2] == name]


def _same_group(group: str, known: str) -> bool:
    names, known_names = group.split("."), known.split(".")
    return len(names) == len(known_names) and all(
        _ratio(*pair) >= ALIKE_GROUP for pair in zip(names, known_names, strict=True)
    )


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _about_group(path: str, cfg: YacsNode) -> str:
    """The keys beside an unknown one, or that its trainer's group is not declared."""
    group, node = "", cfg
    for name in path.split(".")[:-1]:
        if not isinstance(node.get(name), YacsNode):
            break
        group, node = f"{group}{name}.", node[name]
    if group == "TRAINER." and path.count(".") > 1:
        missing = ".".join(path.split(".")[:2])
        how = "as its file does with dassl.config.declare_config"
        return f"; no trainer declares {missing}, {how}{skipped_note()}"
    return f"; accepted: {', '.join(group + name for name in node)}"
