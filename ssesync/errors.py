"""Every error of this library, and the reasons why a stream ends.

::

    SSEError
    ├── EventError (ValueError)        a field that no event stream can carry
    ├── EventTooLarge                  the decoder's limit was passed
    ├── SettingsError (ValueError)     an option whose value can't work
    │   └── UnknownOption (TypeError)  an option that does not exist
    ├── StreamClosed                   writing to a stream that has ended, with the reason
    ├── BrokerError                    publishing or subscribing failed
    │   ├── ChannelError (ValueError)  a name that no channel can have
    │   ├── ChannelClosed              the channel has had its final event: nothing more can be published to it
    │   ├── RunConflict                a run of this name was started with something else
    │   ├── RunUnknown                 there is no such run, or it is another subject's
    │   ├── RunRefused                 no more runs may be started now
    │   ├── BrokerUnavailable (ConnectionError)  the log can't be reached, or accepts no more; a later try may work
    │   ├── BrokerDamaged              the log is deleted, corrupt or another program's; no later try will work
    │   ├── BrokerBusy                 a signal handler has interrupted this thread inside a broker
    │   └── BrokerClosed               the broker was closed
    ├── TicketRefused                  a ticket is forged, used or expired
    └── ReadError                      reading a stream failed
        ├── ResponseError              the answer is not an event stream; keeps the response
        │   ├── StatusError            ... because of its status
        │   ├── ContentTypeError       ... because of its media type
        │   └── ContentEncodingError   ... because its body can't be decoded here
        ├── ConnectFailed (ConnectionError)  no answer came to the request
        ├── IdleTimeout (TimeoutError)       not one byte, or not one event, for too long
        ├── ConnectionLost (ConnectionError) the connection broke in the middle
        ├── StreamEnded                the server ended the stream; an EventSource reconnects
        ├── RetriesExhausted           an EventSource has reached the limits of its Backoff
        └── IncompleteStream           the stream ended before the event that should end it

Wrong types raise the built-in ``TypeError``.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .event import ReceivedEvent

__all__ = [
    "BrokerBusy",
    "BrokerClosed",
    "BrokerDamaged",
    "BrokerError",
    "BrokerUnavailable",
    "ChannelClosed",
    "ChannelError",
    "CloseReason",
    "ConnectFailed",
    "ConnectionLost",
    "ContentEncodingError",
    "ContentTypeError",
    "EventError",
    "EventTooLarge",
    "IdleTimeout",
    "IncompleteStream",
    "ReadError",
    "ResponseError",
    "RetriesExhausted",
    "RunConflict",
    "RunRefused",
    "RunUnknown",
    "SSEError",
    "SettingsError",
    "StatusError",
    "StreamClosed",
    "StreamEnded",
    "TicketRefused",
    "UnknownOption",
]


class CloseReason(str, Enum):
    """Why a stream ended. Each member equals its own name as a string: ``reason == "client_gone"``."""

    DONE = "done"
    """The producer came to its end, or called ``close()`` or ``finish()``, and nothing of the stream was dropped."""
    CLIENT_GONE = "client_gone"
    """The client left: its connection is closed or broken."""
    STALLED = "stalled"
    """The client did not read for longer than ``send_timeout``."""
    OVERFLOW = "overflow"
    """A subscriber was too slow: its queue was full, or the log has dropped its next events."""
    LIFETIME = "lifetime"
    """The stream reached its longest lifetime; the client is expected to reconnect."""
    REVOKED = "revoked"
    """The permission to read the stream was revoked."""
    SHUTDOWN = "shutdown"
    """The process is stopping."""
    CANCELLED = "cancelled"
    """``cancel()`` was called, or the stream was dropped without being served."""
    ERROR = "error"
    """The producer raised."""
    TRANSFERRED = "transferred"
    """Another process serves the client now: the stream continues there, and its client notices nothing."""

    def __str__(self) -> str:
        return self.value


def excerpt(value: object, limit: int = 60) -> str:
    """``repr(value)``, cut to about ``limit`` characters so that an error message stays readable."""
    if isinstance(value, (str, bytes)) and len(value) > limit:
        return f"{value[:limit]!r}… ({len(value):,} in all)"
    try:
        text = repr(value)
    except Exception:  # an int of thousands of digits has none
        text = object.__repr__(value)
    return text if len(text) <= limit + 20 else f"{text[:limit]}…"


class SSEError(Exception):
    """The base of all errors of this library, never raised itself. All can be pickled and copied."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args), self.__dict__


def _rebuild(cls: type[SSEError], args: tuple[Any, ...]) -> SSEError:
    # Not through __init__, whose arguments differ from those of Exception.
    return cls.__new__(cls, *args)


class EventError(SSEError, ValueError):
    """A field's value can't be written to, or read from, an event stream.

    ``field`` is the field's name (``"data"``, ``"id"``, …) and ``value`` the given value.
    """

    def __init__(self, field: str, value: object, why: str) -> None:
        super().__init__(f"event field {field!r} {why}, got {excerpt(value)}")
        self.field = field
        self.value = value


