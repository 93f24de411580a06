"""Settings: every option of a stream, with its default and the reason for it."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from .errors import EventError, SettingsError, UnknownOption, excerpt
from .event import Event
from .validation import check_choice, check_number, nearest, suggest

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["DEFAULTS", "QueueOptions", "Settings", "SettingsOptions"]

# A wait of more seconds than this overflows the operating system's timers.
_LONGEST = 2**31 - 1
# As browsers send it (HTML standard, "ASCII serialization of an origin"); no other value would ever match.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[^\s/?#@:A-Z\[\]]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")


# Options of a single stream, which are no settings. For the error message.
_STREAM_OPTIONS = ("finished", "on_close", "headers", "dumps", "key", "name")
# The keys of an application's configuration; other keys with this prefix are mistakes.
_KEYS = ("SSESYNC", "SSESYNC_BROKER", "SSESYNC_KEEPER")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of a stream. Frozen; :meth:`replace` makes a changed copy.

    :raises SettingsError: a value that can't work. The message names it and the values that can.
    """

    keep_alive: float | None = 15.0
    """Seconds of silence after which a comment is sent, so that neither proxies (nginx gives up after 60 s, some
    load balancers after 30) nor clients give up the stream. Each event restarts the time. ``None``: never."""

    keep_alive_event: str | None = None
    """The type of an event that is sent in the comment's place, such as ``"ping"``: a page's scripts see events and no
    comments, so they can notice a dead connection. It has empty data and no id. ``None``: a comment, which no client
    has to handle."""

    retry: int | None = None
    """The reconnection time in milliseconds that each stream opens with. ``None`` leaves it to the client
    (browsers: a few seconds)."""

    padding: int = 0
    """Bytes of a comment to begin with, for proxies that hold back a response's first bytes (2,048 are enough for the
    known ones)."""

    first_event_timeout: float | Literal["auto"] = "auto"
    """Seconds that the view waits for the producer's first event before the answer begins. An exception of the producer
    within this time becomes the framework's normal error response with its real status; a later one becomes an
    ``error`` event. An event that comes at once is not delayed. ``0`` begins at once. ``"auto"``: 0.25; but 0.02 for a
    stream that will be detached, as the wait holds a thread of the server's, until a producer of the same view has
    raised before its first event."""

    max_pending_events: int = 256
    """Writes that may wait for a slow client before its producer waits."""

    max_pending_bytes: int = 1024 * 1024
    """Bytes that may wait for a slow client before its producer waits. A single write may be larger."""

    threaded: bool = True
    """Run the producer in a thread of its own. ``False`` runs it in the server's thread, one step for each write: then
    no keep-alives are sent while it blocks, and it is not woken when the client leaves. Under the frameworks' test
    clients it always runs so, as a test's transaction and thread-locals must be visible to the view."""

    sense_disconnect: bool = True
    """Notice at once, without a write, that the client has left. On servers whose socket can be reached."""

    half_close_is_gone: bool = True
    """Whether a client that only stopped sending counts as gone, as for Go's and asyncio's servers."""

    send_timeout: float | None = 30.0
    """Seconds that a client may take to accept 64 kB, keep-alives included, before it is cut off as stalled and its
    thread is free again. On servers whose socket can be reached. ``None``: a client may stall for ever."""

    max_lifetime: float | None = None
    """Seconds, plus or minus a tenth at random, after which a stream ends and its client is expected to reconnect.
    Off by default. For streams that can't be detached from gunicorn's sync worker, set it below ``--timeout``, which
    kills the worker otherwise."""

    max_streams: int | Literal["auto"] | None = "auto"
    """Streams that this process may serve at once, each by a thread; over that clients are refused, see ``refusal``.
    ``"auto"`` leaves one of gunicorn's threads free for ordinary requests, and sets no limit on servers whose threads
    are not known. Detached streams take no thread, and don't count."""

    detach: bool | Literal["auto"] = "auto"
    """Detach streams: their sockets leave the server when the headers are out, and one thread of the process serves all
    of them. A producer continues in its own thread. ``"auto"``: on gunicorn's ``gthread`` and ``sync`` workers,
    Werkzeug and Django's ``runserver``; ``True``: on uWSGI, cheroot and wsgiref, too; ``False``: never. If that is not
    possible (TLS, HTTP/2, gevent, a middleware that changes the body) a thread of the server serves the stream."""

    max_detached: int | Literal["auto"] | None = "auto"
    """Detached streams that this process may hold at once; over that clients are refused. ``"auto"`` and ``None``: as
    many as its limit of open files allows in addition to the server's connections; a higher number has no effect."""

    max_producers: int | Literal["auto"] | None = "auto"
    """Producers that may run in this process, each on a thread of its own, until the thread has ended; over that
    clients are refused. Given as an option of a view, it counts the producers of that view. ``"auto"``: 1,200, or
    three quarters of the threads that the system allows (``pids.max`` of the control group, ``RLIMIT_NPROC``), divided
    by gunicorn's workers; no limit where threads are greenlets. The server's threads do not bound how many detached
    producers use a database at a time: set it to what a pool of connections has."""

    max_request_body: int = 16 * 1024 * 1024
    """Bytes of a request's body that are read before its stream is detached, as its producer may read them later: the
    first megabyte into memory, more into a temporary file. A stream whose request has more, or whose body takes more
    than a second to arrive, is served by a thread. ``0``: so is each stream with a body that was not read."""

    max_streams_per_key: int | None = None
    """Streams that one key may hold in this process. The key is the stream's ``key`` (a user, for example), else the
    client's address. Where a keeper takes the streams of channels, those that it holds are counted for all processes
    together."""

    refusal: Literal["auto", "503"] = "auto"
    """The answer to a client over a limit, or while the broker can't be reached. ``"auto"``: a browser's
    ``EventSource`` (a GET whose ``Accept`` is ``text/event-stream`` alone), which gives up for good on any other
    status, gets 200 with only a reconnection time, 3 to 120 seconds, the longer the more clients are refused; other
    clients get 503 with ``Retry-After``. ``"503"``: all get 503."""

    resumable: bool | Literal["auto"] = "auto"
    """Whether a client can reconnect and resume. Then a stream that its producer did not end (shutdown, lifetime,
    cancel, error) may still end as a complete one. If not, the client gets an error event and an answer that is
    incomplete by HTTP's rules. ``"auto"``: true for a GET whose events have ids, as those of channels; and, unless the
    producer failed, for a GET with exactly ``Accept: text/event-stream``, as EventSource sends it."""

    error_event: Event | Callable[[BaseException], Event] | None = None
    """The event that reports an error to the client: an :class:`Event`, or a function that returns one. The function is
    called with the producer's exception, or with a :class:`StreamClosed` that has the ``reason`` why the stream ends.
    ``None``: type ``error`` and JSON on which the SDKs of OpenAI and Anthropic raise. Do not put an exception's text
    into it: that may be secret."""

    drain: Literal["auto", "end", "finish"] = "auto"
    """Streams when the process stops: ``"end"``: they end at once; ``"finish"``: they continue to their own end for up
    to ``drain_timeout``. ``"auto"``: those whose client can't resume (see ``resumable``) finish, unless SIGINT or
    SIGQUIT stop the process, and the others end."""

    drain_timeout: float = 20.0
    """Seconds that streams have to finish, counted from the signal that stops the process. Under gunicorn they end two
    seconds before its ``--graceful-timeout`` (30) at the latest, as it then kills the worker."""

    same_origin_only: bool = False
    """Answer 403 to pages of other origins, except ``cors_origins``. Without it another site's page can open streams
    with its visitor's cookies: it can't read them, but they count as the visitor's. Clients other than browsers are
    not refused."""

    cors_origins: tuple[str, ...] = ()
    """Origins (``"https://app.example"``) whose pages may read the streams; ``("*",)``: all, without cookies. Error
    answers carry the headers too. Empty: no CORS headers, which leaves them to flask-cors or django-cors-headers."""

    cors_credentials: bool = False
    """Allow the pages of ``cors_origins`` to open streams with cookies (``withCredentials``)."""

    release_db: Literal["step", "start"] | None = "step"
    """When the integrations release database connections that no atomic block holds (Django's, Flask-SQLAlchemy's
    session): before the first byte and after each of the producer's writes; ``"start"``, only before the first byte,
    for producers that iterate over an open cursor (``QuerySet.iterator()``); ``None``, only when the producer has
    ended."""

    def __post_init__(self) -> None:
        check = functools.partial(check_number, most=_LONGEST)
        check("keep_alive", self.keep_alive, above=0, optional=True)
        self._check_keep_alive_event()
        check("retry", self.retry, least=0, whole=True, optional=True)
        check("padding", self.padding, least=0, whole=True)
        if self.first_event_timeout != "auto":
            check("first_event_timeout", self.first_event_timeout, least=0)
        check("max_pending_events", self.max_pending_events, least=1, whole=True)
        check("max_pending_bytes", self.max_pending_bytes, least=1, whole=True)
        check("send_timeout", self.send_timeout, above=0, optional=True)
        check("max_lifetime", self.max_lifetime, above=0, optional=True)
        if self.max_streams != "auto":
            check("max_streams", self.max_streams, least=1, whole=True, optional=True)
        if self.max_detached != "auto":
            if self.max_detached == 0:
                raise SettingsError("max_detached takes 1 or more, got 0; use detach=False to detach none")
            check("max_detached", self.max_detached, least=1, whole=True, optional=True)
        if self.max_producers != "auto":
            check("max_producers", self.max_producers, least=1, whole=True, optional=True)
        check("max_request_body", self.max_request_body, least=0, whole=True)
        check("max_streams_per_key", self.max_streams_per_key, least=1, whole=True, optional=True)
        check("drain_timeout", self.drain_timeout, least=0)
        self._check_origins()
        for name in ("threaded", "sense_disconnect", "half_close_is_gone", "same_origin_only", "cors_credentials"):
            check_choice(name, getattr(self, name), True, False)
        check_choice("detach", self.detach, True, False, "auto")
        check_choice("release_db", self.release_db, "step", "start", None)
        check_choice("refusal", self.refusal, "auto", "503")
        check_choice("drain", self.drain, "auto", "end", "finish")
        check_choice("resumable", self.resumable, True, False, "auto")
        made = self.error_event
        if isinstance(made, Event):
            if made.data is None:
                raise SettingsError("error_event: without data no client dispatches an event, so give it some")
        elif made is not None and not callable(made):
            raise SettingsError(f"error_event takes an Event, a function that returns one or None, got {excerpt(made)}")

    def _check_keep_alive_event(self) -> None:
        if (event_type := self.keep_alive_event) is None:
            return
        if event_type in ("", "message", "open", "error"):
            # A page's handlers of events without a type, and of the connection, would be called.
            raise SettingsError(f"keep_alive_event takes a type of its own, as 'ping', got {excerpt(event_type)}")
        try:
            Event(type=event_type)
        except (EventError, TypeError) as error:
            raise SettingsError(f"keep_alive_event takes an event's type or None: {error}") from error

    def _check_origins(self) -> None:
        origins = self.cors_origins
        if isinstance(origins, (str, bytes)) or not isinstance(origins, (list, tuple, set, frozenset)):
            raise SettingsError(f"cors_origins takes a list of origins, got {excerpt(origins)}")
        # The instance is frozen, and a list in it would not be.
        object.__setattr__(self, "cors_origins", tuple(origins))
        if "*" in origins and (self.cors_credentials or len(origins) > 1):
            raise SettingsError("cors_origins: '*' stands alone, and never with cors_credentials: name the origins")
        for origin in origins:
            if origin != "*" and not (isinstance(origin, str) and _ORIGIN.fullmatch(origin)):
                raise SettingsError(
                    f"cors_origins takes origins as browsers send them, 'https://host' or 'https://host:port' in "
                    f"small letters and without a path, got {excerpt(origin)}"
                )

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any]) -> Settings:
        """Settings from names and values; names in any case, as Django's are written in capitals.

        :raises SettingsError: a name that is no option (the nearest one is named), or a value that can't work.
        """
        return cls().replace(**options)

    @classmethod
    def check_keys(cls, keys: Iterable[str]) -> None:
        """Check the keys of an application's configuration: no key but ``SSESYNC``, ``SSESYNC_BROKER`` and
        ``SSESYNC_KEEPER`` may have this library's prefix ``SSESYNC_``. ``SSESYNC_KEEP_ALIVE`` is such a mistake.

        :param keys: the keys.
        :raises SettingsError: there is such a key; the message names the nearest valid one.
        """
        for key in sorted(key for key in keys if isinstance(key, str) and key.startswith("SSESYNC_")):
            if key in _KEYS:
                continue
            option = key.removeprefix("SSESYNC_").lower()
            if near := nearest(option, cls.__dataclass_fields__, cutoff=0.8):
                raise SettingsError(f"unknown key {key}: options go into the mapping SSESYNC, as {near!r}")
            raise SettingsError(f"unknown key {key}: {suggest(key, _KEYS)}")

    def replace(self, **options: Unpack[SettingsOptions]) -> Settings:
        """These settings with some of them changed. Names and errors are as for :meth:`from_mapping`."""
        if not options:
            return self
        known = [field.name for field in dataclasses.fields(self)]
        changes: dict[str, Any] = {}
        for name, value in options.items():
            if name.lower() not in known:
                if name in _STREAM_OPTIONS:
                    raise UnknownOption(f"{name} is no setting: give it to a view, a response or an EventStream")
                key = f"SSESYNC_{name.upper()}"
                hint = f"its key is {key}" if key in _KEYS else suggest(name.lower(), known, _STREAM_OPTIONS)
                raise UnknownOption(f"unknown option {name!r}: {hint}")
            changes[name.lower()] = value
        return dataclasses.replace(self, **changes)


