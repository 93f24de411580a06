"""EventStream: the WSGI iterable that every view returns, and a WSGI application by itself (PEP 3333)."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from ..cancel import CancelToken
from ..errors import CloseReason
from ..producing import Producing
from ..settings import DEFAULTS, Settings
from ..wire.encoder import encode_keep_alive
from ..wire.http import get_last_event_id, missing_from, response_headers
from ..wire.origin import is_same_origin, with_cors
from . import transferring
from .body import secure_body
from .checks import check_callbacks
from .detaching import Detached, Takeover, takeover_of
from .ending import Ending
from .environ import counted_address
from .factory import SourceFactory, WriterFunction, factory_of
from .framing import make_preamble
from .leaving import Leaving
from .lifecycle import Lifecycle, State
from .liveness import Liveness
from .output import PIECE, Output
from .producer import Scope
from .producers import Slot
from .refusing import refuse
from .registry import streams
from .source import BlockingPull, Detachable, Overload, Pending, Refusal, Source, Streamable, Tappable
from .spec import StreamSpec
from .starts import views
from .stats import StreamStats
from .writer import Writer

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from typing_extensions import Unpack

    from ..settings import SettingsOptions
    from .options import EventStreamOptions, ResponseOptions

__all__ = ["EventStream"]

_TEXT = "text/plain; charset=utf-8"


class EventStream(Leaving):
    """An event stream on its way to one client.

    As a WSGI application, or called by one, headers and all::

        def app(environ, start_response):
            return EventStream(ticks())(environ, start_response)

    The server calls ``next()`` and ``close()`` on one thread. :meth:`cancel`, :meth:`stop` and :meth:`close` may be
    called from any, and from signal handlers.

    :param source: an iterable of events; a function without arguments that returns one (for example a generator
        function, which is called on the producer's thread); a :class:`Writer` that threads of your own write to; a
        :class:`Relay`, a :class:`Subscription`, or what :func:`from_async` makes of an asynchronous producer. See
        :meth:`from_writer` for a function that is called with a writer. With a function, the object can be served many
        times, each time as a new stream: ``application = EventStream(ticks)``.
    :param environ: the WSGI environ, if the server iterates over the stream without calling it as an application.
    :param headers: more response headers, or others instead of the default ones of the same name.
    :param finished: called with the last event ID; true if the client has all events that it will ever get. Then the
        answer is 204, on which a browser stops reconnecting (HTML standard, "Server-sent events", section "Processing
        model").
    :param on_close: called once with the :class:`CloseReason` and the :class:`StreamStats` when a stream that was
        begun has ended: on the server's thread, or on one of the library's if the stream was detached. The producer may
        still run its last step. An exception is logged.
    :param settings: the options; single ones may also be given by name (``keep_alive=5``).
    :param dumps: the JSON encoder for items that are neither :class:`Event` nor text.
    :param scope: a function that returns a context manager, in which the producer runs, on its thread.
    :param on_start: called on the server's thread before the first byte is passed to the server.
    :param after_step: called on the producer's thread after each of its writes.
    :param key: the key for ``max_streams_per_key``, for example a user's name; or a function of the environ that
        returns it. Without a key, it is the client's address (``REMOTE_ADDR``).
    :param name: the stream's name in log lines and of the producer's thread.
    :raises SettingsError: an unknown option or a value that can't work.
    :raises TypeError: ``source`` can't be streamed, or it or a callback is asynchronous.
    """

    def __init__(
        self,
        source: Iterable[Any] | Callable[[], Iterable[Any]] | Streamable | Producing | Source | SourceFactory | Refusal,
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
        **options: Unpack[SettingsOptions],
    ) -> None:
        check_callbacks(finished=finished, on_close=on_close)
        base, settings = settings or DEFAULTS, (settings or DEFAULTS).replace(**options)
        factory = factory_of(source)
        max_of_view = None
        if "max_producers" in options and isinstance(settings.max_producers, int):
            max_of_view, settings = settings.max_producers, settings.replace(max_producers=base.max_producers)
        spec = StreamSpec(
            factory, name or factory.name, settings, tuple(response_headers(headers)), finished=finished,
            on_close=on_close, dumps=dumps, scope=scope, on_start=on_start, after_step=after_step, key=key,
            max_of_view=max_of_view,
        )  # fmt: skip
        self._begin(spec, environ)

    def _begin(self, spec: StreamSpec, environ: WSGIEnvironment | None = None) -> None:
        #: The response headers, as WSGI takes them.
        self.headers = list(spec.headers)
        #: Set with the reason as soon as the stream ends before its producer does. ``cancelled.wait(seconds)`` is a
        #: sleep that ends when the client leaves.
        self.cancelled: CancelToken = spec.factory.make_token()
        self._spec = spec
        self._environ = environ
        self._context = contextvars.copy_context()
        self._lifecycle = Lifecycle()
        self._output = Output()
        self._ending = Ending(spec.settings, spec.name, self._context)
        self._source: Source | None = None
        self._pull: BlockingPull | None = None
        self._liveness: Liveness | None = None
        self._takeover: Takeover | None = None
        self._detached: Detached | None = None
        # The key that it was admitted by; and when it was opened, until the server has taken the first byte.
        self._admitted: str | None = None
        self._opened: float | None = None

    @classmethod
    def from_writer(cls, function: Callable[[Writer], object], **options: Unpack[EventStreamOptions]) -> EventStream:
        """A stream that ``function`` writes to: it is called with a :class:`Writer`, and its return ends the stream.

        :param function: the function.
        :param options: those of the class.
        :return: the stream.
        """
        return cls(cast(Any, WriterFunction(function)), **options)

    @classmethod
    def refused(cls, why: str, **options: Unpack[EventStreamOptions]) -> EventStream:
        """A refusal in place of a stream, which is counted as refused (see the setting ``refusal``).

        :param why: the text of the answer if that is a 503.
        :param options: those of the class.
        :return: an object that answers so.
        """
        return cls(cast(Any, Overload(why)), **options)

    @classmethod
    def answering(
        cls, status: str, why: str, headers: Iterable[tuple[str, str]] = (), **options: Unpack[ResponseOptions]
    ) -> EventStream:
        """Another answer in place of a stream, with the CORS headers of the stream.

        :param status: the status line without the protocol: ``"404 Not Found"``.
        :param why: the text of the answer.
        :param headers: its headers, in addition to the type of the text.
        :param options: those of the class.
        :return: an object that answers so.
        """
        return cls(Refusal(status, [("Content-Type", _TEXT), *headers], f"{why}\n".encode()), **options)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (PEP 3333). HEAD gets the status and headers alone, and runs no producer.

        :param environ: the WSGI environ.
        :param start_response: the server's function.
        :return: the body.
        :raises Exception: an exception of the producer before its first event.
        """
        stream = self._copy() if self._spec.factory.repeatable else self
        start_response(stream.open(environ), stream.headers)
        return stream

    def _copy(self) -> EventStream:
        """This stream, to be served once more."""
        stream = object.__new__(type(self))
        stream.__dict__.update(self.__dict__)  # a subclass may have attributes of its own
        stream._begin(self._spec)
        return stream

    def open(self, environ: WSGIEnvironment | None = None) -> str:
        """Start the producer, and wait up to ``first_event_timeout`` seconds for its first event. Called once, and only
        if the stream is not called as an application.

        ``headers`` are then those of the answer, and to iterate gives its body. The status is ``403 Forbidden`` for
        other origins with ``same_origin_only``, ``204 No Content`` if ``finished`` returns true, ``503 Service
        Unavailable`` or 200 over a limit (see ``refusal``), the status of another answer that the source has, else
        ``200 OK``. A producer was started only on 200; not on HEAD, not over a limit and not while the process stops.

        :param environ: the WSGI environ, if the constructor was called without one.
        :return: the status line, without the protocol.
        :raises Exception: an exception of the producer before its first event.
        :raises RuntimeError: the stream was opened before.
        """
        if self._lifecycle.state is not State.CREATED:
            raise RuntimeError(
                f"the event stream {self.name} was served already; an EventStream of a function that returns the "
                "iterable can be served again"
            )
        self._environ = environ = environ or self._environ or {}
        settings = self.settings
        self._ending.set_request(environ)
        outer = self._enter()
        try:
            # A signal handler may have closed the stream since the state was read.
            status = "200 OK" if self._lifecycle.is_over else self._decide(environ)
        finally:
            self._leave(outer)
        if settings.cors_origins:
            origins = settings.cors_origins
            self.headers = with_cors(self.headers, environ, origins, credentials=settings.cors_credentials)
        return status

    def _decide(self, environ: WSGIEnvironment) -> str:
        """Start the stream, or answer otherwise.

        :return: the status line.
        """
        spec, settings = self._spec, self.settings
        known = environ.get("HTTP_ORIGIN") in settings.cors_origins
        if settings.same_origin_only and not (known or is_same_origin(environ)):
            return self._answer(Refusal("403 Forbidden", [], b"not for pages of other origins\n"))
        if spec.finished is not None and spec.finished(get_last_event_id(environ)):
            return self._answer(Refusal("204 No Content", []))
        if isinstance(spec.factory.answer, Overload):
            return self._refuse(spec.factory.answer.why, counted=False)
        if spec.factory.answer is not None:
            return self._answer(spec.factory.answer)
        if environ.get("REQUEST_METHOD") == "HEAD":
            return self._answer(spec.factory.head_answer() or Refusal("200 OK", self.headers))
        self._output.preamble = make_preamble(settings, reset_retry=streams.refused_lately)
        key = spec.key(environ) if callable(spec.key) else spec.key
        key = key or counted_address(environ, limited=settings.max_streams_per_key is not None)
        if spec.factory.is_detachable(settings):
            self._takeover = takeover_of(environ, settings, self._output.preamble)
            if self._takeover is not None and spec.factory.may_read_body and not secure_body(environ, settings):
                self._takeover = None
        slot = spec.factory.reserve(spec)
        if slot is None:
            return self._refuse("too many event streams", counted=False)
        admitted = False
        try:
            admitted = streams.admit(self, key, self._tick, detached=self._takeover is not None)
        finally:
            if not admitted:
                slot.release()
        if not admitted:
            return self._refuse("too many event streams", counted=True)
        self._admitted = key
        # A signal handler may have interrupted admit(), and not have found this stream.
        if streams.stopping and not transferring.may_move(self):
            self.stop(CloseReason.SHUTDOWN)
        try:
            answer = self._start(environ, slot)
        except BaseException:
            self._end(CloseReason.ERROR)
            raise
        if answer is not None:
            self._source, self._takeover = None, None  # it is no stream
            return self._refuse(answer.why, counted=False) if isinstance(answer, Overload) else self._answer(answer)
        if self._takeover is None:
            self._watch_over()
        self._opened = time.monotonic()
        self._end_early()
        if self._source is not None and self._source.passed_headers:
            self.headers += missing_from(self.headers, self._source.passed_headers)
        return "200 OK"

    def _refuse(self, why: str, *, counted: bool) -> str:
        """Answer that this client can't be served now, and end its connection if possible."""
        answer, self._takeover = refuse(self._environ or {}, self.settings, self.headers, why, counted=counted)
        return self._answer(answer)

    def _answer(self, answer: Refusal) -> str:
        """Answer without a stream."""
        self.headers = answer.headers
        self._output.rest = b"" if (self._environ or {}).get("REQUEST_METHOD") == "HEAD" else answer.body
        self._end(CloseReason.DONE)
        return answer.status

    def _start(self, environ: WSGIEnvironment, slot: Slot) -> Refusal | Overload | None:
        source = self._spec.factory.make(self._spec, self.cancelled, environ, slot)
        self._pull = BlockingPull(source)
        self._source = source
        self._lifecycle.advance(State.OPEN)
        detached = self._takeover is not None
        if detached and isinstance(source, Tappable):
            source.postpone()
        answer: Refusal | Overload | None
        if detached and not self._is_allowed_elsewhere(source):
            answer = Overload("too many event streams")
        else:
            answer = source.open(views.wait(self._spec.factory.view, self.settings, detached=detached))
        if answer is not None:
            source.close()
        return answer

    def _is_allowed_elsewhere(self, source: Source) -> bool:
        """Whether the process to which the client will be moved, if there is one, allows one more stream of its key. A
        stream with ``on_close`` is not moved."""
        limit = self.settings.max_streams_per_key
        if limit is None or self._spec.on_close is not None or not isinstance(source, Detachable):
            return True
        return source.reserve(cast(str, self._admitted), limit)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        outer = self._enter()
        try:
            return self._next()
        finally:
            self._leave(outer)

    def _next(self) -> bytes:
        lifecycle = self._lifecycle
        state = lifecycle.state
        if state is State.CREATED:
            self.open()
            state = lifecycle.state
        if self._liveness is not None:
            self._liveness.sent()
        if self._output.rest:
            if state is State.ENDED and self._takeover is not None:
                self._takeover.begin()
            return self._send(self._output.rest)
        # `state` in place of is_over, and no other properties: this runs for each chunk.
        if state is State.ENDED or state is State.DETACHED or self._pull is None:
            raise StopIteration
        if state is State.OPEN:
            return self._send_preamble()
        if self._takeover is not None and self._detach(self._takeover):
            raise StopIteration
        pulled = self._pull.pull(PIECE, self._spec.settings.keep_alive)
        if isinstance(pulled, bytes):
            return self._send(pulled)
        if isinstance(pulled, Pending):
            self._output.keep_alives += 1
            return self._send(encode_keep_alive(self._spec.settings.keep_alive_event))
        return self._send_last(cast(Source, self._source))

    def _send_preamble(self) -> bytes:
        self._lifecycle.advance(State.SENDING)
        if self._spec.on_start is not None:
            self._spec.on_start()
        preamble = self._send(self._output.preamble)
        if self._takeover is not None:
            self._begin_to_leave(self._takeover)
        return preamble

    def _send_last(self, source: Source) -> bytes:
        """Send the last bytes, after all events, and then end."""
        if last := self._ending.last_bytes(source):
            return self._send(last)
        if self._liveness is not None:
            self._liveness.end()
        error = self._ending.end_answer(source, self._environ or {})
        self._end(source.reason or CloseReason.DONE)
        raise error or StopIteration

    def _send(self, data: bytes | memoryview) -> bytes:
        piece = self._output.next_piece(data)
        if self._liveness is not None:
            self._liveness.sending(self._output.last_write or 0.0)
        return piece


def environ_of(stream: EventStream) -> Mapping[str, Any]:
    """The WSGI environ that a stream was opened with, empty without one. For ``ssesync.testing``."""
    return stream._environ or {}


def join_producer(stream: EventStream, timeout: float) -> bool:
    """Wait up to ``timeout`` seconds until no thread runs the stream's producer. For ``ssesync.testing``.

    :return: whether none does.
    """
    return stream._source is None or stream._source.join(timeout)
