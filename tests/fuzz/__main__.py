r"""Coverage-guided fuzzing of a file reader: save inputs that it does not reject with a UserError.

    python -m tests.fuzz --list
    python -m tests.fuzz torchscript --runs 100000 --seconds 600

Starts from valid files of the kind and from the corpus of earlier runs (in OUTPUT_DIR/TARGET). An
input that raises another exception is saved in OUTPUT_DIR/TARGET/defects, and the search continues.
If an input ends the process or exceeds --timeout or --memory, libFuzzer saves it there and exits.
Needs atheris: pip install -e '.[fuzz]'.

Exit codes: 0 no defect, 1 defects, 2 an error in the command.
"""

import argparse
import contextlib
import hashlib
import importlib
import os
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dassl.utils import Parser, exit_code
from safeio.errors import UserError

# Packages whose coverage guides the search: the project's, and the third-party readers it uses.
INSTRUMENTED = (
    "clip",
    "dassl",
    "safeio",
    "nemesis",
    "trainers.core.prompt_file",
    "yaml",
    "zipfile",
)
LONGEST_INPUT = 1 << 16  # bytes; the valid files are smaller
CHILD = "FUZZ_CHILD"  # set in the child process, which libFuzzer can end at any moment


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


def _atheris() -> Any:
    try:
        return importlib.import_module("atheris")
    except ImportError:
        raise UserError(
            "The fuzzer needs the package atheris; install it with pip install -e '.[fuzz]' "
            "(Linux on x86-64, Python 3.10 to 3.13)"
        ) from None


def run(arguments: argparse.Namespace) -> int:
    """Search in a child process and print the results.

    Raises:
        UserError: the target is unknown, or atheris is missing.
    """
    if arguments.list:
        readers = importlib.import_module("tests.fuzz.readers")
        print("\n".join(readers.READERS))
        return 0
    _atheris()
    folder = arguments.output_dir.absolute() / str(arguments.target)
    tried = folder / "tried"
    tried.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *sys.argv[1:]],
        env={**os.environ, CHILD: "1"},
        check=False,
    )
    if done.returncode == 2:
        return 2
    count = tried.stat().st_size if tried.exists() else 0
    defects = sorted((folder / "defects").glob("*"))
    print(f"{arguments.target}: {count:,} inputs tried, {len(defects)} defects in {folder}/defects")
    for defect in defects:
        print(f"  {defect.name}")
    return int(bool(defects))


def search(arguments: argparse.Namespace) -> int:
    """Run libFuzzer in this process, which it ends.

    Raises:
        UserError: the target is unknown.
    """
    atheris = _atheris()
    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        readers: Any = importlib.import_module("tests.fuzz.readers")
    if arguments.target not in readers.READERS:
        raise UserError(
            f'"{arguments.target}" is not a target; choose from {", ".join(readers.READERS)}'
        )
    reader = readers.READERS[arguments.target]
    folder = arguments.output_dir.absolute() / arguments.target
    corpus, defects = folder / "corpus", folder / "defects"
    corpus.mkdir(parents=True, exist_ok=True)
    defects.mkdir(exist_ok=True)
    scratch = tempfile.TemporaryDirectory()
    for data in readers.seeds_of(reader, Path(scratch.name)):
        (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    warnings.simplefilter("ignore")
    # One byte per input, so that the count survives the end of the process.
    tried = (folder / "tried").open("ab", buffering=0)

    def attempt(data: bytes) -> None:
        tried.write(b".")
        try:
            with contextlib.redirect_stdout(None):
                readers.answer(reader, data, Path(scratch.name) / "read")
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__}-{Path(last.filename).stem}-{last.lineno}"
            if not any(defects.glob(f"{kind}-*")):  # the first input of each kind of failure
                digest = hashlib.sha256(data).hexdigest()[:8]
                (defects / f"{kind}-{digest}").write_bytes(data)

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
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return exit_code(search if os.environ.get(CHILD) else run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