class EventTooLarge(SSEError):
    """An event is larger than the decoder may hold. ``size`` and ``limit`` are in bytes.

    ``size`` is the number of bytes that had arrived when the limit was passed; the whole event may be larger.
    ``events`` are the events that the same chunk completed before it, so that none of them is lost.
    """

    def __init__(self, size: int, limit: int, events: list[ReceivedEvent] | None = None) -> None:
        super().__init__(
            f"an event of at least {size:,} bytes passes max_event_size={limit:,}; "
            "raise max_event_size if events of this size are expected"
        )
        self.size = size
        self.limit = limit
        self.events = events or []


class SettingsError(SSEError, ValueError):
    """A setting is unknown, or its value can't work. The message names both and the remedy."""


class UnknownOption(SettingsError, TypeError):
    """An option does not exist. The message names the most similar one.

    A ``TypeError``, as for each unknown parameter; and a :class:`SettingsError`, as a setting may be in a file.
    """


class StreamClosed(SSEError):
    """The stream has ended: nothing that is written to it reaches the client.

    ``reason`` is a :class:`CloseReason`. Let the exception end the producer; there is no need to catch it.
    """

    def __init__(self, reason: CloseReason | str) -> None:
        self.reason = CloseReason(reason)
        super().__init__(f"the stream is closed: {self.reason}")


class BrokerError(SSEError):
    """Publishing or subscribing failed. The cause, where there is one, is chained."""


class ChannelError(BrokerError, ValueError):
    """A name that no channel, or no pattern of channels, can have."""


class ChannelClosed(BrokerError):
    """The channel has had its final event, so nothing more can be published to it. Or it is the channel of a run, to
    which only the run's producer writes."""


class RunConflict(BrokerError):
    """There is a run of this name and of the same subject, which was started with another ``fingerprint``: 409."""


class RunUnknown(BrokerError, LookupError):
    """There is no run of this name, or its time to be retained is over, or it is another subject's: 404 in each case,
    so that clients can't find out which names exist."""


class RunRefused(BrokerError):
    """No more runs may be started now: by this subject, or in this process. A later try may work."""


class BrokerUnavailable(BrokerError, ConnectionError):
    """The log can't be reached or accepts no more: a server that is down, a full disk, a lock held for too long.

    A later try may work. An event whose publishing raised this was not published. Only if the connection to a server
    broke after the event was sent, it is unknown whether it was.
    """


class BrokerDamaged(BrokerError):
    """The log can't be used: its file was deleted, is corrupt, or is not a log of this library."""


class BrokerBusy(BrokerError):
    """A signal handler, or a destructor, has called a broker while the code that it interrupted is inside a broker.
    Nothing was done.

    Let the handler set a flag or put into a ``queue.SimpleQueue``, and call the broker from the program's own loop, or
    from another thread. ``close()``, ``cancel()`` and ``stop()`` never raise it.
    """


class BrokerClosed(BrokerError):
    """The broker was closed: it neither publishes nor subscribes any more."""


class TicketRefused(SSEError):
    """A ticket is missing, forged, used or expired; the message names the cause, without the ticket's contents."""


class ReadError(SSEError):
    """Reading an event stream failed. The cause, where there is one, is chained."""


class ResponseError(ReadError):
    """The answer to a request is not an event stream.

    ``response`` is that answer (closed); ``body`` holds the first 64 kB of its body at most.
    """

    def __init__(self, message: str, response: Any, body: bytes) -> None:
        super().__init__(message)
        self.response = response
        self.body = body


class StatusError(ResponseError):
    """The answer's status is not 200."""


class ContentTypeError(ResponseError):
    """The answer's media type is not ``text/event-stream``."""


class ContentEncodingError(ResponseError):
    """The answer's body is encoded in a way that can't be decoded here; the message names the coding and the remedy.

    ``body`` is empty. Values of ``Content-Encoding`` that are no codings (``none``, ``UTF-8``) are ignored.
    """


class IdleTimeout(ReadError, TimeoutError):
    """Not one byte, comments included, arrived within ``idle_timeout``, or not one event within ``event_timeout``."""


class ConnectionLost(ReadError, ConnectionError):
    """The connection broke before the stream's end."""


class IncompleteStream(ReadError):
    """The stream ended before the event that ``until`` waits for."""


class ConnectFailed(ReadError, ConnectionError):
    """No response arrived: no such name, connection refused, invalid TLS, a timeout. The cause is chained."""


class StreamEnded(ReadError):
    """The server ended the stream in order. An :class:`EventSource` reconnects."""


class RetriesExhausted(ReadError):
    """The limits of a ``Backoff`` are reached.

    ``attempts`` is the number of consecutive reconnections, ``last_error`` the error of the last one.
    """

    def __init__(self, attempts: int, elapsed: float, last_error: Exception) -> None:
        super().__init__(f"gave up after {attempts} reconnections within {elapsed:.0f} s; the last error: {last_error}")
        self.attempts = attempts
        self.last_error = last_error
