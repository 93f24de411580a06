"""Which streams this process holds, how many it may, and what became of the others.

One place counts: so what is opened is what is open or closed for a reason, the limits hold, and a process that stops
knows whom to tell. The counters outlive the streams; nothing here keeps one alive that its server has let go.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import random
import signal
import sys
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from ..errors import CloseReason
from ..locks import is_owned, make_rlock
from ..settings import Settings
from .connection import Connection
from .stats import StreamStats
from .watcher import watcher

if TYPE_CHECKING:
    from .stream import EventStream

__all__ = ["DetachedRecord", "Streams", "streams"]

logger = logging.getLogger("ssesync")

# Refused clients come back between these many seconds, spread so that they don't in lock-step.
_RETRY_AFTER = (2, 10)


class Streams:
    """The streams of this process. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        # Re-entrant, as a signal handler may end a stream on a thread that is in here: see unlocked().
        self._lock = make_rlock("server.streams")
        self._later: deque[Callable[[], object]] = deque()
        self._open: dict[int, weakref.ref[EventStream]] = {}
        self._leaving: set[int] = set()  # those of them that are about to be detached
        self._detached: dict[Connection, str] = {}  # with the keys that they were admitted by
        self._keys: Counter[str] = Counter()
        self._opened = 0
        self._refused = 0
        self._closed: Counter[str] = Counter()
        self._totals: Counter[str] = Counter()
        self._warned = self._told_of_files = self._told_of_staying = False
        #: Set while the process stops: then no stream is admitted.
        self.stopping = False
        #: Called on the watcher's thread twice a second while streams are open.
        self.on_tick: Callable[[], object] | None = None

    def admit(self, stream: EventStream, key: str, *, detached: bool = False) -> bool:
        """Count a stream in, if there is room for it; whether there was.

        :param detached: it will be detached, if that works, and so takes no thread.
        """
        settings = stream.settings
        ticking = watcher()  # before anything is counted: there may be no descriptors for one
        with self._locked():
            full = self._is_full_of_detached(settings) if detached else self._is_full_of_served(settings)
            per_key = settings.max_streams_per_key
            admitted = not (full or self.stopping or (per_key is not None and self._keys[key] >= per_key))
            if admitted:
                self._open[id(stream)] = weakref.ref(stream)
                if detached:
                    self._leaving.add(id(stream))
                self._keys[key] += 1
                self._opened += 1
            else:
                self._refused += 1
            tell = full and detached and not self._told_of_files
            self._told_of_files = self._told_of_files or tell
            held = len(self._detached)
        if admitted:
            ticking.every_tick(self._tick)
        if tell:  # not with the lock held: who knows what a handler of the log does
            logger.warning(
                "this process holds %d detached event streams and answers 503 to more; max_detached=%r%s",
                held,
                settings.max_detached,
                ", from its limit of open files: raise that (ulimit -n, LimitNOFILE=)"
                if settings.max_detached == "auto"
                else "",
            )
        return admitted

    def _is_full_of_served(self, settings: Settings) -> bool:
        limit = _server_limit() if settings.max_streams == "auto" else settings.max_streams
        return limit is not None and len(self._open) - len(self._leaving) >= limit

    def _is_full_of_detached(self, settings: Settings) -> bool:
        limit = _descriptor_limit() if settings.max_detached == "auto" else settings.max_detached
        return limit is not None and len(self._detached) + len(self._leaving) >= limit

    def detached(self, stream: EventStream, key: str, connection: Connection) -> None:
        """A stream is served by the loop from now on."""
        with self._locked():
            self._leaving.discard(id(stream))
            del self._open[id(stream)]
            self._detached[connection] = key

    def stays(self, stream: EventStream) -> bool:
        """A stream can't be detached, and is served after all; whether there is room for it."""
        with self._locked():
            if id(stream) not in self._leaving:
                return True
            full = self._is_full_of_served(stream.settings)
            self._leaving.discard(id(stream))
            return not full

    def tell_of_staying(self, name: str, why: str) -> None:
        """Log why a stream could not be detached."""
        level = logging.DEBUG if self._told_of_staying else logging.WARNING
        self._told_of_staying = True
        logger.log(level, "the event stream %s takes a thread, as it could not be detached: %s", name, why)

    def leave(
        self,
        stream: EventStream | Connection,
        key: str,
        reason: CloseReason,
        run: Callable[[Callable[[], object]], object] = lambda call: call(),
    ) -> None:
        """Count a stream out again, and log the one line that is said of it.

        :param run: calls what may take its time: a handler of the log.
        """
        stats = stream.stats
        with self._locked():
            self._leaving.discard(id(stream))
            if self._open.pop(id(stream), None) is None and self._detached.pop(cast(Any, stream), None) is None:
                return
            self._keys[key] -= 1
            if not self._keys[key]:
                del self._keys[key]
            self._closed[reason.value] += 1
            self._totals.update(events=stats.events, bytes=stats.bytes, keep_alives=stats.keep_alives)
        if not logger.isEnabledFor(logging.INFO):
            return
        fields = {
            "stream": stream.name,
            "reason": reason.value,
            "events": stats.events,
            "bytes": stats.bytes,
            "keep_alives": stats.keep_alives,
            "seconds": round(stats.seconds, 3),
        }
        line = " ".join(f"{name}={value}" for name, value in fields.items())
        run(lambda: logger.info("event stream closed: %s", line, extra=fields))

    def all(self) -> list[EventStream | Connection]:
        """The streams that are open now."""
        with self._locked():
            references, detached = list(self._open.values()), list(self._detached)
        return [*(stream for reference in references if (stream := reference()) is not None), *detached]

    def snapshot(self) -> dict[str, Any]:
        """What this process holds and has held, as plain values.

        ``streams`` lists the open ones: ``id``, ``name`` (the path, in the skins), ``age`` in seconds, ``events``,
        ``bytes``, ``pending_events`` and ``pending_bytes`` that wait for the client, ``last_write`` in seconds ago,
        ``tier``, ``senses_disconnect``. ``opened``, ``refused``, ``closed`` by reason, and the totals ``events``,
        ``bytes``, ``keep_alives`` of the closed ones count from the process's start. Events' data is in none of it.
        """
        with self._locked():
            counters = {
                "opened": self._opened,
                "refused": self._refused,
                "closed": dict(self._closed),
                **{name: self._totals[name] for name in ("events", "bytes", "keep_alives")},
            }
        return {"pid": os.getpid(), "streams": [stream.describe() for stream in self.all()], **counters}

    def unlocked(self, call: Callable[[], object]) -> None:
        """Call at once or, in a signal handler that has interrupted this thread in here, as soon as that gets out."""
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
            while self._later and not is_owned(self._lock):
                with contextlib.suppress(IndexError):  # another thread does it
                    self._later.popleft()()

    def refusal(self) -> list[tuple[str, str]]:
        """The headers of the 503 that a refused client gets."""
        return [
            ("Retry-After", str(random.randint(*_RETRY_AFTER))),
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Cache-Control", "no-store"),
        ]

    def warn_once(self, environ: Mapping[str, Any]) -> None:
        """Say, once in a process, that this server can't serve streams well, and what would."""
        if self._warned:
            return
        advice = _advice(environ)
        if advice is not None:
            self._warned = True
            logger.warning(advice)

    def _tick(self) -> bool:
        if self.on_tick is not None:
            self.on_tick()
        now = time.monotonic()
        with self._locked():
            references, detached = list(self._open.values()), list(self._detached)
        for reference in references:
            stream = reference()
            if stream is not None:
                stream.tick(now)
        worker = gunicorn_worker() if detached else None
        if worker is not None and not worker.alive:
            # The end of the process would be early enough, but for a worker that was stuck: gunicorn kills it a second
            # after it was told to end, and it may wait for two for a client of the request that it was stuck in.
            for connection in detached:
                if not connection.finishes:
                    connection.stop(CloseReason.SHUTDOWN)
        return bool(references or detached)


