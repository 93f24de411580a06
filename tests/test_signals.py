"""The suite in a process that ignores signals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
IGNORES = """
import os, signal, sys
for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
#: What a process that a test starts does with a signal.
SHOWS = """
import json, signal
names = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM")
print(json.dumps({name: getattr(signal.getsignal(getattr(signal, name)), "name", "handled") for name in names}))
"""
STARTS = f"""
import subprocess, sys
from tests.signals import handle_ignored_signals
handle_ignored_signals()
subprocess.run([sys.executable, "-c", {SHOWS!r}], check=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("start", [[], ["-c", IGNORES]], ids=["", "ignored"])
def test_what_tests_start_heeds_signals_whatever_the_suite_was_started_to_ignore(start: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *start, "-c", STARTS], cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=200
    )
    defaults = dict.fromkeys(("SIGHUP", "SIGQUIT", "SIGTERM"), "SIG_DFL")
    assert json.loads(done.stdout) == {"SIGINT": "handled", **defaults}
