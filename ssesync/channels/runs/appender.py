"""The appender: one thread of a process puts what its runs produce into the log, in groups.

An append costs a transaction or a round trip. So what the threads of all producers write within a moment goes into the
log in one step (group commit). A write that comes after a pause is appended at once; the next group waits until
``LINGER`` is over since the last one. So a quiet run has no delay, and a busy process appends a hundred times a second.

Entries carry their numbers, so an append whose answer was lost is repeated, and adds nothing twice. While the log can't
be reached the entries wait here, up to a bound in bytes, beyond which the producers wait.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from ...errors import BrokerClosed, BrokerDamaged, BrokerError
from ...locks import Waiters, make_lock
from ...retry import FailureLog
from ..entry import CLOSED, Entry
from ..reentry import Wakeup, entered

__all__ = ["Appender", "Item", "Sender"]

logger = logging.getLogger("ssesync")

#: Seconds between two groups.
LINGER = 0.01
# Entries and bytes of a group: of about as many bytes other processes' appends wait for some milliseconds.
_GROUP, _GROUP_BYTES = 500, 1024 * 1024
# Bytes that wait, beyond which producers wait, and what an entry counts beside its body.
_MOST_BYTES, _OVERHEAD = 8 * 1024 * 1024, 200
# Seconds between attempts while the log can't be reached, the first and the longest.
_RETRY = (0.02, 1.0)


class Log(Protocol):
    """The log of a broker."""

    def _append_many(self, entries: Sequence[Entry], *, whole: bool) -> tuple[str, list[int]]: ...


class Sender(Protocol):
    """A run of this process. Nothing here may wait."""

    def flush(self) -> None:
        """Put the text that is held. Called with the lock held."""

    def flushed(self) -> None:
        """Called after :meth:`flush`, without the lock."""

    def appended(self, entry: Entry, number: int) -> None:
        """Take note of what became of a final entry, or of one that was refused.

        :param entry: the entry.
        :param number: the event's number, or ``CLOSED``.
        """

    def lost(self, error: Exception) -> None:
        """Take note that an entry was not appended, and will not be.

        :param error: why.
        """


class Item(NamedTuple):
    """An entry that waits."""

    entry: Entry
    sender: Sender


class Appender:
    """See the module. Its methods may be called from any thread.

    :param log: the log.
    """

    def __init__(self, log: Log) -> None:
        #: Held by :meth:`put` and :meth:`hold`, and for what a run does with its own state: one lock for all runs.
        self.lock = make_lock("channels.runs")
        self._log = log
        self._queue: deque[Item] = deque()
        self._size = 0
        self._held: dict[Sender, float] = {}  # when their text is due
        self._idle = True  # the thread waits, and is to be woken
        self._working = False  # it has taken a group
        self._groups = 0  # how many were appended
        self._woken, self._stopped = Wakeup(), Wakeup()
        self._changed = Waiters()  # for room, and for the end of a group
        self._failures = FailureLog("runs: appending to the log", *_RETRY)
        self._threads: dict[None, threading.Thread] = {}  # one, put in and taken out in single steps
        self._appended_at = 0.0

    def put(self, item: Item) -> None:
        """Add an entry. With the lock held; :meth:`wake` is to be called afterwards.

        :param item: the entry.
        """
        assert self.lock.locked()
        self._queue.append(item)
        self._size += len(item.entry.body) + _OVERHEAD

    def hold(self, sender: Sender, seconds: float) -> None:
        """Have a run's text put after some time. With the lock held; :meth:`wake` is to be called afterwards.

        :param sender: the run. It has no text that is held yet.
        :param seconds: how long the text waits.
        """
        assert self.lock.locked()
        self._held[sender] = time.monotonic() + seconds

    def release(self, sender: Sender) -> None:
        """Note that a run's text is held no more. With the lock held.

        :param sender: the run.
        """
        assert self.lock.locked()
        self._held.pop(sender, None)

    def discard(self, sender: Sender) -> None:
        """Remove what a run has put and the thread has not taken. With the lock held; :meth:`notify` is to be called
        afterwards.

        :param sender: the run.
        """
        assert self.lock.locked()
        kept = [item for item in self._queue if item.sender is not sender]
        self._size -= sum(len(item.entry.body) + _OVERHEAD for item in self._queue if item.sender is sender)
        self._queue.clear()
        self._queue.extend(kept)

    def wake(self) -> None:
        """Wake the thread, which appends what was added. Without the lock.

        :raises RuntimeError: no thread can be started.
        """
        if not self._threads:
            self._start()
        if self._idle:
            self._idle = False
            self._woken.set()

    def wait_for_room(self, is_over: Callable[[], bool]) -> None:
        """Wait while too much waits to be appended.

        :param is_over: whether the caller waits no more.
        """
        if self._size >= _MOST_BYTES:
            self._changed.wait(lambda: self._size < _MOST_BYTES or is_over())

    def notify(self) -> None:
        """Have those that wait for room check whether they still do. Any thread, any signal handler."""
        self._changed.wake()

    def flush(self, timeout: float) -> bool:
        """Wait until all was appended that was added before.

        :param timeout: seconds.
        :return: whether it was.
        """
        return self._changed.wait(lambda: not (self._queue or self._held or self._working), timeout)

    def wait_for_group(self, timeout: float) -> bool:
        """Wait until the group that the thread has taken is appended.

        :param timeout: seconds.
        :return: whether it is, or there is none.
        """
        groups = self._groups
        return self._changed.wait(lambda: not self._working or self._groups != groups, timeout)

    def close(self, timeout: float) -> None:
        """Append what waits, and end the thread. Any number of times.

        :param timeout: seconds after which what waits is given up.
        """
        if self._threads and not self._stopped.is_set():
            self.flush(timeout)
        self._stopped.set()
        self._woken.set()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="ssesync-appender", daemon=True)
        if self._threads.setdefault(None, thread) is thread:
            try:
                thread.start()
            except BaseException:
                self._threads.clear()
                raise

    # On the thread.

    def _run(self) -> None:
        while self._wait():
            pause = self._appended_at + LINGER - time.monotonic()
            if pause > 0 and self._size < _GROUP_BYTES:
                time.sleep(pause)
            group = self._take()
            if group:
                self._append(group)
                self._appended_at = time.monotonic()
            self._groups += 1
            self._working = False
            self._changed.wake()

    def _wait(self) -> bool:
        """Wait until there is something to be appended. Whether there is; else the thread is to end."""
        while True:
            self._woken.clear()
            with entered(), self.lock:
                now = time.monotonic()
                due = now if self._queue else min(self._held.values(), default=None)
                self._working = due is not None and due <= now
                self._idle = not self._working
            if self._working:
                return True
            if self._stopped.is_set():
                return False
            self._woken.wait(None if due is None else due - now)

    def _take(self) -> list[Item]:
        """Take the next group."""
        now, size = time.monotonic(), 0
        group: list[Item] = []
        with entered(), self.lock:
            due = [sender for sender, at in self._held.items() if at <= now or self._stopped.is_set()]
            for sender in due:
                del self._held[sender]
                sender.flush()
            while self._queue and len(group) < _GROUP and size < _GROUP_BYTES:
                group.append(self._queue.popleft())
                size += len(group[-1].entry.body)
        for sender in due:
            with _guarded():
                sender.flushed()
        return group

    def _append(self, group: list[Item]) -> None:
        entries = [item.entry for item in group]
        result: list[int] | Exception | None = None
        while result is None:
            result = self._try(entries)
        size = sum(len(entry.body) + _OVERHEAD for entry in entries)
        with entered(), self.lock:  # all producers wait for it
            self._size -= size
        if isinstance(result, Exception):
            for item in group:
                with _guarded():
                    item.sender.lost(result)
            return
        for (entry, sender), number in zip(group, result, strict=True):
            if entry.final or number == CLOSED:  # else there is nothing to do with the event
                with _guarded():
                    sender.appended(entry, number)

    def _try(self, entries: list[Entry]) -> list[int] | Exception | None:
        """Append. The numbers, or the error if it is of no use to try again, or ``None`` if it is."""
        try:
            _, numbers = self._log._append_many(entries, whole=False)
        except BrokerError as error:
            if isinstance(error, (BrokerClosed, BrokerDamaged)) or self._stopped.is_set():
                return error
            return error if self._stopped.wait(self._failures.failed(error)) else None
        except Exception as error:
            logger.exception("%d events of runs can't be appended to the log, and their runs end", len(entries))
            return error
        self._failures.succeeded()
        return numbers


@contextlib.contextmanager
def _guarded() -> Iterator[None]:
    """Log an error of one run: the thread has those of all others to append."""
    try:
        yield
    except Exception:
        logger.exception("a run of this process was not ended as it should be")
