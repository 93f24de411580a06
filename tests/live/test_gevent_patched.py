"""The unit tests pass again where gevent has replaced threads, locks and sockets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .servers import ROOT

#: Folders of tests that start no servers. Not wire: it is pure (tests/test_import_law.py), there is nothing to patch.
#: Not loop: where threads are greenlets nothing is detached.
FOLDERS = ("core", "server", "client", "source", "flask_skin", "django_skin")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("folder", FOLDERS)
def test_unit_tests_pass_after_monkey_patching(folder: str, tmp_path: Path) -> None:
    tests = ROOT / "tests" / folder
    if not list(tests.glob("**/test_*.py")):
        pytest.skip(f"there are no tests in {folder}")
    command = [sys.executable, "-m", "tests.live.under_gevent", "-q", "-p", "no:cacheprovider", str(tests)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=880)
    assert run.returncode == 0, f"{run.stdout[-20_000:]}\n{run.stderr[-5_000:]}"
