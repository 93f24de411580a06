"""Relays that send their request after the client was detached: a helper thread connects and sends the request, the
reactor waits for the head of the upstream's response, and the client's own head is held until then.

So a view that relays returns at once: if its thread waited for an upstream that takes a second to respond, four threads
would start four relays in a second. An upstream's refusal still reaches the client, with its status: the held head,
which the server and the middleware have written, is sent with another status and without the stream's own headers.
"""

from __future__ import annotations

import enum
import logging
import os
import time
from collections.abc import Callable, Sequence

from ..errors import CloseReason, IdleTimeout
from ..executor import Executor
from ..producing import Exchange, Refusal, Tap
from ..server.detaching import Handover, Record
from ..server.ending import Ending
from ..server.source import Tappable
from ..text import escape
from ..wire.http import missing_from
from .connections import Connections, connections
from .feed import Feed, feed
from .group import Group
from .relaying import Relay, Relays
from .state import OVER, State

__all__ = ["RequestingRelay", "extended", "relay", "rewritten"]

logger = logging.getLogger("ssesync")

# Threads that connect and send requests. A request takes one of them for a round trip or two, or until the timeout if
# the upstream can't be reached.
_CONNECTORS = 32
_TEXT = [("Content-Type", "text/plain; charset=utf-8")]
_connectors: list[Executor] = []


def rewritten(head: bytes, answer: Refusal, names: tuple[str, ...]) -> bytes:
    """Make another response from the head of a stream.

    :param head: the bytes that the server has written: the head, and the stream's opening after it.
    :param answer: the response.
    :param names: the names of the stream's own headers.
    :return: the response. The connection ends with it, as the stream's would.
    """
    status, *lines = head.partition(b"\r\n\r\n")[0].split(b"\r\n")
    dropped = {name.lower().encode("latin-1") for name in names} | {b"transfer-encoding", b"content-length"}
    kept = [line for line in lines if line.partition(b":")[0].lower() not in dropped]
    own = [f"{name}: {value}".encode("latin-1", "replace") for name, value in answer.headers]
    bodiless = answer.status[:3] in ("204", "304")
    size = [] if bodiless else [b"Content-Length: %d" % len(answer.body)]
    first = status.partition(b" ")[0] + b" " + answer.status.encode("latin-1", "replace")
    return b"\r\n".join([first, *kept, *own, *size, b"", b"" if bodiless else answer.body])


def extended(head: bytes, headers: Sequence[tuple[str, str]]) -> bytes:
    """Add headers to the head of a stream.

    :param head: the bytes that the server has written: the head, and the stream's opening after it.
    :param headers: the headers; those whose names are in the head are left out.
    :return: the bytes with the headers.
    """
    lines, end, opening = head.partition(b"\r\n\r\n")
    present = [(line.partition(b":")[0].decode("latin-1"), "") for line in lines.split(b"\r\n")[1:]]
    added = [f"\r\n{name}: {value}".encode("latin-1", "replace") for name, value in missing_from(present, headers)]
    return b"".join((lines, *added, end, opening))


class Phase(enum.Enum):
    """The phase of the request to the upstream. The next phase or the last one may follow each."""

    SENDING = "sending"
    """A helper thread connects and sends the request."""
    AWAITING = "awaiting"
    """The reactor waits for the upstream's answer."""
    RECEIVING = "receiving"
    """A helper thread reads the answer's head."""
    OPEN = "open"
    """The client was sent a head."""


