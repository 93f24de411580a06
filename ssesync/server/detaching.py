"""The contract by which a stream leaves the WSGI server.

Once the head of its response is sent, a stream may continue without the server's thread. A :class:`Detacher` takes the
client's connection from the server. It is not part of ``server``: the package registers it when it is imported. Without
a detacher, the server serves each stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..errors import CloseReason
from ..settings import Settings
from .stats import StreamStats

if TYPE_CHECKING:
    from .ending import Ending
    from .source import Source

__all__ = [
    "Detached",
    "Detacher",
    "Handover",
    "Head",
    "Record",
    "Served",
    "Takeover",
    "feed",
    "last_answer_of",
    "register_detacher",
    "takeover_of",
]


class Head(NamedTuple):
    """The beginning of a response, as it is sent to the client."""

    wire: bytes
    """Head and opening as the server wrote them, but with ``Connection: close``."""
    chunked: bool
    """Whether the body has the chunked transfer coding."""


@dataclass(slots=True)
class Handover:
    """A client that leaves its server: plain values, without a reference to the stream."""

    fd: int
    """The client's socket. The owner of this object owns it."""
    chunked: bool
    """Whether the response has the chunked transfer coding (RFC 9112, section 7.1), or ends with the connection."""
    head: bytes = field(repr=False)  # it has cookies
    """The bytes to be sent first: status line, headers, opening."""
    name: str
    """The stream's name in log lines."""
    settings: Settings
    began: float
    """When the stream was made, on the monotonic clock."""
    given: int
    """Bytes of the stream that are in ``head``."""
    orderly: bool = True
    """Whether the client can resume, so that its response may end as a complete one does."""


class Served(Protocol):
    """A stream that a server serves: the part that the registry and a drain use."""

    @property
    def name(self) -> str:
        """The stream's name in log lines."""
        ...

    @property
    def settings(self) -> Settings:
        """The stream's settings."""
        ...

    @property
    def reason(self) -> CloseReason | None:
        """Why the stream ended or is ending, ``None`` while it is not."""
        ...

    @property
    def finishes(self) -> bool:
        """Whether it continues to its own end, for a limited time, when the process stops."""
        ...

    @property
    def stats(self) -> StreamStats:
        """Its figures so far."""
        ...

    def stop(self, reason: CloseReason | str, last: bytes = b"") -> None:
        """End after all pending writes."""

    def describe(self) -> dict[str, Any]:
        """Its part of ``streams.snapshot()``."""
        ...


class Detached(Served, Protocol):
    """A stream that has left its server. Any thread may use it."""

    def at_end(self, call: Callable[[], object]) -> bool:
        """Call a function at the stream's end, if a producer still runs that may need objects of its request.

        :param call: the function.
        :return: whether it will be called.
        """
        ...

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        ...

    def cancel(self, reason: CloseReason | str = CloseReason.CANCELLED) -> None:
        """End at once: pending bytes are dropped."""

    def stop(self, reason: CloseReason | str = CloseReason.SHUTDOWN, last: bytes = b"") -> None:
        """End after all pending bytes, then ``last``, then a reconnection time, or an error event if the client can't
        resume."""


class Record(Protocol):
    """The process's record of a detached stream."""

    @property
    def key(self) -> str:
        """The stream's key, for ``max_streams_per_key``."""
        ...

    @property
    def is_bound(self) -> bool:
        """Whether the stream has to end in this process, which is to call functions at its end."""
        ...

    @property
    def is_movable(self) -> bool:
        """Whether nothing in this process depends on the stream, so that another one can serve it."""
        ...

    def began(self, connection: Detached) -> object:
        """Called before the reactor serves the connection, on the server's thread."""

    def at_end(self, call: Callable[[], object]) -> None:
        """Call a function when the stream has ended and its ``on_close`` has returned; at once, if that is over. Any
        thread."""

    def ended(self, connection: Detached, reason: CloseReason, stats: StreamStats) -> object:
        """Called when the connection has ended, on the reactor's thread: this must not wait."""


class Takeover(Protocol):
    """Takes one connection from its server. All but :meth:`tick` on the server's thread: :meth:`begin`, then
    :meth:`complete` or :meth:`undo`, and always :meth:`close`."""

    why: str
    """Why the connection could not be taken, for the log. If this is set before :meth:`begin`, that returns false."""
    is_short: bool
    """Whether the cause is that the process has no descriptor left."""

    def begin(self) -> bool:
        """From now on capture the bytes that the server writes.

        :return: whether that is possible.
        """
        ...

    def complete(self, give: Callable[[int, Head], object]) -> bool:
        """Take the connection from the server.

        :param give: called with the client's descriptor, which it then owns, and with the head to be sent first.
        :return: whether that was possible. If not, the connection is the server's again.
        """
        ...

    def undo(self) -> None:
        """Return the connection to the server, and send the client the captured bytes."""

    def close(self) -> None:
        """Release all, at the end of the server's response. Any number of times."""

    def tick(self, now: float) -> None:
        """Read captured bytes, so that the server can continue to write, and cut an abandoned connection. On the
        reactor's thread."""


class Detacher(Protocol):
    """Takes streams away from their servers."""

    def takeover_of(self, environ: Mapping[str, Any], settings: Settings, opening: bytes) -> Takeover | None:
        """See :func:`takeover_of`."""
        ...

    def last_answer_of(self, environ: Mapping[str, Any], settings: Settings, body: bytes) -> Takeover | None:
        """See :func:`last_answer_of`."""
        ...

    def feed(self, source: Source, handover: Handover, record: Record, ending: Ending) -> Detached:
        """See :func:`feed`."""
        ...


_detachers: list[Detacher] = []


def register_detacher(detacher: Detacher) -> None:
    """Register the detacher of this process, in place of the previous one."""
    _detachers[:] = [detacher]


def takeover_of(environ: Mapping[str, Any], settings: Settings, opening: bytes) -> Takeover | None:
    """Make an object that takes the connection of a request from its server.

    :param environ: the WSGI environ of the request.
    :param settings: the stream's.
    :param opening: the stream's first bytes.
    :return: the object; ``None`` if that is not possible or not wanted.
    """
    return _detachers[0].takeover_of(environ, settings, opening) if _detachers else None


def last_answer_of(environ: Mapping[str, Any], settings: Settings, body: bytes) -> Takeover | None:
    """Make an object that sends an answer in the server's place and ends the connection at once.

    :param environ: the WSGI environ of the request.
    :param settings: the stream's.
    :param body: the answer's.
    :return: the object; ``None`` if that is not possible or not wanted.
    """
    return _detachers[0].last_answer_of(environ, settings, body) if _detachers else None


def feed(source: Source, handover: Handover, record: Record, ending: Ending) -> Detached:
    """From now on serve a client without a thread of the server, from a source of its own.

    :param source: the stream's, which is open. The reactor pulls it, and closes it at the stream's end.
    :param handover: the client.
    :param record: the account of the stream.
    :param ending: makes the last bytes.
    :return: the connection that serves the client now.
    :raises OSError: there are no more descriptors. Then nothing has changed.
    :raises RuntimeError: no more threads can be started, or no detacher is registered.
    """
    if not _detachers:
        raise RuntimeError("there is no detacher")
    return _detachers[0].feed(source, handover, record, ending)
