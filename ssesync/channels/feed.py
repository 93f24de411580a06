"""ChannelFeed: one upstream's events, published to a channel, so that one connection serves any number of subscribers.

One thread reads the upstream and publishes. If several processes share the broker, a second thread takes part in the
election of the process that reads.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from ..errors import BrokerClosed, BrokerError, excerpt
from ..event import Event
from ..retry import FailureLog
from ..text import shown
from ..validation import check_number
from . import forks, upstream
from .broker import Broker
from .election import LeaderElection
from .message import check_channel
from .reentry import Wakeup, is_inside

__all__ = ["ChannelFeed"]

logger = logging.getLogger("ssesync")

# Seconds between attempts, the first and the longest, doubled from the one to the other.
_SOURCE, _BROKER = (0.5, 30.0), (0.1, 5.0)
# Seconds that a source must have been read before its count of failures is reset. A source that gives an event and
# fails, again and again, would otherwise be made anew after the shortest wait each time, with a line in the log.
_HEALTHY_AFTER = 10.0
# Seconds between two checks whether this process is the leader again, while the broker can't be reached.
_CHECK_INTERVAL = 0.1
# Seconds that stop() waits for each thread.
_JOIN_TIMEOUT = 5.0
# The key of the run.
_RUN = "run"


class ChannelFeed:
    """Publishes the events of a source to a channel, on a thread of its own, until it is stopped or the process ends.

    ::

        feed = ChannelFeed(broker, "prices", lambda: EventSource("https://prices.example/stream"))
        feed.start()

    Each event's data and type are published. Its id is not kept: the broker assigns ids, so that subscribers can resume
    from the broker's log. Events without data are left out.

    If a source ends or raises, the function is called for a new one, after half a second and then ever later, up to 30.
    The function decides where the new source begins: a new :class:`EventSource` has no last event ID. An
    ``EventSource`` that reconnects by itself keeps its own; with ``should_retry=lambda error: True`` it does so after
    every error. Its orderly end (204, ``until``, ``close()``) ends the feed too. While the broker can't be reached, the
    feed keeps the event and does not read the source: nothing is buffered here.

    **Several processes.** With a broker that they share, one of them feeds at a time: every process starts its feed,
    and a lease in the broker decides which one has a source. If that process ends, even by ``kill -9``, another takes
    over within about one and a half times ``lease`` seconds. Events that the upstream sends in between are missed,
    unless the upstream repeats them to each new connection. On the other hand an event may be published twice, or an
    older one after the next process's newer ones: when a process was halted, or waited for the broker, between its
    check of the lease and publishing, or when the connection to the broker broke before the answer arrived. With
    ``memory://`` each process has subscribers of its own, so each one feeds.

    Nothing runs before :meth:`start`; a forked child has to call it itself. All methods may be called from any thread,
    and :meth:`stop` from a signal handler at any moment.

    :param broker: where to publish.
    :param channel: the channel's name.
    :param source: a function without arguments that gives an iterable of events, normally
        ``lambda: EventSource(url)``. If the iterable has a ``cancel()``, or else a ``close()``, another thread calls it
        to end the source.
    :param transform: called with each event; returns the value to publish in its place, any that
        :meth:`Broker.publish` takes, or ``None`` for nothing. If it raises, the error is logged and the event is left
        out.
    :param exclusive: feed in one process at a time. Without it, each process that starts the feed publishes everything.
    :param lease: seconds; see above. The same in all processes, whose clocks must agree within half of it.
    :param name: the name of the lease, if it is not the channel's: feeds of one channel from several upstreams each
        need one.
    :raises ChannelError: no channel can have this name.
    :raises SettingsError: ``lease`` is no number above 0.
    """

    def __init__(
        self,
        broker: Broker,
        channel: str,
        source: Callable[[], Iterable[Any]],
        *,
        transform: Callable[[Any], Any | None] | None = None,
        exclusive: bool = True,
        lease: float = 5.0,
        name: str | None = None,
    ) -> None:
        if not isinstance(broker, Broker):
            raise TypeError(
                f"broker takes the result of open_broker(url), sse.broker or get_broker(), got {excerpt(broker)}"
            )
        if not callable(source):
            raise TypeError("source takes a function that returns the events, for example lambda: EventSource(url)")
        check_number("lease", lease, above=0)
        self.channel = check_channel(channel)
        self._broker = broker
        self._source = source
        self._transform = transform
        # A broker whose claims do not reach other processes has no subscribers there either.
        elects = exclusive and broker.reaches_processes
        self._election = (
            LeaderElection(broker.use_once, self.channel if name is None else name, lease) if elects else None
        )
        self._reset()
        forks.register(self)

    def _before_fork(self) -> list[Callable[[], str]]:
        return []

    def _reset(self) -> None:
        """Set the state of a new process. Objects of the parent process are not closed."""
        self._runs: dict[str, _Run] = {}  # at most one, added and removed in single steps of the interpreter
        self._events = self._skipped = self._restarts = 0
        #: The last failure of the source, an event or the broker.
        self.last_error: Exception | None = None
        if self._election is not None:
            self._election.reset()

    def start(self) -> ChannelFeed:
        """Begin to feed, or to take part in the election. Does nothing if it was started, and not stopped since.

        :return: this feed.
        """
        run = _Run(self, self._election)
        if self._runs.setdefault(_RUN, run) is run:
            run.start()
        return self

    def stop(self) -> None:
        """End the source and the threads, and wait up to 5 seconds for each. Does nothing if it was not started.

        The lease can't be released: another process takes over when it has expired. In a signal handler that has
        interrupted its thread inside a broker it does not wait.
        """
        run = self._runs.pop(_RUN, None)
        if run is not None:
            run.stop()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the feed has ended: for a process without another task.

        :param timeout: seconds; ``None``: without end.
        :return: whether it has ended.
        """
        run = self._runs.get(_RUN)
        return run is None or run.join(timeout)

    @property
    def state(self) -> str:
        """``"stopped"``, ``"standby"`` (another process feeds), ``"feeding"``, ``"waiting"`` for a source or the broker
        to work again, or ``"ended"`` for good. While an :class:`EventSource` has no connection it is ``"waiting"``."""
        run = self._runs.get(_RUN)
        return "stopped" if run is None else run.shown_state

    def snapshot(self) -> dict[str, Any]:
        """The counters and the state of this process's feed.

        :return: plain values: ``channel``, ``state``, ``events`` published, ``skipped`` events that could not be
            published, ``restarts`` of the source, and the name of ``last_error``'s class.
        """
        return {
            "channel": self.channel,
            "state": self.state,
            "events": self._events,
            "skipped": self._skipped,
            "restarts": self._restarts,
            # The name alone: a message may contain credentials from the URL.
            "last_error": None if self.last_error is None else type(self.last_error).__name__,
        }

    def __repr__(self) -> str:
        return shown(self, self.channel, state=self.state)

    def __enter__(self) -> ChannelFeed:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


