"""ChannelFeed: one upstream's events, published to a channel, so that one connection serves any number of subscribers.

One thread reads the upstream and publishes. Where several processes share the broker, a second one keeps the lease that
says which of them does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from ..errors import BrokerClosed, BrokerError, excerpt
from ..event import Event
from ..locks import make_lock
from ..validation import check_number
from .broker import Broker
from .election import Lease
from .message import check_channel
from .reentry import Wakeup, entered, is_inside
from .trouble import Trouble

__all__ = ["ChannelFeed"]

logger = logging.getLogger("ssesync")

# Seconds between attempts, the first and the longest, doubled from the one to the other.
_SOURCE, _BROKER = (0.5, 30.0), (0.1, 5.0)
# Seconds that a source must have lived for its failures to be forgotten. One that gives an event and breaks off, again
# and again, is else asked as fast as at first, with a line in the log each time.
_SURVIVED = 10.0
# Seconds between two looks at a lease of which nobody can tell whose it is.
_LOOK_AGAIN = 0.1
# Seconds that stop() waits for each thread.
_PATIENCE = 5.0


class ChannelFeed:
    """Publishes what a source gives to a channel, on a thread of its own, for as long as the process lives.

    ::

        feed = ChannelFeed(broker, "prices", lambda: EventSource("https://prices.example/stream"))
        feed.start()

    Each event's data and type are published. Its id is not kept: ids are the broker's to give, so that subscribers can
    resume from the broker's log. Events without data are left out.

    A source that ends or raises is made anew, after half a second and then ever later, up to 30. It begins where the
    function has it begin: of a new :class:`EventSource`, without a last event ID. One that comes back by itself keeps
    its own; ``should_retry=lambda error: True`` has it do so after every error. Its quiet end (204, ``until``,
    ``close()``) is the feed's end too. While the broker can't be reached the event is kept and the source waits:
    nothing is buffered here.

    **Several processes.** With a broker that they share, one of them feeds at a time: every process starts its feed,
    and a lease in the broker says which one has a source. If that process ends, be it by ``kill -9``, another takes
    over within about one and a half times ``lease`` seconds. What the upstream sends in between is missed, unless the
    upstream repeats it to whoever connects. In turn an event may be published twice, or an older one behind the next
    process's newer ones: when a process was halted, or waited for the broker, between its look at the lease and
    publishing, or when the connection to the broker broke before the answer came. With
    ``memory://`` each process has subscribers of its own, so each one feeds.

    Nothing runs before :meth:`start`; a forked child calls that itself. All methods may be called from any thread, and
    :meth:`stop` from a signal handler at any moment.

    :param broker: where to publish.
    :param channel: the channel's name.
    :param source: a function without arguments that gives an iterable of events, normally
        ``lambda: EventSource(url)``. If what it gives has a ``cancel()``, or else a ``close()``, that ends it, from
        another thread.
    :param transform: called with each event; gives what is published in its place, anything that
        :meth:`Broker.publish` takes, or ``None`` for nothing. What it raises is logged and leaves the event out.
    :param exclusive: feed in one process at a time. Without it, each process that starts the feed publishes everything.
    :param lease: seconds; see above. The same in all processes, whose clocks must agree within half of it.
    :param name: what the lease goes by, if it is not the channel: feeds of one channel from several upstreams each need
        a name.
    :raises ChannelError: no channel can have this name.
    :raises SettingsError: ``lease`` is no number above 0.
    """

    def __init__(
        self,
        broker: Broker,
        channel: str,
        source: Callable[[], Iterable[Any]],
        *,
        transform: Callable[[Event], Any | None] | None = None,
        exclusive: bool = True,
        lease: float = 5.0,
        name: str | None = None,
    ) -> None:
        if not isinstance(broker, Broker):
            raise TypeError(
                f"broker takes what open_broker(url) gives, sse.broker or get_broker(), got {excerpt(broker)}"
            )
        if not callable(source):
            raise TypeError("source takes a function that gives the events, lambda: EventSource(url) for one")
        check_number("lease", lease, above=0)
        self.channel = check_channel(channel)
        self._broker = broker
        self._source = source
        self._transform = transform
        # A broker whose claims reach no other process has no subscribers there either.
        leased = exclusive and type(broker)._claim is not Broker._claim
        self._lease = Lease(broker.use_once, self.channel if name is None else name, lease) if leased else None
        self._reset()
        _feeds.add(self)

    def _reset(self) -> None:
        """Begin as a new process. What the parent process has is not touched."""
        self._lock = make_lock("channels.feed")
        self._run: _Run | None = None
        self._events = self._skipped = self._restarts = 0
        #: What went wrong last, with the source, an event or the broker.
        self.last_error: Exception | None = None
        if self._lease is not None:
            self._lease.forget()

    def start(self) -> ChannelFeed:
        """Begin to feed, or be ready to take over. Does nothing where that was done, and was not stopped since."""
        run = _Run(self)
        with entered(), self._lock:
            if self._run is not None:
                return self
            self._run = run
        run.start()
        return self

    def stop(self) -> None:
        """End the source and the threads, and wait up to 5 seconds for each. Does nothing if it was not started.

        Nothing can give the lease back: another process takes over when it has run out. In a signal handler that has
        interrupted its thread inside a broker it does not wait.
        """
        run, self._run = self._run, None  # two that stop it at the same time may both find it, which does no harm
        if run is not None:
            run.stop()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the feed has ended, for a process that does nothing else; whether it has."""
        run = self._run
        return run is None or run.join(timeout)

    @property
    def state(self) -> str:
        """``"stopped"``, ``"standby"`` (another process feeds), ``"feeding"``, ``"waiting"`` for a source or the broker
        to work again, or ``"ended"`` for good. An :class:`EventSource` that has no connection is waited for too."""
        run = self._run
        if run is None:
            return "stopped"
        waits = run.state == "feeding" and getattr(run.current, "state", "open") in ("connecting", "waiting")
        return "waiting" if waits else run.state

    def snapshot(self) -> dict[str, Any]:
        """What this process's feed has done, as plain values: ``channel``, ``state``, ``events`` published, events
        ``skipped`` because they could not be, ``restarts`` of the source, and the name of ``last_error``'s class."""
        return {
            "channel": self.channel,
            "state": self.state,
            "events": self._events,
            "skipped": self._skipped,
            "restarts": self._restarts,
            # The name alone: a message may hold what stands in the address.
            "last_error": None if self.last_error is None else type(self.last_error).__name__,
        }

    def __enter__(self) -> ChannelFeed:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