class QueueOptions(TypedDict, total=False):
    """The settings that limit a queue, which are those of a policy too."""

    max_pending_events: int
    max_pending_bytes: int


class SettingsOptions(QueueOptions, total=False):
    """The options of :class:`Settings`, for type checkers."""

    keep_alive: float | None
    keep_alive_event: str | None
    retry: int | None
    padding: int
    first_event_timeout: float | Literal["auto"]
    threaded: bool
    sense_disconnect: bool
    half_close_is_gone: bool
    send_timeout: float | None
    max_lifetime: float | None
    max_streams: int | Literal["auto"] | None
    detach: bool | Literal["auto"]
    max_detached: int | Literal["auto"] | None
    max_producers: int | Literal["auto"] | None
    max_request_body: int
    max_streams_per_key: int | None
    refusal: Literal["auto", "503"]
    resumable: bool | Literal["auto"]
    error_event: Event | Callable[[BaseException], Event] | None
    drain: Literal["auto", "end", "finish"]
    drain_timeout: float
    same_origin_only: bool
    cors_origins: tuple[str, ...] | list[str] | set[str] | frozenset[str]
    cors_credentials: bool
    release_db: Literal["step", "start"] | None


#: The default settings. One object for all, as making one takes some 15 µs.
DEFAULTS = Settings()
