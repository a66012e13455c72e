r"""Coverage-guided fuzzing of a file reader: find inputs that it does not reject with a UserError.

    python -m tests.fuzz --list
    python -m tests.fuzz torchscript --runs 100000 --seconds 600

Starts from valid files of the kind and from the corpus of earlier runs (OUTPUT_DIR/TARGET/corpus).
The first input that raises another exception, ends the process or exceeds --timeout or --memory is
saved by libFuzzer in OUTPUT_DIR/TARGET/defects and ends the search. Needs atheris:
pip install -e '.[fuzz]' (Linux on x86-64, Python 3.10 to 3.13).

Exit codes: 0 no defect, 2 an error in the command, others a defect.
"""

import argparse
import contextlib
import hashlib
import importlib
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dassl.utils import Parser, exit_code
from safeio.errors import UserError

# Packages whose coverage guides the search: the project's, and the third-party readers it uses.
INSTRUMENTED = (
    *("clip", "dassl", "safeio", "nemesis", "trainers.core.prompt_file"),
    *("yaml", "zipfile"),
)
LONGEST_INPUT = 1 << 16  # bytes; the valid files are smaller


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("target", nargs="?", help="kind of file; see --list")
    add("--list", action="store_true", help="print the targets")
    add("--runs", type=int, default=100_000, help="inputs to try (default: 100000)")
    add("--seconds", type=int, default=600, help="duration of the search (default: 600)")
    add("--timeout", type=int, default=20, help="seconds per input (default: 20)")
    add("--memory", type=int, default=2048, help="MiB of the process (default: 2048)")
    add("--seed", type=int, default=1, help="seed of the search (default: 1)")
    add("--output-dir", type=Path, default=Path("output/fuzz"), help="default: output/fuzz")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Print the targets, or run libFuzzer, which ends the process.

    Raises:
        UserError: the target is unknown, or atheris is missing.
    """
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        raise UserError(
            "The fuzzer needs the package atheris; install it with pip install -e '.[fuzz]' "
            "(Linux on x86-64, Python 3.10 to 3.13)"
        ) from None
    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        readers: Any = importlib.import_module("tests.fuzz.readers")
    if arguments.list:
        print("\n".join(readers.READERS))
        return
    if arguments.target not in readers.READERS:
        raise UserError(
            f'"{arguments.target}" is not a target; choose from {", ".join(readers.READERS)}'
        )
    reader = readers.READERS[arguments.target]
    folder = arguments.output_dir.absolute() / arguments.target
    corpus, defects = folder / "corpus", folder / "defects"
    for path in (corpus, defects):
        path.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp())
    for data in readers.seeds_of(reader, scratch):
        (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    warnings.simplefilter("ignore")

    def attempt(data: bytes) -> None:
        with contextlib.redirect_stdout(None):
            readers.answer(reader, data, scratch / "read")

    options = {
        "runs": arguments.runs,
        "max_total_time": arguments.seconds,
        "timeout": arguments.timeout,
        "rss_limit_mb": arguments.memory,
        "max_len": LONGEST_INPUT,
        "seed": arguments.seed,
        "artifact_prefix": f"{defects}/",
        "print_final_stats": 1,
    }
    flags = [f"-{name}={value}" for name, value in options.items()]
    atheris.Setup(["fuzz", *flags, str(corpus)], attempt)
    atheris.Fuzz()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return exit_code(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
