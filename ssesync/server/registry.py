"""The registry of this process's streams: the open ones, and counters of the closed ones.

All streams are counted here: so each stream that was opened is open or was closed for a reason, the limits
(``limits.py``) hold, and a process that stops finds all its streams. The counters outlive the streams. References to
served streams are weak: the registry does not keep a stream alive that its server has dropped.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, cast

from ..errors import CloseReason
from ..locks import is_owned, make_rlock
from ..reactor import reactor
from ..text import escape
from .accepting import prepare
from .detaching import Detached, Served
from .limits import Admission, detached_limit, log_full, served_limit
from .producers import producers
from .wsgi_server import advice

__all__ = ["Streams", "streams"]

logger = logging.getLogger("ssesync")

#: Called with the time on the monotonic clock.
Tick = Callable[[float], object]


class Work(Protocol):
    """Work other than streams that may finish when the process stops."""

    def seconds_to_finish(self) -> float | None:
        """The time that it may take, from the first request to stop.

        :return: seconds; ``None``: there is no work to finish.
        """
        ...


class Streams:
    """The streams of this process. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        # Re-entrant, as a signal handler may end a stream on a thread that holds it: see unlocked().
        self._lock = make_rlock("server.streams")
        self._later: deque[Callable[[], object]] = deque()
        self._open: dict[int, tuple[weakref.ref[Served], weakref.WeakMethod[Tick]]] = {}
        self._leaving: set[int] = set()  # the open streams that are about to be detached
        self._detached: dict[Detached, str] = {}  # the key of each
        self._admission = Admission()
        self._opened = 0
        self._closed: Counter[str] = Counter()
        self._totals: Counter[str] = Counter()
        self._logged: set[str] = set()  # warnings that were logged
        self._work: weakref.WeakSet[Work] = weakref.WeakSet()
        #: When the process first began to stop, on the monotonic clock.
        self.stopping_since: float | None = None
        #: Called on the reactor's thread twice a second while streams are open.
        self.on_tick: Callable[[], object] | None = None

    @property
    def stopping(self) -> bool:
        """Whether the process stops: then no stream is admitted. Set by a signal handler, so without a lock."""
        return self.stopping_since is not None

    @stopping.setter
    def stopping(self, stops: bool) -> None:
        self.stopping_since = (self.stopping_since or time.monotonic()) if stops else None

    def admit(self, stream: Served, key: str, tick: Tick, *, detached: bool = False) -> bool:
        """Admit a stream, if the limits allow it.

        :param stream: the stream. The reference to it is weak.
        :param key: its key, for ``max_streams_per_key``.
        :param tick: a method of the stream, called twice a second with the time on the monotonic clock.
        :param detached: whether it will be detached, so that it takes no thread.
        :return: whether it is admitted.
        """
        settings = stream.settings
        ticking = reactor()  # before the stream is counted: there may be no descriptors for the reactor
        if detached:
            self.prepare()
        limit = detached_limit(settings) if detached else served_limit(settings)
        try:
            with self._lock:  # as _locked(), without its cost for each new client
                held = len(self._detached) + len(self._leaving) if detached else len(self._open) - len(self._leaving)
                full = limit is not None and held >= limit
                admitted = self._admission.admit(key, settings, is_full=full or self.stopping)
                if admitted:
                    self._open[id(stream)] = weakref.ref(stream), weakref.WeakMethod(tick)
                    if detached:
                        self._leaving.add(id(stream))
                    self._opened += 1
                warn = full and detached and "files" not in self._logged
                if warn:
                    self._logged.add("files")
        finally:
            self._call_later()
        if admitted:
            ticking.every_tick(self._tick)
        if warn:  # after the lock was released: a logging handler may wait
            log_full(settings, held)
        return admitted

    def refuse(self, *, browser: bool, least: float = 0.0, counted: bool = False) -> float:
        """Refuse a client.

        :param browser: whether it is an ``EventSource``, which keeps the time for its later connections.
        :param least: the shortest reconnection time, in seconds.
        :param counted: whether :meth:`admit` has counted this client as refused.
        :return: the client's reconnection time, in seconds.
        """
        with self._locked():
            return self._admission.refuse(browser=browser, least=least, counted=counted)

    def prepare(self, worker: Any = None) -> None:
        """Divide the descriptors between detached streams and the server. Any number of times.

        :param worker: the gunicorn worker of this process, if it is known.
        """
        prepare(worker, lambda browser: self.refuse(browser=browser))

    @property
    def refused_lately(self) -> bool:
        """Whether a browser that connects now may have a long reconnection time from a refusal."""
        return self._admission.refused_lately

    def detached(self, stream: Served, key: str, connection: Detached) -> None:
        """Count a stream as detached from now on.

        :param stream: the stream.
        :param key: its key.
        :param connection: the connection that serves its client.
        """
        try:
            with self._lock:  # as _locked(), without its cost for each new client
                self._leaving.discard(id(stream))
                del self._open[id(stream)]
                self._detached[connection] = key
        finally:
            self._call_later()

    def receive(self, connection: Detached, key: str) -> None:
        """Count a detached stream that comes from another process. ``max_streams_per_key`` does not hold it up: it was
        admitted there.

        :param connection: the connection that will serve its client.
        :param key: its key.
        :raises RuntimeError: this process stops, or holds as many detached streams as it may. The message says which.
        """
        ticking = reactor()
        self.prepare()
        limit = detached_limit(connection.settings)
        with self._locked():
            held = len(self._detached) + len(self._leaving)
            if self.stopping:
                raise RuntimeError("this process stops")
            if limit is not None and held >= limit:
                raise RuntimeError(f"this process holds {held} detached streams, and may hold {limit}")
            self._admission.count(key)
            self._admission.consume(key)
            self._detached[connection] = key
            self._opened += 1
        ticking.every_tick(self._tick)

    def reserve(self, key: str, limit: int, seconds: float) -> bool:
        """Reserve a place for a stream that will come from another process, see :meth:`receive`.

        :param key: the stream's key.
        :param limit: how many streams the key may have, reservations included.
        :param seconds: how long the reservation counts, if no stream comes.
        :return: whether the stream is allowed.
        """
        with self._locked():
            return self._admission.reserve(key, limit, seconds)

    def withdraw(self, connection: Detached, key: str) -> None:
        """Undo :meth:`receive`: the stream stays with the other process.

        :param connection: the connection.
        :param key: the stream's key.
        """
        with self._locked():
            if self._detached.pop(connection, None) is not None:
                self._admission.release(key)
                self._opened -= 1

    def is_leaving(self, stream: Served) -> bool:
        """Whether a stream is about to be detached."""
        return id(stream) in self._leaving

    def keep_served(self, stream: Served) -> bool:
        """Count a stream as served that can't be detached.

        :return: whether the limit allows it.
        """
        limit = served_limit(stream.settings)
        with self._locked():
            if id(stream) not in self._leaving:
                return True
            self._leaving.discard(id(stream))
            return limit is None or len(self._open) - len(self._leaving) <= limit

    def log_not_detached(self, name: str, why: str, *, served: bool) -> None:
        """Log why a stream could not be detached: the first time as a warning.

        :param name: the stream's.
        :param why: the reason.
        :param served: whether a thread serves the stream instead.
        """
        level = logging.DEBUG if "detach" in self._logged else logging.WARNING
        self._logged.add("detach")
        outcome = "takes a thread" if served else "was refused"
        logger.log(
            level, "the event stream %s %s, as it could not be detached: %s", escape(name), escape(outcome), escape(why)
        )

    def leave(
        self,
        stream: Served | Detached,
        key: str,
        reason: CloseReason,
        run: Callable[[Callable[[], object]], object] = lambda call: call(),
    ) -> None:
        """Count a stream as closed, and log its line.

        :param stream: the stream, or a detached one's connection.
        :param key: its key.
        :param reason: why it has ended.
        :param run: calls the function that logs, which may wait.
        """
        stats = stream.stats
        with self._locked():
            self._leaving.discard(id(stream))
            if self._open.pop(id(stream), None) is None and self._detached.pop(cast(Any, stream), None) is None:
                return
            self._admission.release(key)
            self._closed[reason.value] += 1
            self._totals.update(events=stats.events, bytes=stats.bytes, keep_alives=stats.keep_alives)
        # A deploy moves thousands at once, and its log has one line for each process that they moved to.
        level = logging.DEBUG if reason is CloseReason.TRANSFERRED else logging.INFO
        if not logger.isEnabledFor(level):
            return
        fields = {
            "stream": escape(stream.name),
            "reason": reason.value,
            "events": stats.events,
            "bytes": stats.bytes,
            "keep_alives": stats.keep_alives,
            "seconds": round(stats.seconds, 3),
        }
        line = " ".join(f"{name}={value}" for name, value in fields.items())
        run(lambda: logger.log(level, "event stream closed: %s", escape(line), extra=fields))

    def add_work(self, work: Work) -> None:
        """Have the process wait for something when it stops, as for streams that finish.

        :param work: it is held weakly.
        """
        self._work.add(work)

    def work_to_finish(self) -> list[float]:
        """The seconds that each work other than streams may take, from the first request to stop."""
        return [seconds for work in list(self._work) if (seconds := work.seconds_to_finish()) is not None]

    def all(self) -> list[Served | Detached]:
        """The streams that are open now."""
        with self._locked():
            served, detached = list(self._open.values()), list(self._detached)
        return [*(stream for reference, _ in served if (stream := reference()) is not None), *detached]

    def snapshot(self) -> dict[str, Any]:
        """The open streams of this process, and its counters. No data of events.

        :return: plain values. ``streams`` lists the open streams: ``id``, ``name`` (the path, in the integrations),
            ``age`` in seconds, ``events``, ``bytes``, ``pending_events`` and ``pending_bytes`` that wait for the
            client, ``last_write`` in seconds ago, ``tier``, ``senses_disconnect``. ``producers`` has the number of
            ``running`` ones, how many of these are ``asynchronous``, their ``limit``, and the name and age of those
            whose stream has ``ended`` and whose thread has not. ``opened``, ``refused``, ``closed`` by reason, and the
            totals ``events``, ``bytes``, ``keep_alives`` of the closed streams count from the process's start.
        """
        with self._locked():
            counters = {
                "opened": self._opened,
                "refused": self._admission.refused,
                "closed": dict(self._closed),
                **{name: self._totals[name] for name in ("events", "bytes", "keep_alives")},
            }
        open_streams = [stream.describe() for stream in self.all()]
        return {"pid": os.getpid(), "streams": open_streams, "producers": producers.describe(), **counters}

    def unlocked(self, call: Callable[[], object]) -> None:
        """Call at once; in a signal handler that has interrupted a holder of the lock, when the lock is released."""
        if is_owned(self._lock):
            self._later.append(call)
        else:
            call()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        finally:
            self._call_later()

    def _call_later(self) -> None:
        """Make the calls that were queued while this thread held the lock."""
        while self._later and not is_owned(self._lock):
            with contextlib.suppress(IndexError):  # another thread makes it
                self._later.popleft()()

    def warn_once(self, environ: Mapping[str, Any]) -> None:
        """Log a warning, once in a process, if the server can't serve streams well.

        :param environ: the WSGI environ of a request.
        """
        if "server" in self._logged:
            return
        text = advice(environ)
        if text is not None:
            self._logged.add("server")
            logger.warning("%s", escape(text))

    def _tick(self) -> bool:
        if self.on_tick is not None:
            self.on_tick()
        now = time.monotonic()
        with self._locked():
            served, detached = list(self._open.values()), list(self._detached)
        for _, method in served:
            tick = method()
            if tick is not None:
                tick(now)
        return bool(served or detached)


#: The streams of this process.
streams = Streams()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=streams._reset)
