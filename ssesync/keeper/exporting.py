"""Passes detached clients of this process to another one.

The law of this file: a frozen client is released if the other process has acknowledged it, and thawed otherwise,
whatever fails. If no acknowledgement comes in time, the link is cancelled first: after that none can arrive, and one
that has arrived before counts. Then the *token* is set. It is an eventfd that goes with each batch, so the other
process can find out, also after this one has ended, that its clients were thawed, and must not serve them.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..channels.transfer import Frozen, Wanted
from ..detached.connections import connections
from ..detached.source import Position
from ..executor import logged
from ..locks import Once, Waiters
from .framing import Link, LinkError, LinkLost, MessageTooLarge
from .message import close_all

if TYPE_CHECKING:
    from ..channels.broker import Broker

__all__ = ["ANSWER_TIMEOUT", "Exporter", "Moved", "on_reactor"]

logger = logging.getLogger("ssesync")

#: Seconds in which a batch must be sent and acknowledged. Its clients are sent nothing meanwhile.
ANSWER_TIMEOUT = 2.0

# The limits of a batch: clients, and about how many unsent bytes. A client took 0.1 ms of processor time here and
# 0.15 ms in the other process, so the clients of a batch are frozen for some 25 ms. The kernel's limit is 253
# descriptors.
_CLIENTS, _SIZE = 100, 1024 * 1024
# Seconds that the reactor's thread may take to begin a call. It never waits, but the machine may be busy.
_REACTOR_TIMEOUT = 30.0

_T = TypeVar("_T")


class Moved(NamedTuple):
    """The result of a batch."""

    moved: int
    """How many clients the other process serves now."""
    refused: int
    """How many it has refused: they are served here. A later batch may include them again, after other clients."""
    left: int
    """How many clients can still be moved, now or soon, those that were refused included. They are not counted after a
    full batch: then it is 1."""


class Exporter:
    """Moves clients of a broker to the process at the other end of a link. One thread at a time, which may wait.

    :param link: the link, after the hellos. It remains the caller's.
    :param broker: the broker, on a log that the other process has opened too.
    :param wanted: which of its clients are moved; ``None``: all.
    :raises OSError: there are no more descriptors.
    """

    def __init__(self, link: Link, broker: Broker, wanted: Wanted | None = None) -> None:
        self._link = link
        self._broker = broker
        self._wanted = wanted
        self._limit = self._most = max(1, min(_CLIENTS, _number(link.peer.get("most"), _CLIENTS)))
        self._token = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)]  # a list, so that it is closed once
        self._is_lost = False
        #: How many clients were moved.
        self.moved = 0
        #: The longest time for which clients were frozen, in seconds.
        self.worst = 0.0
        #: Why a client was refused last; empty: none was.
        self.why = ""

    def move(self, most: int = _CLIENTS) -> Moved:
        """Move a batch of clients.

        :param most: how many at most.
        :return: how many were moved.
        :raises LinkLost: the link is lost. The clients that were not acknowledged are served here again.
        :raises LinkError: the other process has sent something that is no answer. Likewise, and the link is cancelled.
        :raises RuntimeError: the reactor does not run.
        """
        if self._is_lost:
            raise LinkLost(errno.EPIPE, "the link was lost at an earlier batch")
        most = min(self._most, most)
        dispatcher = self._broker.dispatcher
        # Before the call to freeze is queued: a revocation up to here has ended its clients by then, and the other
        # process compares the clients with all later ones.
        since = Position(dispatcher.epoch, dispatcher.handled)
        frozen, began = on_reactor(functools.partial(self._freeze, most))
        is_full = len(frozen) == most
        waiting = dict.fromkeys(frozen)  # the clients that no process serves
        try:
            parts = [frozen] if frozen else []
            while parts:
                part = parts.pop()
                try:
                    answer, error = self._ask(part, since)
                except MessageTooLarge as too_large:
                    self.why = str(too_large)
                    parts += _halves(part)
                    continue
                taken = self._taken(part, answer)
                for each in taken:
                    del waiting[each]
                connections().call_soon(functools.partial(_each, Frozen.release, taken))
                self.moved += len(taken)
                if error is not None:
                    raise error
                if "most" in answer:
                    parts += _halves([each for each in part if each in waiting])
        finally:
            connections().call_soon(functools.partial(_each, Frozen.thaw, list(waiting)))
            if frozen:
                self.worst = max(self.worst, time.monotonic() - began)
            left = on_reactor(functools.partial(self._left, is_full=len(frozen) > len(waiting) and is_full))
        return Moved(len(frozen) - len(waiting), len(waiting), left)

    def close(self) -> None:
        """Release the exporter's descriptor. The link remains. Any number of times."""
        close_all(self._token)

    def __enter__(self) -> Exporter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _freeze(self, most: int) -> tuple[list[Frozen], float]:
        """Freeze a batch, on the reactor's thread."""
        return self._broker.broadcast_groups.freeze(most, _SIZE, self._wanted), time.monotonic()

    def _left(self, *, is_full: bool) -> int:
        """Count the clients that are left, after all calls for this batch. On the reactor's thread.

        :param is_full: whether the batch was full, and not refused as a whole. Then others are likely, and are not
            counted: ten thousand would take 10 ms, after each batch.
        :return: how many are left.
        """
        return 1 if is_full else self._broker.broadcast_groups.movable(self._wanted)

    def _ask(self, clients: list[Frozen], since: Position) -> tuple[Mapping[str, Any], BaseException | None]:
        """Send clients to the other process.

        :return: its answer; the error, if the link was lost but the answer had arrived.
        """
        blob = b"".join(each.client.connection.unsent for each in clients)
        fds = [*self._token, *(each.client.connection.fd for each in clients)]
        head = {"op": "take", "epoch": since.epoch, "position": since.seq, "clients": list(map(_plain, clients))}
        deadline = time.monotonic() + ANSWER_TIMEOUT
        with self._link.hold():  # another thread may close it, when the answer has arrived
            try:
                self._link.send(head, blob, fds, timeout=ANSWER_TIMEOUT)
                return self._answer(max(0.0, deadline - time.monotonic())), None
            except MessageTooLarge:
                raise
            except BaseException as error:
                self._is_lost = True
                self._link.cancel()  # from now on no answer can arrive
                try:
                    return self._answer(0), error
                except (LinkLost, LinkError):
                    os.eventfd_write(self._token[0], 1)
                    raise error from None

    def _answer(self, timeout: float) -> Mapping[str, Any]:
        with self._link.receive(timeout) as frame:
            if frame.op != "taken":
                raise LinkError(f"the other process has answered with {frame.op!r}: {frame.head.get('why', '')}")
            return frame.head

    def _taken(self, clients: list[Frozen], answer: Mapping[str, Any]) -> list[Frozen]:
        """Find the clients that the other process serves now."""
        refused = answer.get("refused")
        if not isinstance(refused, dict):
            refused = {}
        self.why = str([self.why, *refused.values()][-1])
        # If the other process has too few free descriptors, it has taken none, and sends how many it could.
        self._most = max(1, min(_number(answer.get("most"), self._limit), self._most * 2, self._limit))
        return [each for index, each in enumerate(clients) if str(index) not in refused]


