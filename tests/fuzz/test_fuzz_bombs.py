"""Files that request memory, time or code: one sentence, and bounded memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.bombs import ACCEPTED, write_all

MOST_MIB = 512  # by which the process may grow, over all files
SECONDS = 300  # the longest wait for all files


@pytest.mark.slow
def test_every_bomb_is_refused(tmp_path: Path) -> None:
    expected = write_all(tmp_path)
    assert len(expected) > 100
    command = [sys.executable, "-W", "ignore", "-m", "tests.helpers.bombs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [name for name, _, _ in answers] == [name for name, _ in expected]
    for (name, what), (_, sentence, grown) in zip(expected, answers, strict=True):
        assert (sentence is None) == (name in ACCEPTED), (name, what, sentence)
        assert "\n" not in (sentence or "") and grown < MOST_MIB, (name, what, sentence, grown)
    assert not any(tmp_path.rglob("touched")) and not Path("touched").exists()
