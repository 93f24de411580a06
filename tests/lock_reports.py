"""The check of the library's locks, which all tests run with, in their own process and in those that they start.

A test fails if anything that it ran took a lock against the order, or called foreign code under one: see
``ssesync/locks.py``.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from ssesync.locks import VARIABLE

__all__ = ["new_reports", "turn_on"]

_file: Path | None = None
_read = 0


def turn_on() -> None:
    """From now on locks are checked, and in all processes that inherit the environment."""
    global _file
    folder = Path(tempfile.mkdtemp(prefix="ssesync-locks-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _file = folder / "reports"
    os.environ[VARIABLE] = str(_file)


def new_reports() -> str:
    """What was reported since this was last asked."""
    global _read
    if _file is None or not _file.exists():
        return ""
    with _file.open("rb") as file:
        file.seek(_read)
        data = file.read()
        _read += len(data)
    return data.decode("utf-8", "replace")