class RequestingRelay(Relay):
    """One client whose request was not sent to the upstream yet.

    :param producer: the source of the stream, which was opened and not started.
    :param exchange: the request.
    """

    __slots__ = ("_exchange", "_head", "_is_other_answer", "_phase", "_producer")

    def __init__(
        self,
        connections: Connections,
        handover: Handover,
        group: Group,
        record: Record,
        producer: Tappable,
        exchange: Exchange,
        ending: Ending,
    ) -> None:
        super().__init__(connections, handover, group, record, None, ending, producer)
        self._idle_timeout = exchange.idle_timeout
        self._producer: Tappable | None = producer  # until the phase is OPEN, as the next two
        self._exchange: Exchange | None = exchange
        self._head = handover.head
        self._phase = Phase.SENDING
        self._is_other_answer = False

    def begin(self, head: bytes) -> None:
        """See :class:`Feed`. The head is held."""
        self._connections.register(self, b"")
        if self.state is State.OPENING:
            self.group.move(self, State.IN_SYNC)
            exchange = self._exchange
            assert exchange is not None
            if self._source.reason is None:
                self._run_on_helper(lambda: self._send(exchange))
            else:
                self.flush()

    # Helper threads.

    def _send(self, exchange: Exchange) -> None:
        fd, failure = -1, None
        try:
            fd = exchange.send()
        except Exception as error:
            failure = error
        self._connections.call_soon(lambda: self._sent(exchange, fd, failure))

    def _receive(self, producer: Tappable) -> None:
        answer, tap, failure = None, None, None
        try:
            answer = producer.relay.answered()
            tap = None if answer is not None else producer.tap()
        except Exception as error:
            failure = error
        self._connections.call_soon(lambda: self._received(producer, answer, tap, failure))

    # The reactor's thread.

    def _run_on_helper(self, call: Callable[[], object]) -> None:
        if not _connectors:
            _connectors.append(Executor(_CONNECTORS, "ssesync-connector"))
        _connectors[0].submit(call)

    def _sent(self, exchange: Exchange, fd: int, failure: Exception | None) -> None:
        if self._phase is not Phase.SENDING or self.state in OVER:
            self._run_on_helper(exchange.discard)
        elif failure is not None:
            self._refuse(failure)
        elif fd < 0:
            self._begin_to_receive()
        else:
            self._phase = Phase.AWAITING
            self._fd, self._last_read = fd, time.monotonic()
            self._resume()

    def on_readable(self) -> None:
        """See :class:`Relay`. The first bytes are the upstream's answer."""
        if self._phase is Phase.AWAITING:
            self._pause()
            self._begin_to_receive()
        else:
            super().on_readable()

    def _begin_to_receive(self) -> None:
        producer = self._producer
        assert producer is not None
        self._phase = Phase.RECEIVING
        self._run_on_helper(lambda: self._receive(producer))

    def _received(self, producer: Tappable, answer: Refusal | None, tap: Tap | None, failure: Exception | None) -> None:
        if self._phase is not Phase.RECEIVING or self.state in OVER:
            if tap is not None:
                tap.close()
            self.run_in_executor(producer.relay.close)
        elif failure is not None:
            self._refuse(failure)
        elif answer is not None:
            self._answer(answer)
        else:
            if producer.passed_headers:
                self._head = extended(self._head, producer.passed_headers)
            if tap is not None:
                self._use(tap)
                if (reason := producer.reason) is not None:
                    self._source.stop(reason)
            self._open()

    def _open(self) -> None:
        """Send the stream's head, and then the upstream's bytes."""
        head = self._release_head()
        if not self.put(head):
            self._wait()
        self.flush()

    def _release_head(self) -> bytes:
        """End the request: the caller sends the client a head now.

        :return: the held head.
        """
        head, self._head = self._head, b""
        self._phase = Phase.OPEN
        self._exchange = self._producer = None
        return head

    def _refuse(self, error: Exception) -> None:
        """Answer that the upstream has not answered."""
        status = "504 Gateway Timeout" if isinstance(error, TimeoutError) else "502 Bad Gateway"
        self.run_in_executor(
            lambda: logger.error(
                "the upstream of the event stream %s did not answer, and its client gets %s: %s",
                escape(self.name), escape(status), escape(error),
            )
        )  # fmt: skip
        self._answer(Refusal(status, _TEXT, b"the upstream did not answer\n"))

    def _answer(self, answer: Refusal) -> None:
        """Send another response in place of the stream."""
        producer = self._producer
        names = () if producer is None else producer.headers
        wire = rewritten(self._release_head(), answer, names)
        self._is_other_answer = self._has_ended = True
        self.put(wire)
        if not self.closed:
            self._finish(CloseReason.DONE, b"")

    def _framed(self, last: bytes, reason: CloseReason) -> bytes:
        # Another response has its length.
        return b"" if self._is_other_answer else super()._framed(last, reason)

    def flush(self) -> None:
        """See :class:`Feed`."""
        if self._phase is Phase.OPEN:
            super().flush()
            return
        self._woken = False
        if self.state is State.IN_SYNC and self._source.reason is not None:  # the stream was ended meanwhile
            self._abandon_upstream()
            self._open()

    def send_keep_alive(self) -> None:
        """See :class:`Feed`. Not before the head."""
        if self._phase is Phase.OPEN:
            super().send_keep_alive()

    def check_idle(self, now: float) -> None:
        """See :class:`Relay`."""
        if self._phase is Phase.OPEN:
            super().check_idle(now)
        elif self._phase is Phase.AWAITING and self._is_idle(now):
            self._abandon_upstream()
            self._refuse(IdleTimeout("no byte arrived within the read timeout"))

    def release(self) -> None:
        """See :class:`Feed`."""
        self._abandon_upstream()
        super().release()

    def _abandon_upstream(self) -> None:
        """End the request. A helper thread that works on it discards its result."""
        if (exchange := self._exchange) is None:
            return
        self._pause()
        exchange.close()
        if self._phase is Phase.AWAITING:
            self._run_on_helper(exchange.discard)


def relay(source: Tappable, handover: Handover, record: Record, ending: Ending) -> Feed:
    """See :func:`ssesync.server.detaching.feed`. For a source with an upstream."""
    current = connections()  # before the source is used, as it may raise
    group = current.shared_group(Relays)
    client: Feed
    if (exchange := source.relay.exchange) is not None:
        client = RequestingRelay(current, handover, group, record, source, exchange, ending)
    elif (tap := source.tap()) is not None:
        client = Relay(current, handover, group, record, tap, ending, source)
    else:
        return feed(source, handover, record, ending)
    source.relay.detached(lambda: client.stop(CloseReason.DONE))
    record.began(client)
    current.call_soon(lambda: client.begin(handover.head))
    return client


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_connectors.clear)
