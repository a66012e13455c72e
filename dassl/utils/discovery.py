"""Plug-in folders: a file that is put there is found without editing another."""

import importlib
import pkgutil
from collections.abc import Iterable


def import_submodules(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, so that what they register is registered.

    Args:
        package: the package's `__name__`.
        path: the package's `__path__`.
    """
    for module in sorted(pkgutil.iter_modules(path), key=lambda module: module.name):
        importlib.import_module(f"{package}.{module.name}")
