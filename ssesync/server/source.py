"""The contract between the source of a stream's bytes and their consumer.

A :class:`Source` makes the bytes: a producer's thread, a producer that runs step by step, a caller's ``Writer``, a
subscription to channels. A *consumer* sends them: the WSGI server's thread, or the reactor of this process for a
detached client. A test may be a consumer, too. The consumer pulls and never waits in the source; the source calls
``on_ready`` when there may be bytes to pull again. So both serving modes send the same bytes.

Users have a :class:`Streamable`, which has a source.
"""

from __future__ import annotations

import abc
import math
import time
from collections.abc import Callable, Sequence
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
    """There are no bytes to send now."""

    again: float | None = None
    """Seconds after which to pull again without a call of ``on_ready``; ``None``: only after that call."""


@dataclass(frozen=True, slots=True)
class End:
    """The source has ended, for its ``reason``, and all its bytes were pulled."""


PENDING: Final = Pending()
END: Final = End()

#: The result of :meth:`Source.pull`.
Pulled = bytes | Pending | End


class Source(abc.ABC):
    """The source of one stream. One consumer at a time opens, pulls and closes it. Any thread and any signal handler
    may cancel it, stop it, and read its properties.
    """

    #: Called when :meth:`pull` may return more than before: from any thread and any signal handler, while no lock is
    #: held. It must not wait and must not pull. The consumer sets it before it opens the source.
    on_ready: Callable[[], object] | None = None
    #: The answer in place of a stream, if it is known before :meth:`open`.
    answer: Refusal | None = None
    #: The failure to be reported to the client, if any; ``reason`` is ``ERROR`` then.
    error: BaseException | None = None

    @property
    def passed_headers(self) -> Sequence[tuple[str, str]]:
        """Headers of an upstream's response that the answer gets too, once the source is open."""
        return ()

    def open(self, wait: float) -> Refusal | Overload | None:
        """Start, and wait up to ``wait`` seconds for the first write.

        :param wait: seconds.
        :return: an answer in place of the stream; ``None``: there is a stream.
        :raises Exception: the view has to raise it.
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
        """How many events the source has made; a subscription: has passed to this client."""

    @property
    @abc.abstractmethod
    def resumable(self) -> bool:
        """Whether the client was sent an event ID to resume from."""


class Detachable(Source):
    """A source whose client can be served by the reactor of this process."""

    @abc.abstractmethod
    def detach(self, handover: Handover, record: Record) -> Detached:
        """Hand the client over to the reactor. The consumer does not pull any more; a call that cancels or stops the
        source ends the connection.

        :param handover: the client.
        :param record: the account of the stream.
        :return: the connection that serves the client now.
        :raises Exception: it is not possible, and nothing has changed: the consumer continues.
        """

    def reserve(self, key: str, limit: int) -> bool:
        """Ask the process to which the client will be moved whether it allows one more stream of a key. Waits a
        fraction of a second at most. Called before :meth:`open`.

        :param key: the key.
        :param limit: the number of streams that it may have.
        :return: whether the stream is allowed; true as well if there is no such process, or if it does not answer.
        """
        return True


class Tappable(Source):
    """A source that reads an upstream, whose connection the reactor can read as well."""

    @abc.abstractmethod
    def postpone(self) -> None:
        """Start no thread in :meth:`open`, if that is not necessary, but in the first :meth:`pull`: the client is about
        to be detached. Called before :meth:`open`."""

    @property
    @abc.abstractmethod
    def relay(self) -> Producing:
        """The relay that it runs."""

    @property
    @abc.abstractmethod
    def headers(self) -> tuple[str, ...]:
        """The names of the stream's own headers, which another answer does not have."""

    @abc.abstractmethod
    def tap(self) -> Tap | None:
        """Hand the upstream's connection over to the reactor. The consumer does not pull any more.

        :return: the connection; ``None``: a thread reads it already, and fills this source.
        :raises OSError: there are no more descriptors; nothing has changed.
        """


class Streamable(abc.ABC):
    """An object that users pass to an ``EventStream``, and that has a source."""

    @abc.abstractmethod
    def as_source(self) -> Source:
        """The source of this object's stream. For ``EventStream``.

        :return: the source. Only one may be opened.
        """


class Followable(Streamable):
    """A streamable object that makes a source for each client, which begins after the client's last event ID."""

    @abc.abstractmethod
    def follow(self, last_event_id: str | None = None) -> Streamable:
        """Make the stream of one client.

        :param last_event_id: the client's; ``None``: it has none.
        :return: an object whose source is opened once.
        """

    def as_source(self) -> Source:
        """See :class:`Streamable`: the source of a client that begins at the start."""
        return self.follow().as_source()


class BlockingPull:
    """The consumer for a thread that may wait: the server's.

    :param source: its ``on_ready`` is set here.
    """

    __slots__ = ("_signal", "_source")

    def __init__(self, source: Source) -> None:
        self._source = source
        self._signal = _Signal()
        source.on_ready = self._signal.set

    def pull(self, most: int, timeout: float | None) -> Pulled:
        """Pull, and wait while there are no bytes to send.

        :param most: see :meth:`Source.pull`.
        :param timeout: seconds to wait at most; ``None``: without end.
        :return: the result of the last pull; :class:`Pending` after the timeout.
        """
        signal, deadline = self._signal, None
        while True:
            signal.is_set = False  # before the pull: a call of on_ready after it sets this again
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
    """Set by the source's ``on_ready``. It has no reference to the source, so that the two are not a cycle for the
    garbage collector."""

    __slots__ = ("_waiters", "is_set")

    def __init__(self) -> None:
        self._waiters = Waiters()
        self.is_set = False

    def set(self) -> None:
        self.is_set = True
        self._waiters.wake()

    def wait(self, timeout: float | None) -> None:
        self._waiters.wait(self._check, timeout)

    def _check(self) -> bool:
        return self.is_set
