"""The contract between what makes a stream's bytes and what sends them.

A :class:`Source` makes them: a producer's thread, a producer that runs step by step, a caller's ``Writer``, a
subscription to channels. A *consumer* sends them: the WSGI server's thread, or the reactor of this process for a
detached client. A test may be a consumer, too. The consumer pulls and never waits in the source; the source calls
``on_ready`` when there may be something to pull again. So both serving modes send the same bytes.

Users hold a :class:`Streamable`, which gives its source.
"""

from __future__ import annotations

import abc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from ..errors import CloseReason
from ..locks import Waiters
from ..producing import Producing, Refusal, Tap

if TYPE_CHECKING:
    from .detaching import Detached, Handover, Record

__all__ = [
    "END",
    "PENDING",
    "BlockingPull",
    "Detachable",
    "End",
    "Followable",
    "Overload",
    "Pending",
    "Pulled",
    "Refusal",
    "Source",
    "Streamable",
    "Tappable",
]


class Overload(NamedTuple):
    """An answer to a client that can't be served now, as over a limit (see the setting ``refusal``)."""

    why: str
    """The text of a 503."""


@dataclass(frozen=True, slots=True)
class Pending:
    """There is nothing to send now."""

    again: float | None = None
    """Seconds after which to pull again without a call of ``on_ready``; ``None``: only after that call."""


@dataclass(frozen=True, slots=True)
class End:
    """The source has ended, for its ``reason``, and all was pulled."""


PENDING: Final = Pending()
END: Final = End()

#: What :meth:`Source.pull` returns.
Pulled = bytes | Pending | End


class Source(abc.ABC):
    """The source of one stream. One consumer at a time opens, pulls and closes it. Any thread and any signal handler
    may cancel it, stop it, and read its properties.
    """

    #: Called when :meth:`pull` may give more than before: from any thread and any signal handler, while no lock is
    #: held. It must not wait and must not pull. The consumer sets it before it opens the source.
    on_ready: Callable[[], object] | None = None
    #: The failure to be reported to the client, if any; ``reason`` is ``ERROR`` then.
    error: BaseException | None = None

    def open(self, wait: float) -> Refusal | Overload | None:
        """Start, and wait up to ``wait`` seconds for the first write.

        :param wait: seconds.
        :return: an answer in place of the stream; ``None``: there is a stream.
        :raises Exception: to be raised by the view.
        """
        return None

    @abc.abstractmethod
    def pull(self, most: int) -> Pulled:
        """Take pending writes. Never waits.

        :param most: about how many bytes. Writes are not divided: a larger one is returned alone.
        :return: the pending writes, joined, up to ``most`` bytes.
        """

    @abc.abstractmethod
    def cancel(self, reason: CloseReason | str, *, dropped: bool = False) -> None:
        """End at once, and drop pending writes. The first end counts, but ``DONE`` does not if something is dropped:
        the client would take a part of the stream for all of it.

        :param reason: why.
        :param dropped: whether the consumer drops some of what it has pulled.
        """

    @abc.abstractmethod
    def stop(self, reason: CloseReason | str, last: bytes = b"") -> None:
        """End after the pending writes, then ``last``. The first end counts."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release its resources. The consumer calls it when the stream has ended, after :meth:`open`."""

    def join(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds until no thread runs a producer for this source.

        :return: whether none does.
        """
        return True

    @property
    @abc.abstractmethod
    def reason(self) -> CloseReason | None:
        """Why the source has ended, ``None`` while it has not."""

    @property
    @abc.abstractmethod
    def pending(self) -> tuple[int, int]:
        """How many writes and bytes are pending."""

    @property
    @abc.abstractmethod
    def events(self) -> int:
        """How many events the source has made; a subscription: has given to this client."""

    @property
    @abc.abstractmethod
    def resumable(self) -> bool:
        """Whether the client was given an event ID to resume from."""


class Detachable(Source):
    """A source whose client can be served by the reactor of this process."""

    @abc.abstractmethod
    def detach(self, handover: Handover, record: Record) -> Detached:
        """Have the reactor serve the client from now on. Nothing is pulled from this source any more; what cancels or
        stops it ends the connection.

        :return: the connection that has the client now.
        :raises Exception: it can't be done, and nothing has happened: the consumer goes on.
        """


class Tappable(Source):
    """A source that reads an upstream, whose connection the reactor can read as well."""

    @abc.abstractmethod
    def postpone(self) -> None:
        """The client is about to be detached: :meth:`open` starts no thread, as far as that can be left out, and the
        first :meth:`pull` does. To be called before :meth:`open`."""

    @property
    @abc.abstractmethod
    def relay(self) -> Producing:
        """What it runs."""

    @property
    @abc.abstractmethod
    def headers(self) -> tuple[str, ...]:
        """The names of the stream's own headers, which another answer does not have."""

    @abc.abstractmethod
    def tap(self) -> Tap | None:
        """Give the upstream's connection to the reactor. Nothing is pulled from this source any more.

        :return: ``None``: a thread reads it already, and fills this source.
        :raises OSError: there are no more descriptors; nothing has happened.
        """


class Streamable(abc.ABC):
    """An object that users hold and give to an ``EventStream``, and that leads to a source."""

    @abc.abstractmethod
    def as_source(self) -> Source:
        """The source of this object's stream. For ``EventStream``.

        :return: the source. Only one may be opened.
        """


class Followable(Streamable):
    """A streamable object that gives each client a source of its own, which begins where that client wants it to."""

    @abc.abstractmethod
    def follow(self, last_event_id: str | None = None) -> Streamable:
        """Make what is sent to one client.

        :param last_event_id: what the client sent; ``None``: nothing.
        :return: an object whose source is opened once.
        """

    def as_source(self) -> Source:
        """See :class:`Streamable`: the source of a client that begins at the start."""
        return self.follow().as_source()


class BlockingPull:
    """The consumer for a thread that may wait: the one that serves the client.

    :param source: its ``on_ready`` is set here.
    """

    __slots__ = ("_signal", "_source")

    def __init__(self, source: Source) -> None:
        self._source = source
        self._signal = _Signal()
        source.on_ready = self._signal.give

    def pull(self, most: int, timeout: float | None) -> Pulled:
        """Pull, and wait while there is nothing to send.

        :param most: see :meth:`Source.pull`.
        :param timeout: seconds to wait at most; ``None``: without end.
        :return: what was pulled; :class:`Pending`: the time is over.
        """
        signal, deadline = self._signal, None
        while True:
            signal.given = False  # before the pull: a call of on_ready after it sets this again
            pulled = self._source.pull(most)
            if not isinstance(pulled, Pending):
                return pulled
            wait = pulled.again
            if timeout is not None:
                now = time.monotonic()
                deadline = now + timeout if deadline is None else deadline
                if now >= deadline:
                    return pulled
                wait = min(deadline - now, math.inf if wait is None else wait)
            signal.wait(wait)


class _Signal:
    """Has no reference to the source, so that the two are not a cycle for the garbage collector."""

    __slots__ = ("_waiters", "given")

    def __init__(self) -> None:
        self._waiters = Waiters()
        self.given = False

    def give(self) -> None:
        self.given = True
        self._waiters.wake()

    def wait(self, timeout: float | None) -> None:
        self._waiters.wait(self._is_given, timeout)

    def _is_given(self) -> bool:
        return self.given
