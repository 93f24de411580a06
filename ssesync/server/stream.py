"""EventStream: the WSGI iterable that every view returns, and a WSGI application by itself (PEP 3333)."""

from __future__ import annotations

import contextvars
import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from ..cancel import CancelToken
from ..detached.connection import Connection, Handover
from ..detached.handover import Head, Takeover, takeover_of
from ..detached.record import DetachedRecord
from ..errors import CloseReason
from ..settings import Settings
from ..wire.encoder import KEEP_ALIVE
from ..wire.http import get_last_event_id, response_headers
from ..wire.origin import is_same_origin, with_cors
from .checks import check_callbacks
from .closing import Closable
from .ending import Ending
from .environ import counted_address
from .liveness import Liveness
from .margins import opening_of
from .producer import Collecting, Inline, Pump, Scope, Source, WriterFunction, name_of, producer_of
from .refusal import Refusal
from .refusing import refuse
from .registry import streams
from .stats import StreamStats, describe
from .writer import Writer

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["EventStream"]

logger = logging.getLogger("ssesync")

# What a client is given send_timeout for at a time: at 30 s, 2 kB/s is enough.
_PIECE = 65536


class EventStream(Closable):
    """An event stream on its way to one client.

    As a WSGI application, or called by one, headers and all::

        def app(environ, start_response):
            return EventStream(ticks())(environ, start_response)

    The server calls ``next()`` and ``close()`` on one thread. :meth:`cancel`, :meth:`stop` and :meth:`close` may be
    called from any, and from signal handlers.

    :param source: what is to be sent: an iterable of events, a function without arguments that returns one
        (a generator function, say, which is called on the producer's thread), or a :class:`Writer` that threads of
        your own write to. See :meth:`from_writer` for a function that is given a writer. With a function, the object
        can be served many times, each time with a new stream: ``application = EventStream(ticks)``.
    :param environ: the WSGI environ, where the stream is returned to the server without being called with it.
    :param headers: more response headers, or others instead of the default ones of the same name.
    :param finished: asked with the last event ID whether this client has all it will ever get. If so the answer is
        204, on which a browser stops coming back (HTML standard, "Server-sent events", section "Processing model").
    :param on_close: called once with the :class:`CloseReason` and the :class:`StreamStats` when a stream that was
        begun has ended: on the server's thread, or on one that the library keeps for it if the stream was detached. The
        producer may still be busy with its last step. What it raises is logged.
    :param settings: the options; single ones may also be given by name (``keep_alive=5``).
    :param dumps: the JSON encoder for items that are neither :class:`Event` nor text.
    :param scope: a function whose context manager is entered on the producer's thread round all that it does.
    :param on_start: called on the server's thread before the first byte is handed to it.
    :param after_step: called on the producer's thread after each of its writes.
    :param key: whose stream this is, for ``max_streams_per_key``; a function of the environ, or the key itself. The
        client's address (``REMOTE_ADDR``) without it, and where the function gives none.
    :param name: what log lines and the producer's thread call this stream.
    :raises SettingsError: an unknown option or a value that can't work.
    :raises TypeError: ``source`` is nothing that gives events, or it or a callback is asynchronous.
    """

    def __init__(
        self,
        source: Iterable[Any] | Callable[[], Iterable[Any]] | Writer | Source,
        *,
        environ: WSGIEnvironment | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        finished: Callable[[str], object] | None = None,
        on_close: Callable[[CloseReason, StreamStats], object] | None = None,
        settings: Settings | None = None,
        dumps: Callable[[Any], str | bytes] | None = None,
        scope: Scope | None = None,
        on_start: Callable[[], object] | None = None,
        after_step: Callable[[], object] | None = None,
        key: str | Callable[[WSGIEnvironment], str | None] | None = None,
        name: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        check_callbacks(finished=finished, on_close=on_close)
        self.settings = (settings or Settings()).replace(**options)
        #: The response headers, as WSGI takes them.
        self.headers = response_headers(headers)
        #: What log lines and the producer's thread call this stream.
        self.name = name or name_of(source)
        #: Set with the reason as soon as the stream ends before its producer does. ``cancelled.wait(seconds)`` is a
        #: sleep that ends when the client leaves.
        self.cancelled = source.cancelled if isinstance(source, Writer) else CancelToken()
        self._source = source
        self._produce = producer_of(source)
        self._copy = functools.partial(
            type(self), source, headers=headers, finished=finished, on_close=on_close, settings=self.settings,
            dumps=dumps, scope=scope, on_start=on_start, after_step=after_step, key=key, name=name,
        )  # fmt: skip
        self._finished = finished
        self._on_close = on_close
        self._streams = streams
        self._on_start = on_start
        self._after_step = after_step
        self._key = key
        self._dumps = dumps
        self._scope = scope
        self._environ = environ
        self._context = contextvars.copy_context()
        self._driver: Source | None = None
        self._guard: Liveness | None = None
        self._takeover: Takeover | None = None
        self._ending = Ending(self.settings, {}, self.name)
        self._opening = b""
        self._detached: Connection | None = None
        self._admitted: str | None = None
        self._rest: bytes | memoryview = b""
        self._started = self._ended = False
        self._bytes = self._keep_alives = 0
        self._last_write: float | None = None
        self._born = time.monotonic()

    @classmethod
    def from_writer(cls, function: Callable[[Writer], object], **options: Any) -> EventStream:
        """A stream that ``function`` writes to: it is called with a :class:`Writer`, and its return ends the stream.
        The options are those of the class."""
        return cls(cast(Any, WriterFunction(function)), **options)

    @classmethod
    def refused(cls, why: str, **options: Any) -> EventStream:
        """A stream that is counted as refused, and only answers so (see the setting ``refusal``), with the text ``why``
        where that is a 503. The options are those of the class."""
        return cls(Refusal(why), **options)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (PEP 3333). HEAD gets the headers alone and runs no producer.

        :raises Exception: what the producer raises before its first event.
        """
        stream = self._copy() if callable(self._source) or isinstance(self._source, WriterFunction) else self
        start_response(stream.open(environ), stream.headers)
        return stream

    def open(self, environ: WSGIEnvironment | None = None) -> str:
        """Start the producer and give it ``first_event_timeout`` seconds for its first event.

        The result is the status line to answer; ``headers`` are those of that answer, and what is to be sent comes
        from iterating in any case. It is ``403 Forbidden`` for other origins where ``same_origin_only`` says so,
        ``204 No Content`` where ``finished`` says so, ``503 Service Unavailable`` or 200 where a limit is reached (see
        ``refusal``), what a source that can't be streamed says, else ``200 OK``. Only on 200, not on HEAD, not where a
        limit is reached and not while the process is stopping, was a producer started. Needed only by those who don't
        call the stream as an application. Once only.

        :raises Exception: what the producer raised before its first event.
        :raises RuntimeError: the stream was opened before.
        """
        if self._driver is not None or self._ended:
            raise RuntimeError(
                f"the event stream {self.name} was served already; give EventStream a function that makes the "
                "iterable, then it can be served again"
            )
        self._environ = environ = environ or self._environ or {}
        self._ending = Ending(self.settings, environ, self.name)
        outer = self._enter()
        try:
            # A signal handler may have closed it since the look above.
            status = "200 OK" if self._ended else self._decide(environ)
        finally:
            self._leave(outer)
        settings = self.settings
        if settings.cors_origins:
            origins = settings.cors_origins
            self.headers = with_cors(self.headers, environ, origins, credentials=settings.cors_credentials)
        return status

    def _decide(self, environ: WSGIEnvironment) -> str:
        """Start the stream, or answer otherwise; the status."""
        known = environ.get("HTTP_ORIGIN") in self.settings.cors_origins
        if self.settings.same_origin_only and not (known or is_same_origin(environ)):
            return self._answer("403 Forbidden", [], b"not for pages of other origins\n")
        if self._finished is not None and self._finished(get_last_event_id(environ)):
            return self._answer("204 No Content", [])
        answer = getattr(self._source, "answer", None)
        if answer is not None:
            return self._answer(*answer)
        if isinstance(self._source, Refusal):
            return self._refuse(self._source.why, counted=False)
        if environ.get("REQUEST_METHOD") == "HEAD":
            return self._answer("200 OK", self.headers)
        self._opening = opening_of(self.settings, told_before=streams.refused_lately)
        key = self._key(environ) if callable(self._key) else self._key
        key = key or counted_address(environ, limited=self.settings.max_streams_per_key is not None)
        if hasattr(self._source, "hand_over"):
            self._takeover = takeover_of(environ, self.settings, self._opening)
        if not streams.admit(self, key, detached=self._takeover is not None):
            return self._refuse("too many event streams", counted=True)
        self._admitted = key
        try:
            self._start(environ)
        except BaseException:
            self._end(CloseReason.ERROR)
            raise
        if self._takeover is None:
            self._watch_over()
        self._opened = time.monotonic()
        self._end_early()
        return "200 OK"

    def stay_served(self, why: str) -> None:
        """Do not detach this stream, since something has to see all of its chunks. Before the first is taken.

        :param why: for the log.
        """
        if self._takeover is not None:
            self._takeover.why = why

    def _watch_over(self) -> None:
        streams.warn_once(self._environ or {})
        self._guard = Liveness(self, self._environ or {}, self.settings)

    def _refuse(self, why: str, *, counted: bool) -> str:
        """Answer that this client can't be served now, and end its connection where that can be done."""
        answer, self._takeover = refuse(self._environ or {}, self.settings, self.headers, why, counted=counted)
        return self._answer(*answer)

    def _answer(self, status: str, headers: list[tuple[str, str]], body: bytes = b"") -> str:
        """Answer without a stream."""
        self.headers = headers
        self._rest = b"" if (self._environ or {}).get("REQUEST_METHOD") == "HEAD" else body
        self._end(CloseReason.DONE)
        return status

    def _start(self, environ: WSGIEnvironment) -> None:
        if self._produce is None:
            self._driver = cast(Source, self._source)
            return
        threaded = self.settings.threaded
        make = Collecting if not threaded and isinstance(self._source, WriterFunction) else Writer
        writer = make(self.settings, dumps=self._dumps, last_event_id=get_last_event_id(environ))
        writer.cancelled = self.cancelled
        writer.after_write = self._after_step
        driver = (Pump if threaded else Inline)(self._produce, writer, self._scope, self.name)
        self._driver = driver
        driver.open(self.settings.first_event_timeout)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        outer = self._enter()
        try:
            return self._next()
        finally:
            self._leave(outer)

    def _next(self) -> bytes:
        if self._driver is None and not self._ended:
            self.open()
        if self._guard is not None:
            self._guard.sent()
        if self._rest:
            if self._ended and self._takeover is not None:
                self._takeover.begin()
            return self._send(self._rest)
        driver = self._driver
        if self._ended or driver is None:
            raise StopIteration
        if not self._started:
            self._started = True
            if self._on_start is not None:
                self._on_start()
            opening = self._send(self._opening)
            if self._takeover is not None and not self._takeover.begin():
                self._stay()
            return opening
        if self._takeover is not None and self._hand_over():
            raise StopIteration
        pieces = driver.take(self.settings.keep_alive)
        if pieces is None:
            if last := self._context.run(self._ending.last_words, driver, self._is_stopped):
                return self._send(last)
            if self._guard is not None:
                self._guard.end()
            error = self._ending.conclude(driver, self._environ or {})
            self._end(driver.reason or CloseReason.DONE)
            raise error or StopIteration
        if not pieces:
            self._keep_alives += 1
            return self._send(KEEP_ALIVE)
        return self._send(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def _hand_over(self) -> bool:
        """Leave the client to the loop; whether that was possible. Then this answer is over, and the stream is not."""

        def give(fd: int, head: Head) -> None:
            orderly = self._ending.is_orderly(cast(Source, self._driver).resumable)
            given = self._bytes
            handover = Handover(fd, head.chunked, head.wire, self.name, self.settings, self._born, given, orderly)
            record = DetachedRecord(self, cast(str, self._admitted), self._on_close, self._context)
            self._detached = cast(Any, self._source).hand_over(handover, record)

        self._ended = cast(Takeover, self._takeover).complete(give)
        if not self._ended:
            self._stay()
        return self._ended

    def _stay(self) -> None:
        """Be served as any other, since the connection could not be taken over; or end, where there is no room."""
        takeover, self._takeover = cast(Takeover, self._takeover), None
        takeover.close()
        there_is_room = streams.stays(self) and not takeover.is_short
        if self.reason is None:
            streams.tell_of_staying(self.name, takeover.why, there_is_room)
        self._watch_over()
        if not there_is_room:
            self.stop(CloseReason.CANCELLED)

    def _send(self, data: bytes | memoryview) -> bytes:
        # In pieces that a slow client can take within send_timeout: it is judged by each, not by all that waits. The
        # rest is a view: copying it for each piece would be quadratic in an event of many megabytes.
        self._rest = memoryview(data)[_PIECE:] if len(data) > _PIECE else b""
        piece = bytes(data[:_PIECE])
        self._bytes += len(piece)
        self._last_write = time.monotonic()
        if self._guard is not None:
            self._guard.sending(self._last_write)
        return piece

    @property
    def closed(self) -> bool:
        """Whether the stream has ended."""
        return self._ended if self._detached is None else self._detached.closed

    @property
    def reason(self) -> CloseReason | None:
        """Why the stream ended or is ending, ``None`` while it is not."""
        if self._detached is not None:
            return self._detached.reason or self._detached.ending
        return None if self._driver is None else self._driver.reason

    @property
    def finishes(self) -> bool:
        """Whether the stream goes on to its own end, for a while, when the process stops (``Settings.drain``)."""
        return self._ending.finishes(self._driver) if self._detached is None else self._detached.finishes

    @property
    def senses_disconnect(self) -> bool:
        """Whether a client that leaves is noticed at once; else by failing keep-alives."""
        if self._detached is not None:
            return self.settings.sense_disconnect
        return self._guard is not None and self._guard.senses

    @property
    def stats(self) -> StreamStats:
        """What the stream came to so far."""
        if self._detached is not None:
            return self._detached.stats
        events = getattr(getattr(self._driver, "writer", self._driver), "events", 0)
        return StreamStats(events, self._bytes, self._keep_alives, time.monotonic() - self._born)

    def describe(self) -> dict[str, Any]:
        """What ``streams.snapshot()`` tells of this stream."""
        now = time.monotonic()
        pending = getattr(getattr(self._driver, "writer", self._driver), "pending", (0, 0))
        quiet = None if self._last_write is None else now - self._last_write
        return describe(self, now - self._born, pending, quiet, "served")
