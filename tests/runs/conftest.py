"""Finished runs that several test files ask about, each trained once."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.helpers.runs import FEW, SHORT, command, finish


@pytest.fixture(scope="session")
def short_run(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Callable[..., Path]:
    """A function that returns the folder of a method's short run, which no test may change."""

    @cache
    def trained(method: str, config: str = "") -> Path:
        output = tmp_path_factory.mktemp("short") / method
        finish(command(output, data_root, *SHORT, *FEW, trainer=method, config=config))
        return output

    return trained
