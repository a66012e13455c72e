"""Plug-in folders: a file that is put there is found without editing another."""

import importlib
import pkgutil
import sys
from collections.abc import Iterable

from safeio.untrusted import one_line

from .registry import AlreadyRegistered, SkippedPlugin, registries, skipped_plugins


def import_plugins(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, so that what they register is registered.

    One that cannot be imported is named on stderr and skipped; nothing of it stays registered, and
    only who asks for a name that is missing then is refused. `python -c "import PACKAGE.MODULE"`
    shows where it fails.

    Args:
        package: the package's `__name__`.
        path: the package's `__path__`.
    """
    for module in sorted(pkgutil.iter_modules(path), key=lambda module: module.name):
        try:
            importlib.import_module(f"{package}.{module.name}")
        except (Exception, SystemExit) as error:
            file = f"{package}/{module.name}{'/__init__' if module.ispkg else ''}.py"
            _skip(SkippedPlugin(file, _reason(error), error), package)


def _skip(plugin: SkippedPlugin, package: str) -> None:
    skipped_plugins.append(plugin)
    for registry in registries:
        registry.drop_unimported(package)
    if isinstance(plugin.error, AlreadyRegistered):  # nobody can say which of the two is meant
        plugin.error.registry.drop(plugin.error.name)
    if _is_first_process():
        print(f"Warning: {plugin} and is skipped", file=sys.stderr)


def _reason(error: BaseException) -> str:
    if isinstance(error, AlreadyRegistered):
        return str(error.args[0])
    if isinstance(error, SystemExit):
        return f"it ends the process: SystemExit {one_line(str(error))}".rstrip()
    return one_line(f"{type(error).__name__}: {error}")


def _is_first_process() -> bool:
    """Whether this is the user's command and not a process that it has started."""
    multiprocessing = sys.modules.get("multiprocessing")
    return multiprocessing is None or multiprocessing.parent_process() is None
