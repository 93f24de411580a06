"""The producers of this process: threads that run users' code for streams, and their limit.

A detached stream takes none of the server's threads. So the number of these threads no longer bounds how much of an
application runs at a time, its use of databases and upstreams included: a limit of producers does. Each counts until
its thread *ends*, which may be after its stream: a call that waits for an upstream does not notice that the client has
left.

A producer that the event loop runs takes no thread. It counts for a limit that is set, which is one of the work that an
application does at a time, and not for the automatic one, which is one of threads.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from pathlib import Path
from typing import Any

from ..greenlets import threads_are_greenlets
from ..locks import make_lock
from ..settings import Settings
from ..text import escape
from .starts import View
from .wsgi_server import gunicorn_worker

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["Producers", "Slot", "producers"]

logger = logging.getLogger("ssesync")

# The default limit of producers' threads, at some 40 kB each.
_MOST = 1200
# The share of the threads that the system allows, and the smallest automatic limit.
_PART, _LEAST = 0.75, 8


class Slot:
    """The slot of one running producer.

    :param name: its stream's, for the snapshot.
    :param others: the tables that this slot is in while it is taken.
    """

    __slots__ = ("_others", "_stream_ended", "name")

    def __init__(self, name: str, *others: dict[Slot, None]) -> None:
        self.name = name
        self._stream_ended: float | None = None
        self._others = others

    def end_stream(self) -> None:
        """Note that the stream has ended, although the thread may still run."""
        self._stream_ended = time.monotonic()

    def release(self) -> None:
        """Release the slot: the thread has ended, or was not started. Any thread, any number of times; takes no
        lock."""
        for others in self._others:
            others.pop(self, None)

    @property
    def stream_ended_for(self) -> float | None:
        """Seconds since the stream has ended, ``None`` while it has not."""
        return None if self._stream_ended is None else time.monotonic() - self._stream_ended


class Producers:
    """See the module. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock = make_lock("server.producers")
        self._running: dict[Slot, None] = {}
        self._threads: dict[Slot, None] = {}  # those that take a thread
        self._views: dict[View, dict[Slot, None]] = {}  # as many as the application has functions
        self._most: int | None = None
        self._automatic: int | None = None
        self._warned = False

    def reserve(
        self, view: View, name: str, settings: Settings, of_view: int | None, *, thread: bool = True
    ) -> Slot | None:
        """Reserve a slot for a producer, which must be released.

        :param view: the producer's view.
        :param name: its stream's.
        :param settings: its stream's; ``max_producers`` limits the producers of the process.
        :param of_view: the limit of the view; ``None``: no limit.
        :param thread: whether it takes a thread.
        :return: the slot; ``None`` if all are taken.
        """
        is_set = settings.max_producers != "auto"
        most = self._limit(settings) if thread or is_set else None
        if thread or is_set:
            self._most = most
        counted = self._running if is_set else self._threads
        with self._lock:
            same = self._views.setdefault(view, {})
            full = (most is not None and len(counted) >= most) or (of_view is not None and len(same) >= of_view)
            tables = (self._running, same, self._threads) if thread else (self._running, same)
            slot = None if full else Slot(name, *tables)
            if slot is not None:
                for table in tables:
                    table[slot] = None
            warn, self._warned = full and not self._warned, self._warned or full
        if warn:
            allowed = most if of_view is None else of_view
            logger.warning(
                "%d producers of event streams run in this process, %d of them for %s, and clients are refused; "
                "max_producers=%r allows no more%s",
                len(self._running), len(same), escape(name), allowed, escape(self._advice()),
            )  # fmt: skip
        return slot

    def warn_of_threads(self, error: Exception) -> None:
        """Log that no thread can be started for a producer."""
        logger.warning(
            "no thread can be started for the producer of an event stream while %d others run, so its client is "
            "refused: %s; allow the service more tasks (TasksMax=, --pids-limit, ulimit -u), or set max_producers",
            len(self._running), escape(error),
        )  # fmt: skip

    def describe(self) -> dict[str, Any]:
        """Describe the producers for ``streams.snapshot()``.

        :return: the number of running ones, how many of these are asynchronous, their limit, and, of those whose stream
            has ended, the name and the seconds since then.
        """
        running = list(self._running)
        ended = [(each.name, seconds) for each in running if (seconds := each.stream_ended_for) is not None]
        return {
            "running": len(running),
            "asynchronous": max(0, len(running) - len(self._threads)),
            "limit": self._most,
            "ended": [{"name": name, "seconds": round(seconds, 3)} for name, seconds in ended],
        }

    def _advice(self) -> str:
        stuck = len(self.describe()["ended"])
        return f"; the streams of {stuck} have ended, but a call has not returned yet" if stuck else ""

    def _limit(self, settings: Settings) -> int | None:
        if settings.max_producers != "auto":
            return settings.max_producers
        if threads_are_greenlets():
            return None
        if self._automatic is None:
            self._automatic = _automatic_limit()
        return self._automatic


def _automatic_limit() -> int:
    worker = gunicorn_worker()
    workers = 1 if worker is None else max(1, int(worker.cfg.workers))
    allowed = [limit for limit in (*_limits_of_cgroups(), _limit_of_user()) if limit is not None]
    return min([_MOST, *(max(_LEAST, int(limit * _PART) // workers) for limit in allowed)])


def _limits_of_cgroups(root: Path = Path("/sys/fs/cgroup"), listing: Path = Path("/proc/self/cgroup")) -> list[int]:
    """The task limits of this process's control groups, in both versions of them."""
    found = []
    try:
        lines = listing.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "pids" not in controllers.split(","):
            continue
        base = root / "pids" if controllers else root
        # Each group is bounded by those above it. In a container the path may be the host's, and not exist.
        here = Path(path.lstrip("/"))
        for group in (here, *here.parents):
            with contextlib.suppress(OSError, ValueError):  # there is none, or it is "max"
                found.append(int((base / group / "pids.max").read_text()))
    return found


def _limit_of_user() -> int | None:
    """The limit of this user's processes and threads; root has none."""
    if resource is None or not hasattr(os, "geteuid") or not os.geteuid():
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    return None if soft == resource.RLIM_INFINITY else soft


#: The producers of this process.
producers = Producers()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=producers._reset)
