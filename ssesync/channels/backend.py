"""Backend: the methods of a broker's log and listener, for the classes that implement one."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence

from ..locks import make_lock
from .dispatcher import Dispatcher
from .entry import Entry, Start
from .log import Page
from .message import Message
from .options import Limits
from .reentry import entered
from .runs.record import RunRecord

__all__ = ["Backend"]


class Backend:
    """The part of a broker that depends on where its log is.

    A subclass of :class:`ssesync.channels.broker.Broker` implements ``_append``, ``_append_many``, ``_head``, ``read``,
    ``start_of``, ``find``, the methods for runs and, if it has to notice the events of other processes, ``_listen`` and
    ``_unlisten``. All may be called from any thread.
    """

    #: How much the log keeps.
    limits: Limits
    #: Whether other processes may publish to it and subscribe.
    reaches_processes = False
    #: Whether requests of other processes must arrive soon even without subscribers here: this process owns runs. After
    #: it is set, the listener has to run, and ``_attached`` has to be called.
    expects_requests = False

    def _reset(self) -> None:
        """Set the state of a new process: no subscribers, no threads. Objects of the parent process are not closed."""
        self._lock = make_lock("channels.broker")
        self._claims: dict[str, float] = {}
        #: The subscribers of this process.
        self.dispatcher = Dispatcher()

    # The log.

    def _append(self, channel: str, body: bytes) -> str:
        """Append an event to the log, and notify the listeners.

        :return: its id.
        :raises ChannelClosed: the channel is closed, or is a run's.
        """
        raise NotImplementedError

    def _append_many(self, entries: Sequence[Entry], *, whole: bool) -> tuple[str, list[int]]:
        """Append events to the log in one step, and notify the listeners once.

        :param entries: the events, in order, of any channels.
        :param whole: append all or none: if one is refused, raise.
        :return: the epoch, and for each event its number, ``CLOSED`` or ``DUPLICATE``.
        :raises ChannelClosed: with ``whole``: a channel is closed, or is a run's. Nothing was appended.

        Which entries are refused: see :mod:`ssesync.channels.brokers.acceptance`.
        """
        raise NotImplementedError

    def _head(self) -> tuple[str, int]:
        """The log's epoch, and the seq of its last event."""
        raise NotImplementedError

    def read(self, epoch: str, after: int, channels: Iterable[str], patterns: Iterable[str], limit: int) -> Page:
        """See :class:`ssesync.channels.log.Log`."""
        raise NotImplementedError

    def start_of(self, channels: Iterable[str], patterns: Iterable[str], last: int | None) -> Start:
        """See :class:`ssesync.channels.log.Log`."""
        raise NotImplementedError

    def find(self, epoch: str, seq: int) -> Message | None:
        """Find an event.

        :param epoch: of its id.
        :param seq: its number.
        :return: the event; ``None`` if the log does not have it, or has dropped it.
        """
        raise NotImplementedError

    def _has_channel(self, name: str) -> bool:
        """Whether the log has a channel: it has had an event or is a run's, and was not removed, and is not older than
        the limits allow.

        :return: whether it has.
        """
        raise NotImplementedError

    def is_run(self, channels: Collection[str], patterns: Collection[str]) -> bool:
        """See :class:`ssesync.channels.log.Log`."""
        return not patterns and len(channels) == 1 and self._find_run(next(iter(channels))) is not None

    # Runs. An owner is a process with a lease: if it does not renew the lease, other processes end its runs.

    def _begin_run(self, record: RunRecord, most: int | None, restart: bool) -> tuple[bool, RunRecord | None]:
        """Add a run and its channel, unless a run has this name. The limits do not trim the channel.

        Expired runs are removed with their channels, some of them with each call.

        :param record: the run, queued or running.
        :param most: how many runs of its subject may be queued or running; ``None``: any number.
        :param restart: if a run of this name and subject has ended, remove it with its events, and add this one in
            its place.
        :return: whether it was added, and the run of this name; ``None``: its subject has too many.
        :raises ChannelError: a channel that is no run's has this name.
        """
        raise NotImplementedError

    def _own_run(self, name: str, owner: str) -> bool:
        """Set the owner of a queued run, which is running from then on.

        :return: whether it was queued.
        """
        raise NotImplementedError

    def _find_run(self, name: str) -> RunRecord | None:
        """Find a run.

        :return: the run; ``None`` if there is none, or it has expired.
        """
        raise NotImplementedError

    def _renew_owner(self, owner: str, lease: float) -> bool:
        """Add this process to the owners, or renew its lease of so many seconds.

        :return: ``False`` if it was an owner and is none any more, as others have found its lease to be over: they have
            ended its runs, or are about to. It is not added again: it needs another name for runs that it begins.
        """
        raise NotImplementedError

    def _abandoned(self) -> list[RunRecord]:
        """Find the runs whose owner is gone, and the queued runs that no process has begun in time.

        The owners are removed: :meth:`_renew_owner` is ``False`` for one that was only halted. A run is found again
        until its final event was appended. Some hundred are found with each call.

        :return: the runs.
        """
        raise NotImplementedError

    # The listener.

    def _listen(self) -> None:
        """Set the dispatcher's position to the log's head, and deliver to it all events that are appended later."""

    def _attached(self) -> None:
        """Called after a subscriber was added."""

    def _unlisten(self) -> None:
        """Undo :meth:`_listen`. Called once for each call, perhaps by a signal handler: see
        :mod:`ssesync.channels.reentry`."""

    def _release(self) -> None:
        """Release files and connections. Any number of times, perhaps by a signal handler."""

    def _before_fork(self) -> list[Callable[[], str]]:
        """Prepare for a fork. In the child, :meth:`_reset` is called afterwards.

        :return: functions to be called in this process after the fork. Each returns an error to be logged, or ``""``.
        """
        return []

    def _count_elsewhere(self, channel: str) -> int:
        return 0

    def _claim(self, name: str, seconds: float) -> bool:
        """See :meth:`use_once`. Here: within this process."""
        now = time.monotonic()
        with entered(), self._lock:
            # In the order in which they were made: that is the order in which they end, if all have the same length.
            while self._claims and next(iter(self._claims.values())) < now:
                del self._claims[next(iter(self._claims))]
            if self._claims.get(name, 0.0) >= now:
                return False
            self._claims.pop(name, None)
            self._claims[name] = now + seconds
            return True
