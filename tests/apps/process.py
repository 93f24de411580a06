"""What the process of an application holds, its log, and ways of disturbing it."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from ssesync import streams

#: Descriptors that :func:`leak` has opened.
_leaked: list[int] = []


def log_to_stderr(level: int = logging.INFO) -> None:
    """Have the process log to where the test reads it."""
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")


def counts() -> dict[str, Any]:
    """Return the figures of the process, which cost little however many streams are open."""
    snapshot = streams.snapshot()
    tiers = [stream["tier"] for stream in snapshot["streams"]]
    return {
        "pid": os.getpid(),
        "tiers": {tier: tiers.count(tier) for tier in ("detached", "served")},
        "threads": threading.active_count(),
        **{name: snapshot[name] for name in ("opened", "refused", "closed", "producers")},
    }


def state() -> dict[str, Any]:
    """Return all that the process holds: its threads by name, and each stream."""
    return {
        "pid": os.getpid(),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        **streams.snapshot(),
    }


def descriptors() -> dict[str, str]:
    """Return the open descriptors with what they refer to."""
    return {each.name: target for each in Path("/proc/self/fd").iterdir() if (target := _target(each))}


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except OSError:
        return ""  # closed since the listing, as the listing's own is


def leak(until: Path) -> int:
    """Open all descriptors that the process may have, until the test makes a file; return how many."""

    def watch() -> None:
        while not until.exists():
            time.sleep(0.02)
        while _leaked:
            os.close(_leaked.pop())

    threading.Thread(target=watch, daemon=True).start()
    try:
        while len(_leaked) < 100_000:
            _leaked.append(os.dup(0))
    except OSError:
        pass
    return len(_leaked)
