"""The broker for the processes of one machine: an SQLite file in WAL mode, which each of them opens."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ....errors import BrokerError, SettingsError
from ....validation import check_number
from ...broker import Broker
from ...entry import Entry, Start
from ...log import Page
from ...message import CONTROL, Message
from ...options import LIMITS, Limits, checked_options, shown_url, take_limits
from ...runs.record import RunRecord
from ..listener import Listener
from ..presence import EXPIRY, Presence
from . import log, runs
from .file import Handle
from .owners import OwnerLocks

__all__ = ["SQLiteBroker"]

# Rows that the listener takes at a time.
_BATCH = 500
# Seconds between two polls without subscribers.
_IDLE = 0.5


class SQLiteBroker(Broker):
    """``sqlite:///relative/path`` or ``sqlite:////absolute/path``: for all processes of a machine, on a local disk.

    A process notices other processes' events within about ``poll`` seconds, by ``PRAGMA data_version``, and its own at
    once. When ``publish`` returns, the event is in the file and survives a crash of any process. A crash of the machine
    may lose the events of the last moments.

    :param path: the file; it is made if it does not exist.
    :param limits: how much the log keeps.
    :param poll: seconds between two polls (0.02).
    :param busy_timeout: seconds to wait for other processes' locks before ``BrokerUnavailable`` (5).
    """

    reaches_processes = True

    def __init__(
        self, path: str | Path, limits: Limits | None = None, *, poll: float = 0.02, busy_timeout: float = 5.0
    ) -> None:
        check_number("poll", poll, above=0)
        check_number("busy_timeout", busy_timeout, above=0)
        # Absolute, as it is opened later, and again: the process may have changed its directory by then.
        self._path = Path(path).absolute()
        self._address = f"sqlite:///{self._path}"
        self._poll = poll
        self._busy_timeout = busy_timeout
        super().__init__(limits)

    @classmethod
    def from_url(cls, url: str, options: dict[str, Any]) -> SQLiteBroker:
        """Make the broker of a URL.

        :param url: the URL.
        :param options: the options of its query, and others.
        :return: the broker.
        :raises SettingsError: the URL or an option can't work.
        """
        parts = urlsplit(url)
        path = unquote(parts.path)[1:]
        if not url[len(parts.scheme) :].startswith(":///") or not path or path == ":memory:":
            raise SettingsError(
                f"sqlite:// takes the path of a file, sqlite:///relative or sqlite:////absolute, got {shown_url(url)}"
            )
        known: dict[str, Callable[[str], Any]] = {**LIMITS, "poll": float, "busy_timeout": float}
        checked = checked_options(options, known)
        limits = take_limits(checked)
        return cls(path, limits, **checked)

    def _reset(self) -> None:
        super()._reset()
        existed = threading.Event()
        self._handles = tuple(Handle(self._path, self._busy_timeout, existed) for _ in range(3))
        self._write, self._read, self._follow = self._handles
        self._listener = Listener(self._step, f"the broker of {self._path}")
        self._process = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._version: object = None
        self._is_idle = True  # without subscribers: the listener polls less often
        self._owners = OwnerLocks(self._path)
        self._presence = Presence(self.dispatcher, self._send_presence)

    def _before_fork(self) -> list[Callable[[], str]]:
        return [handle.before_fork() for handle in self._handles]

    def _append(self, channel: str, body: bytes) -> str:
        with self._write.transaction(write=True) as connection:
            seq = log.append(connection, self.limits, channel, body, time.time())
            epoch, _ = log.head_of(connection)
        self._listener.wake()
        return f"{epoch}-{seq}"

    def _append_many(self, entries: Sequence[Entry], *, whole: bool) -> tuple[str, list[int]]:
        with self._write.transaction(write=True) as connection:
            numbers = log.append_many(connection, self.limits, entries, time.time(), whole=whole)
            epoch, _ = log.head_of(connection)
        self._listener.wake()
        return epoch, numbers

    def _head(self) -> tuple[str, int]:
        with self._read.transaction() as connection:
            return log.head_of(connection)

    def read(self, epoch: str, after: int, channels: Iterable[str], patterns: Iterable[str], limit: int) -> Page:
        """See :class:`Broker`."""
        with self._read.transaction() as connection:
            return log.page_of(connection, self.limits, epoch, after, channels, patterns, limit, time.time())

    def start_of(self, channels: Iterable[str], patterns: Iterable[str], last: int | None) -> Start:
        """See :class:`Broker`."""
        with self._read.transaction() as connection:
            return log.start_of(connection, self.limits, channels, patterns, last, time.time())

    def find(self, epoch: str, seq: int) -> Message | None:
        """See :class:`Broker`."""
        with self._read.transaction() as connection:
            return log.message_of(connection, epoch, seq)

    def _has_channel(self, name: str) -> bool:
        with self._read.transaction() as connection:
            return log.has_channel(connection, self.limits, name, time.time())

    # Runs.

    def _begin_run(self, record: RunRecord, most: int | None, restart: bool) -> tuple[bool, RunRecord | None]:
        if not restart:  # most calls join a run, and need no lock that writers wait for
            present = self._find_run(record.name)
            if present is not None:
                return False, present
        with self._write.transaction(write=True) as connection:
            return runs.add_run(connection, record, most, restart, time.time())

    def _own_run(self, name: str, owner: str) -> bool:
        with self._write.transaction(write=True) as connection:
            return runs.own_run(connection, name, owner)

    def _find_run(self, name: str) -> RunRecord | None:
        with self._read.transaction() as connection:
            return runs.find_run(connection, name, time.time())

    def _renew_owner(self, owner: str, lease: float) -> bool:
        return self._owners.renew(self._write, owner, lease)

    def _abandoned(self) -> list[RunRecord]:
        with self._read.transaction() as connection:
            gone = self._owners.gone(runs.owners(connection))
            if not gone:
                return runs.abandoned(connection, time.time())
        with self._write.transaction(write=True) as connection:
            for owner in gone:
                runs.remove_owner(connection, owner)
            return runs.abandoned(connection, time.time())

    def _claim(self, name: str, seconds: float) -> bool:
        now = time.time()
        with self._write.transaction(write=True) as connection:
            connection.execute("DELETE FROM ssesync_claim WHERE until < ?", (now,))
            query = "INSERT OR IGNORE INTO ssesync_claim VALUES (?, ?)"
            return connection.execute(query, (name, now + seconds)).rowcount == 1

    def _listen(self) -> None:
        self._version = self._follow.data_version()
        with self._follow.transaction() as connection:
            self.dispatcher.begin(*log.head_of(connection))
        self._listener.start()

    def _unlisten(self) -> None:
        self._listener.stop()

    def _attached(self) -> None:
        if self._is_idle:  # not for each of thousands of clients: two threads would contend for the interpreter's lock
            self._listener.wake()

    def _release(self) -> None:
        if self._presence.known:
            with contextlib.suppress(BrokerError), self._write.transaction(write=True) as connection:
                connection.execute("DELETE FROM ssesync_presence WHERE process = ?", (self._process,))
        if self._closed:
            self._owners.release()
        for handle in self._handles:
            handle.close()

    # On the listener's thread.

    def _step(self, listener: Listener) -> None:
        # In this order: for a subscriber that is registered after the second line, _attached() wakes this thread.
        self._is_idle = True
        self._is_idle = not len(self.dispatcher) and not self.expects_requests
        woken = listener.wait(_IDLE if self._is_idle else self._poll)
        if listener.stopping:
            return
        version = self._follow.data_version()
        if woken or version != self._version:
            while self._deliver():
                pass
            self._version = version
        self._presence.announce()

    def _deliver(self) -> bool:
        """Deliver the events that were appended. The result: whether there may be more."""
        dispatcher = self.dispatcher
        lost: list[str] | None = []
        with self._follow.transaction() as connection:
            epoch, head = log.head_of(connection)
            rows = log.rows_after(connection, dispatcher.position, _BATCH) if epoch == dispatcher.epoch else []
            end = rows[-1][0] if len(rows) == _BATCH else head
            if len(rows) != end - dispatcher.position:
                lost = log.trimmed_after(connection, dispatcher.position)
        if epoch != dispatcher.epoch:
            dispatcher.restarted(epoch, head)
            self._requests_lost()
            return False
        wanted = set(dispatcher.advance({row[1] for row in rows}, end))
        if lost is None or lost:
            dispatcher.missed(lost)
        if lost is None or CONTROL in lost:
            self._requests_lost()
        dispatcher.deliver(Message.make(epoch, *row) for row in rows if row[1] in wanted)
        return len(rows) == _BATCH

    def _send_presence(self, counts: dict[str, int], alive: bool) -> bool:
        with self._write.transaction(write=True) as connection:
            now = time.time()
            rows = [(channel, self._process, count, now) for channel, count in counts.items()]
            connection.executemany("INSERT OR REPLACE INTO ssesync_presence VALUES (?, ?, ?, ?)", rows)
            connection.execute("DELETE FROM ssesync_presence WHERE subscribers = 0 OR seen < ?", (now - EXPIRY,))
            if not alive:
                return True
            update = "UPDATE ssesync_presence SET seen = ? WHERE process = ?"
            known = connection.execute(update, (now, self._process)).rowcount
        # Fewer: the last heartbeat was too long ago, or the clock was set, and other processes counted it as ended.
        return known >= self.dispatcher.channel_count()

    def _count_elsewhere(self, channel: str) -> int:
        with self._read.transaction() as connection:
            (count,) = connection.execute(
                "SELECT coalesce(sum(subscribers), 0) FROM ssesync_presence "
                "WHERE channel = ? AND process <> ? AND seen >= ?",
                (channel, self._process, time.time() - EXPIRY),
            ).fetchone()
        return int(count)