def _plain(frozen: Frozen) -> dict[str, Any]:
    return {**frozen.client.to_plain(), "unsent": len(frozen.client.connection.unsent)}


def _halves(clients: list[Frozen]) -> list[list[Frozen]]:
    """Divide clients that are too many for one message; one that is too large by itself is left out."""
    half = len(clients) // 2
    return [clients[half:], clients[:half]] if half else []


def _number(value: object, default: int) -> int:
    return value if type(value) is int else default


def _each(method: Callable[[Frozen], object], clients: Iterable[Frozen]) -> None:
    for each in clients:
        logged(functools.partial(method, each))


def on_reactor(call: Callable[[], _T]) -> _T:
    """Call on the reactor's thread, and wait for the result.

    :param call: the function.
    :return: its result.
    :raises RuntimeError: the reactor does not run. Then the function is not called later either.
    """
    results: list[_T] = []
    errors: list[BaseException] = []
    begun, ended = Once(), Waiters()

    def run() -> None:
        if begun():
            try:
                results.append(call())
            except BaseException as error:
                errors.append(error)
            ended.wake()

    connections().call_soon(run)
    if not ended.wait(lambda: bool(results or errors), _REACTOR_TIMEOUT):
        if begun():
            raise RuntimeError(f"the reactor has not begun a call within {_REACTOR_TIMEOUT:g} s")
        ended.wait(lambda: bool(results or errors))
    if errors:
        raise errors[0]
    return results[0]
