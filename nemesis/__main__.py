"""The command line: `python -m nemesis VERB`; `train.py` trains.

Exit codes: those of the command; 2 for an unknown verb.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from dassl.startup import importing
from safeio.errors import UserError

# Verb -> its module and what `python -m nemesis` prints about it.
VERBS = {
    "sweep": ("nemesis.commands.sweep", "run the grid of runs that a sweep file describes"),
    "report": ("nemesis.commands.report", "make tables, figures and a page from finished runs"),
    "reproduce": ("nemesis.commands.reproduce", "list the state of the paper's tables"),
    "predict": ("nemesis.commands.predict", "classify images with a trained run"),
    "export": ("nemesis.commands.export", "write a run's text features for other programs"),
    "merge": ("nemesis.commands.merge", "merge the adapters of runs of CLIPLoRA or CoTo"),
    "interpolate": ("nemesis.commands.interpolate", "measure the line between two runs' adapters"),
    "prune": ("nemesis.commands.prune", "measure what each block's adapters contribute"),
    "low-norm": ("nemesis.commands.low_norm", "corrupt each position of learned prompts"),
    "effect": ("nemesis.commands.effect", "compare Nemesis' gain with the Low-Norm Effect"),
    "continual": ("nemesis.commands.continual", "learn classes in tasks, one after the other"),
    "words": ("nemesis.commands.words", "list the words nearest to learned context vectors"),
    "methods": ("nemesis.commands.methods", "list the methods, their papers and what Nemesis does"),
    "datasets": ("nemesis.commands.datasets", "list the datasets and what is on the disk"),
    "download": ("nemesis.commands.download", "download and unpack datasets"),
    "bench": ("benchmarks.bench", "measure a step against a reference implementation"),
}
USAGE = "usage: python -m nemesis VERB [FLAG ...]; python -m nemesis VERB --help lists the flags"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names; return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    verb = arguments[0] if arguments else "--help"
    if verb in ("-h", "--help"):
        width = max(map(len, VERBS))
        print(
            "\n".join([USAGE, "", *(f"  {name:{width}}  {one[1]}" for name, one in VERBS.items())])
        )
        return 0
    with importing(__name__):
        if verb not in VERBS:
            return _refuse(verb)
        command = import_module(VERBS[verb][0])
    code: int = command.main(arguments[1:])
    return code


def _refuse(verb: str) -> int:
    from dassl.utils.names import check_availability

    try:
        check_availability(verb, list(VERBS))
    except UserError as error:
        print(f"error: {error}; python -m nemesis --help describes the verbs", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