class _Read:
    """One read of a source, from before the source is made until it has ended."""

    def __init__(self) -> None:
        self.source: Iterable[Any] | None = None
        #: Whether it is to end.
        self.cancelled = False


class _Run:
    """A feed from its start to its stop.

    It has no lock, as a signal handler may stop it that has interrupted any of its methods. ``stop`` and the thread of
    the election first set their flags, and then cancel the read that ``_read`` refers to. The thread that feeds first
    sets ``_read``, and then checks the flags. So a read is cancelled whichever of the two is first.
    """

    def __init__(self, feed: ChannelFeed, election: LeaderElection | None) -> None:
        self._feed = feed
        self._election = election
        self._stopped, self._leads = Wakeup(), Wakeup()
        self._read = _Read()
        self._since = 0.0
        what = f"the feed of {feed.channel!r}"
        self._source_failures = FailureLog(f"{what}: the source", *_SOURCE)
        self._broker_failures = FailureLog(f"{what}: the broker", *_BROKER)
        self._event_failures = FailureLog(f"{what}: an event", *_BROKER)
        self._election_failures = FailureLog(f"{what}: the lease", *_BROKER)
        self._threads = [threading.Thread(target=self._work, name="ssesync-feed", daemon=True)]
        if self._election is None:
            self._leads.set()
        else:
            self._threads.append(threading.Thread(target=self._elect, name="ssesync-feed-lease", daemon=True))
        self.state = "waiting" if self._election is None else "standby"

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    @property
    def shown_state(self) -> str:
        waits = upstream.state_of(self._read.source) in ("connecting", "waiting")
        return "waiting" if waits and self.state == "feeding" else self.state

    def stop(self) -> None:
        self._end()
        for thread in self._threads:
            # If a signal handler has interrupted the holder of a lock here, the threads may need that lock to end.
            if thread is not threading.current_thread() and not is_inside():
                with contextlib.suppress(RuntimeError):  # it is just being started
                    thread.join(_JOIN_TIMEOUT)

    def join(self, timeout: float | None) -> bool:
        self._threads[0].join(timeout)
        return not self._threads[0].is_alive()

    # On the thread that feeds.

    def _work(self) -> None:
        try:
            while not self._stopped.is_set():
                self._leads.wait()
                if not self._stopped.is_set() and not self._follow():
                    return
                if not self._leads.is_set():
                    self.state = "standby"
        finally:
            self._end()
            self.state = "ended"

    def _follow(self) -> bool:
        """Read from one source. The result: whether to make another one."""
        source, error = None, None
        read = self._read = _Read()
        if self._stopped.is_set() or not self._leads.is_set():
            read.cancelled = True
        try:
            read.source = source = self._feed._source()
            self._since = time.monotonic()
            if not read.cancelled:
                self.state = "feeding"
                for item in source:
                    if not self._publish(item):
                        break
        except Exception as caught:
            error = caught
        finally:
            read.source = None
            upstream.cancel(source)
        if read.cancelled:
            return True
        if error is None and upstream.state_of(source) == "closed":
            logger.info("the feed of %r has ended, because its source has", self._feed.channel)
            return False
        if error is not None:
            self._feed.last_error = error
        self._feed._restarts += 1
        self.state = "waiting"
        self._stopped.wait(self._source_failures.failed(error))
        return True

    def _publish(self, item: Any) -> bool:
        """Publish an event, and repeat this until it succeeds. The result: whether to read the next event."""
        feed = self._feed
        try:
            publish = self._prepared(item)
        except Exception as error:
            feed.last_error = error
            feed._skipped += 1
            self._event_failures.failed(error, then="it is left out, as are others like it")
            return True
        if publish is None:
            return True
        while self._may_publish():
            if self._try(publish):
                return True
        return False

    def _try(self, publish: Callable[[], str]) -> bool:
        try:
            publish()
        except BrokerClosed:
            self._end()
        except BrokerError as error:
            self._feed.last_error = error
            self.state = "waiting"
            self._stopped.wait(self._broker_failures.failed(error))
        else:
            self._feed._events += 1
            self.state = "feeding"
            self._broker_failures.succeeded()
            if time.monotonic() - self._since >= _HEALTHY_AFTER:
                self._source_failures.succeeded()
            return True
        return False

    def _prepared(self, item: Any) -> Callable[[], str] | None:
        if isinstance(item, Event) and item.data is None:
            return None
        if self._feed._transform is not None:
            item = self._feed._transform(item)
        if isinstance(item, Event):
            if item.data is None:
                return None
            # "message" is the type of an event without one.
            item = Event(item.data, type=None if item.type == "message" else item.type)
        return None if item is None else self._feed._broker.prepare(self._feed.channel, item)

    def _may_publish(self) -> bool:
        while not self._read.cancelled:
            if self._election is None or self._election.is_leader():
                return True
            # The broker can't be reached, so it is not known which process is the leader.
            if self._stopped.wait(_CHECK_INTERVAL):
                return False
        return False

    # On the thread of the election.

    def _elect(self) -> None:
        while self._election is not None and not self._stopped.is_set():
            self._stopped.wait(self._renew(self._election))

    def _renew(self, election: LeaderElection) -> float:
        """Renew once. The result: seconds until the next time."""
        try:
            leads = election.renew()
        except BrokerClosed:
            self._end()
            return 0.0
        except Exception as error:
            self._feed.last_error = error
            return self._election_failures.failed(error)
        self._election_failures.succeeded()
        self._lead(leads)
        return election.renew_after()

    def _lead(self, leads: bool) -> None:
        if leads and not self._leads.is_set():
            logger.info("this process feeds %r now", self._feed.channel)
            self._leads.set()
        elif not leads and self._leads.is_set():
            logger.warning("another process feeds %r now", self._feed.channel)
            self._leads.clear()
            self._cancel_read()

    # On any thread.

    def _end(self) -> None:
        self._stopped.set()
        self._leads.set()  # the thread that waits for it checks whether to stop
        self._cancel_read()

    def _cancel_read(self) -> None:
        read = self._read
        read.cancelled = True
        upstream.cancel(read.source)
