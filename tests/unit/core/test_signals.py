"""close(), cancel(), stop() and drain() in a signal handler, whatever it has interrupted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssesync.locks import VARIABLE

from .interrupted import SCENARIOS, TIMEOUT

ROOT = Path(__file__).parents[3]
# How often each is interrupted. On the code before, the first three and the stream hung within these.
COUNTS = {"token": 200, "waiting_token": 200, "writer": 200, "stream": 150, "kit": 30}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="setitimer() and SIGALRM are of POSIX systems")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_interrupted_main_thread_never_hangs(scenario: str) -> None:
    # Without the check of the locks, whose own bookkeeping a handler would interrupt.
    environ = {name: value for name, value in os.environ.items() if name != VARIABLE}
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.core.interrupted", scenario, str(COUNTS.get(scenario, 50))],
        cwd=ROOT, env=environ, capture_output=True, text=True, timeout=TIMEOUT + 10, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
