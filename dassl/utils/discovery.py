"""Import all plug-ins of a folder, so that a new file is registered without further edits."""

import importlib
import pkgutil
import sys
import traceback
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path

from safeio.untrusted import one_line

from .registry import AlreadyRegistered, SkippedPlugin, registries, skipped_plugins


def import_plugins(package: str, path: Iterable[str]) -> None:
    """Import every module of a package (`__name__`, `__path__`), which fills the registries.

    A module that cannot be imported is skipped with a warning on stderr, and its names are removed
    from the registries. `python -c "import PACKAGE.MODULE"` prints its traceback. What a module
    prints goes to stderr, since the stdout of a command may be JSON.
    """
    for module in sorted(pkgutil.iter_modules(path), key=lambda module: module.name):
        try:
            with redirect_stdout(sys.stderr):
                importlib.import_module(f"{package}.{module.name}")
        except (Exception, SystemExit) as error:
            file = f"{package}/{module.name}{'/__init__' if module.ispkg else ''}.py"
            inner = f"{package}.{module.name}."
            for part in [name for name in sys.modules if name.startswith(inner)]:
                del sys.modules[part]  # a package's modules that were imported before the error
            reason = _other_file(error, package, file) + _reason(error)
            _skip(SkippedPlugin(file, reason, error), package)


def _skip(plugin: SkippedPlugin, package: str) -> None:
    skipped_plugins.append(plugin)
    for registry in registries:
        registry.drop_unimported(package)
    if isinstance(plugin.error, AlreadyRegistered):  # the name is ambiguous
        plugin.error.registry.drop(plugin.error.name)
    if _is_first_process():
        print(f"Warning: {plugin} and is skipped", file=sys.stderr)


def _reason(error: BaseException) -> str:
    if isinstance(error, AlreadyRegistered):
        return str(error.args[0])
    if isinstance(error, SystemExit):
        return f"it ends the process: SystemExit {one_line(str(error))}".rstrip()
    return one_line(f"{type(error).__name__}: {error}")


def _other_file(error: BaseException, package: str, file: str) -> str:
    """Return the module of the package in which the import fails, unless it is `file`."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    files += [error.filename or ""] if isinstance(error, SyntaxError) else []
    found = [path for path in map(Path, files) if path.parent.name == package]
    name = f"{package}/{found[-1].name}" if found else file
    return f"{name}: " if name != file and "__init__" not in file else ""


def _is_first_process() -> bool:
    """Return whether this is the user's command and not one of its worker processes."""
    multiprocessing = sys.modules.get("multiprocessing")
    return multiprocessing is None or multiprocessing.parent_process() is None