class _Reading:
    """A source, from before it is made until it has ended."""

    def __init__(self) -> None:
        self.made: Iterable[Any] | None = None
        #: Whether it is to end.
        self.dropped = False


class _Run:
    """A feed from its start to its stop.

    There is no lock, as a signal handler that has interrupted any of its methods may stop it. ``stop`` and the thread
    of the lease set their flags first and drop the reading that they find then. The thread that feeds shows its reading
    first and looks at the flags then. So at least one of the two finds the other.
    """

    def __init__(self, feed: ChannelFeed) -> None:
        self._feed = feed
        self._lease = feed._lease
        self._stopped, self._leads = Wakeup(), Wakeup()
        self._reading = _Reading()
        self._since = 0.0
        what = f"the feed of {feed.channel!r}"
        self._source_trouble = Trouble(f"{what}: the source", _SOURCE)
        self._broker_trouble = Trouble(f"{what}: the broker", _BROKER)
        self._event_trouble = Trouble(f"{what}: an event", _BROKER)
        self._lease_trouble = Trouble(f"{what}: the lease", _BROKER)
        self._threads = [threading.Thread(target=self._work, name="ssesync-feed", daemon=True)]
        if self._lease is None:
            self._leads.set()
        else:
            self._threads.append(threading.Thread(target=self._keep, name="ssesync-feed-lease", daemon=True))
        self.state = "waiting" if self._lease is None else "standby"

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    @property
    def current(self) -> Iterable[Any] | None:
        """The source that is read now."""
        return self._reading.made

    def stop(self) -> None:
        self._end()
        for thread in self._threads:
            # Where this thread holds a lock, as it was interrupted, they may need that very lock to come to their end.
            if thread is not threading.current_thread() and not is_inside():
                with contextlib.suppress(RuntimeError):  # it is just being started
                    thread.join(_PATIENCE)

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
        """Read from one source. Whether there is to be another."""
        made, error = None, None
        reading = self._reading = _Reading()
        if self._stopped.is_set() or not self._leads.is_set():
            reading.dropped = True
        try:
            reading.made = made = self._feed._source()
            self._since = time.monotonic()
            if not reading.dropped:
                self.state = "feeding"
                for item in made:
                    if not self._pass_on(item):
                        break
        except Exception as caught:
            error = caught
        finally:
            reading.made = None
            _cancel(made)
        if reading.dropped:
            return True
        if error is None and getattr(made, "state", None) == "closed":
            logger.info("the feed of %r has ended, as its source has", self._feed.channel)
            return False
        if error is not None:
            self._feed.last_error = error
        self._feed._restarts += 1
        self.state = "waiting"
        self._stopped.wait(self._source_trouble.tell(error))
        return True

    def _pass_on(self, item: Any) -> bool:
        """Publish, however long it takes. Whether the next is wanted."""
        feed = self._feed
        try:
            publish = self._prepared(item)
        except Exception as error:
            feed.last_error = error
            feed._skipped += 1
            self._event_trouble.tell(error, then="it is left out, as are others like it")
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
            self._stopped.wait(self._broker_trouble.tell(error))
        else:
            self._feed._events += 1
            self.state = "feeding"
            self._broker_trouble.over()
            if time.monotonic() - self._since >= _SURVIVED:
                self._source_trouble.over()
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
            # As it is where a stream names no type.
            item = Event(item.data, type=None if item.type == "message" else item.type)
        return None if item is None else self._feed._broker.prepare(self._feed.channel, item)

    def _may_publish(self) -> bool:
        while not self._reading.dropped:
            if self._lease is None or self._lease.held():
                return True
            # The broker can't be reached, so nobody can tell whose it is: it will be seen when it is back.
            if self._stopped.wait(_LOOK_AGAIN):
                return False
        return False

    # On the thread that keeps the lease.

    def _keep(self) -> None:
        while self._lease is not None and not self._stopped.is_set():
            self._stopped.wait(self._renew(self._lease))

    def _renew(self, lease: Lease) -> float:
        """Seconds until it is to be renewed again."""
        try:
            leads = lease.renew()
        except BrokerClosed:
            self._end()
            return 0.0
        except Exception as error:
            self._feed.last_error = error
            return self._lease_trouble.tell(error)
        self._lease_trouble.over()
        self._lead(leads)
        return lease.pause()

    def _lead(self, leads: bool) -> None:
        if leads and not self._leads.is_set():
            logger.info("the feed of %r is this process's", self._feed.channel)
            self._leads.set()
        elif not leads and self._leads.is_set():
            logger.warning("the feed of %r is another process's now", self._feed.channel)
            self._leads.clear()
            self._drop()

    # On any.

    def _end(self) -> None:
        self._stopped.set()
        self._leads.set()  # who waits for it looks whether to stop
        self._drop()

    def _drop(self) -> None:
        """End what is being read."""
        reading = self._reading
        reading.dropped = True
        _cancel(reading.made)


def _cancel(made: Iterable[Any] | None) -> None:
    cancel = getattr(made, "cancel", None) or getattr(made, "close", None)
    if cancel is not None:
        # Whatever it is: a generator that is running refuses, and is ended by whoever runs it.
        with contextlib.suppress(Exception):
            cancel()


_feeds: weakref.WeakSet[ChannelFeed] = weakref.WeakSet()


def _in_child() -> None:
    for feed in list(_feeds):
        feed._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
