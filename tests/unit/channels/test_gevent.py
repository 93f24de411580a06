"""The contract holds where gevent has replaced threads, locks and sockets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.timeout(900)
def test_the_contract_holds_after_monkey_patching() -> None:
    names = ("test_contract", "test_streams", "test_overflow", "test_feed", "runs/test_run", "runs/test_following")
    tests = [f"tests/unit/channels/{name}.py" for name in names]
    command = [sys.executable, "-m", "tests.live.frameworks.under_gevent", "-q", "-p", "no:cacheprovider", *tests]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert run.returncode == 0, f"{run.stdout[-20_000:]}\n{run.stderr[-5_000:]}"
