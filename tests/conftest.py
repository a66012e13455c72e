"""Fixtures that several test files share."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

# Tests run side by side, on tiny models: more threads would only wait for each other.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
# No test asserts a time, and a busy machine is slow.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many golden cases of each kind passed and failed."""
    outcomes: Counter[tuple[str, str]] = Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            kind = dict(report.user_properties).get("golden")
            if kind and report.when == "call":
                outcomes[kind, outcome] += 1
    for kind in sorted({kind for kind, _ in outcomes}):
        passed, failed = outcomes[kind, "passed"], outcomes[kind, "failed"]
        terminalreporter.write_line(f"golden {kind}: {passed} passed, {failed} failed")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sweeps and benchmarks set the number of threads of their process."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def loaded_once() -> Iterator[None]:
    """All runs of this process share their frozen CLIP, as those of a worker do."""
    from trainers.core import frozen_clip

    kept: dict[Any, Any] = {}
    cached = frozen_clip.cached

    def once(kind: str, key: Any, make: Callable[[], Any]) -> Any:
        def find() -> Any:
            if key not in kept:
                kept[key] = make()
                for oldest in list(kept)[:-4]:
                    del kept[oldest]
            return kept[key]

        return cached(kind, key, find)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frozen_clip, "cached", once)
        yield


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One data folder for the whole test run: scenes are made once, also under pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if base.name.startswith("popen-") else base
    return shared / "data"


@pytest.fixture(scope="module")
def own_root(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """A data folder whose images may be spoilt."""
    from tests.helpers.runs import command, finish

    root = tmp_path_factory.mktemp("own") / "data"
    few = ("DATASET.NUM_SHOTS", "1", "TEST.SPLIT", "val")
    finish(command(root.parent / "first", data_root, *few, trainer="ZeroshotCLIP"))
    shutil.copytree(data_root / "emoji_activities", root / "emoji_activities")
    return root


@pytest.fixture(scope="module")
def toys() -> Iterator[None]:
    """The registries contain the toy dataset and the toy trainer."""
    from tests.helpers.dassl_toy import registered

    with registered():
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of the toy dataset."""
    from tests.helpers.dassl_toy import make_images

    return make_images(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def runs(root: Path, toys: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run and a killed one of the toy task."""
    from tests.helpers.run_folders import make_runs

    return make_runs(root, tmp_path_factory.mktemp("runs"))


@pytest.fixture
def folder(runs: Path, tmp_path: Path) -> Path:
    """Copies of both."""
    return Path(shutil.copytree(runs, tmp_path / "runs"))


@pytest.fixture(scope="module")
def whole(root: Path, toys: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The killed run of the toy task, uninterrupted."""
    from tests.helpers.dassl_toy import toy_command
    from tests.helpers.run_folders import EVERY_EPOCH
    from tests.helpers.runs import finish

    output = tmp_path_factory.mktemp("whole")
    finish(toy_command(root, output, *EVERY_EPOCH))
    return output
