r"""Feed damaged files to a reader, guided by coverage, and keep what it does not refuse cleanly.

    python -m scripts.fuzz --list
    python -m scripts.fuzz torchscript --runs 100000 --seconds 600

Starts from valid files of the kind and from what earlier runs found (OUTPUT/TARGET/corpus). An
input that shows a stack trace is saved in OUTPUT/TARGET/defects and the search goes on; one that
ends the process, takes longer than --timeout or more memory than --memory is saved there by
libFuzzer, which then ends. Needs atheris: pip install -e '.[fuzz]'.

Exit codes: 0 no defect, 1 defects, 2 a mistake in the command.
"""

import argparse
import contextlib
import hashlib
import importlib
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dassl.utils import Parser, exit_code
from safeio.errors import UserError

# Whose branches guide the search: ours, and the readers in Python that we lean on.
GUIDING = (
    "clip",
    "dassl",
    "safeio",
    "sweeps",
    "analysis.report",
    "trainers.core.prompt_file",
    "yaml",
    "zipfile",
)
LONGEST_INPUT = 1 << 16  # bytes; the valid files are smaller
CHILD = "FUZZ_CHILD"  # set in the process that libFuzzer may end at any moment


def build_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("target", nargs="?", help="kind of file; --list shows all")
    add("--list", action="store_true", help="print the targets")
    add("--runs", type=int, default=100_000, help="inputs to try (default: 100000)")
    add("--seconds", type=int, default=600, help="stop after so long (default: 600)")
    add("--timeout", type=int, default=20, help="seconds that one input may take (default: 20)")
    add("--memory", type=int, default=2048, help="MiB of the whole process (default: 2048)")
    add("--seed", type=int, default=1, help="of the search (default: 1)")
    add("--output", type=Path, default=Path("output/fuzz"), help="default: output/fuzz")
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
    """Search in a process of its own, and say what came of it.

    Raises:
        UserError: an unknown target, or atheris is missing.
    """
    if arguments.list:
        readers = importlib.import_module("scripts.fuzz.readers")
        print("\n".join(readers.READERS))
        return 0
    _atheris()
    folder = arguments.output.absolute() / str(arguments.target)
    tried = folder / "tried"
    tried.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "scripts.fuzz", *sys.argv[1:]],
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


class _Search:
    """What libFuzzer calls.

    Args:
        readers: the module with the readers.
        target: name of one.
        folder: of this target.
        scratch: where each input is written.
    """

    def __init__(self, readers: Any, target: str, folder: Path, scratch: Path) -> None:
        self.readers = readers
        self.reader = readers.READERS[target]
        self.defects = folder / "defects"
        self.scratch = scratch
        # A byte an input: it tells the number, however the process ends.
        self.tried = (folder / "tried").open("ab", buffering=0)
        self.known: set[str] = set()

    def __call__(self, data: bytes) -> None:
        """Try one input."""
        self.tried.write(b".")
        try:
            with contextlib.redirect_stdout(None):
                self.readers.answer(self.reader, data, self.scratch)
        except Exception as error:
            self._keep(data, error)

    def _keep(self, data: bytes, error: Exception) -> None:
        """Save the first input of each kind of failure."""
        trace: Any = error.__traceback__
        while trace.tb_next:
            trace = trace.tb_next
        kind = f"{type(error).__name__}-{Path(trace.tb_frame.f_code.co_filename).stem}"
        if f"{kind}-{trace.tb_lineno}" not in self.known:
            self.known.add(f"{kind}-{trace.tb_lineno}")
            digest = hashlib.sha256(data).hexdigest()[:8]
            (self.defects / f"{kind}-{trace.tb_lineno}-{digest}").write_bytes(data)


def search(arguments: argparse.Namespace) -> int:
    """Run libFuzzer in this process, which it ends.

    Raises:
        UserError: an unknown target.
    """
    atheris = _atheris()
    with atheris.instrument_imports(include=list(GUIDING)):
        readers: Any = importlib.import_module("scripts.fuzz.readers")
    if arguments.target not in readers.READERS:
        raise UserError(
            f'"{arguments.target}" is no target; choose one of {", ".join(readers.READERS)}'
        )
    folder = arguments.output.absolute() / arguments.target
    corpus, defects = folder / "corpus", folder / "defects"
    corpus.mkdir(parents=True, exist_ok=True)
    defects.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        for data in readers.seeds_of(readers.READERS[arguments.target], Path(made)):
            (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    warnings.simplefilter("ignore")
    scratch = tempfile.TemporaryDirectory()
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
    target = _Search(readers, arguments.target, folder, Path(scratch.name))
    atheris.Setup(["fuzz", *flags, str(corpus)], target)
    atheris.Fuzz()
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a command line; returns the exit code."""
    return exit_code(search if os.environ.get(CHILD) else run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