class DetachedRecord:
    """What is still to be done for a detached stream by the process that its request came to."""

    __slots__ = ("_context", "_key", "_on_close", "_stream")

    def __init__(
        self,
        stream: EventStream,
        key: str,
        on_close: Callable[[CloseReason, StreamStats], object] | None,
        context: contextvars.Context,
    ) -> None:
        self._stream = weakref.ref(stream)
        self._key = key
        self._on_close = on_close
        # A context holds the request and all that hangs on it.
        self._context = None if on_close is None else context

    def began(self, connection: Connection) -> None:
        """See :class:`ssesync.server.connection.Record`."""
        stream = self._stream()
        assert stream is not None
        streams.detached(stream, self._key, connection)

    def ended(self, connection: Connection, reason: CloseReason, stats: StreamStats) -> None:
        """See :class:`ssesync.server.connection.Record`."""
        streams.leave(connection, self._key, reason, connection.tell)
        stream, on_close, context = self._stream(), self._on_close, self._context
        if stream is not None:
            stream.cancelled._set(reason, connection.tell)
        if on_close is not None and context is not None:
            connection.tell(lambda: context.run(_close, connection.name, on_close, reason, stats))


def _close(
    name: str, on_close: Callable[[CloseReason, StreamStats], object], reason: CloseReason, stats: StreamStats
) -> None:
    try:
        on_close(reason, stats)
    except Exception:
        logger.exception("on_close of the event stream %s failed", name)


def gunicorn_worker() -> Any:
    """The gunicorn worker that this process is, None elsewhere. Its SIGTERM handler is a method of it."""
    if "gunicorn" not in sys.modules:
        return None
    handler: Callable[..., object] | int | None = signal.getsignal(signal.SIGTERM)
    handler = getattr(handler, "previous", handler)  # ours, in front of gunicorn's
    worker = getattr(handler, "__self__", None)
    return worker if hasattr(worker, "cfg") and hasattr(worker, "alive") else None


def _server_limit() -> int | None:
    worker = gunicorn_worker()
    if worker is None or not type(worker).__module__.endswith("gthread"):
        return None
    return max(1, int(worker.cfg.threads) - 1)


def _descriptor_limit() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else max(1, soft - max(64, soft // 10))


def _advice(environ: Mapping[str, Any]) -> str | None:
    worker = gunicorn_worker()
    kind = type(worker).__module__.rpartition(".")[2] if worker is not None else ""
    if kind == "sync":
        return (
            "gunicorn's sync worker serves one stream and nothing else, and is killed after --timeout "
            f"({worker.cfg.timeout} s); run it with threads: gunicorn -k gthread --threads 32"
        )
    if kind == "gthread" and worker.cfg.threads < 2:
        return "gunicorn has a single thread: one stream takes all of it; use gunicorn -k gthread --threads 32"
    if "werkzeug.socket" in environ and not environ.get("wsgi.multithread"):
        return "the development server runs without threads: one stream takes all of it; run it with threaded=True"
    return None


#: The streams of this process.
streams = Streams()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=streams._reset)
