"""How a gunicorn worker that stops moves its streams to other workers of the same master.

A worker that a reload stops has successors, which may still load their application: it waits for the hello that each
sends afterwards, and serves its clients meanwhile. Each successor that answers gets an equal part of the clients, by a
thread of its own, so that each reload leaves the workers with equal numbers. Without a successor, older workers are
asked. A worker that stops as well refuses in its hello, so a client is never moved back and forth. When the whole
server stops, all workers refuse, and the streams are ended at once.

Streams that can't be moved (``on_close``, ``coalesce``, ``memory://``, producers) are ended as without all this.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..channels.broker import open_brokers
from ..channels.channel_source import ChannelSource
from ..channels.dispatcher import Registration
from ..detached.connection import Connection
from ..locks import Once
from ..reactor import run_foreign
from ..server.detaching import Detached, Served
from ..server.registry import streams
from ..text import escape
from .exporting import Exporter
from .folders import Sibling, siblings_in
from .message import LinkTimeout
from .peer import connect, make_hello
from .worker_table import WorkerTable

__all__ = ["SiblingTransfer"]

logger = logging.getLogger("ssesync")

# Seconds in which the other workers that were sent SIGTERM at the same time note that they stop.
_HESITATION = 0.05
# Seconds that a new worker may take from the fork to its socket, which takes long on a busy machine alone, and a client
# from its admission to its group.
_START, _ARRIVAL = 10.0, 2.0
# Seconds between two checks.
_POLL = 0.02
# Seconds after which a worker that has loaded takes the part of those that have not.
_BALANCE = 10.0
# Workers that streams are moved to at once. Each takes a thread and a connection.
_RECEIVERS = 8
# Clients in one batch: the limit of descriptors in a message.
_BATCH = 250


class SiblingTransfer:
    """See the module, and :class:`ssesync.server.transferring.Transfer`.

    :param folder: where the workers' sockets are.
    :param own: this worker.
    :param workers: how many workers there are.
    :param seconds: the limit of the time from the first request to stop.
    :param table: the workers that the master has started; ``None``: the hook ``pre_fork`` is not set.
    :param stops_alone: whether the worker has stopped by itself, because of ``max_requests``: then the master goes on.
    """

    def __init__(
        self,
        folder: Path,
        own: Sibling,
        workers: int,
        seconds: float,
        table: WorkerTable | None,
        stops_alone: Callable[[], bool],
    ) -> None:
        self._folder = folder
        self._own = own
        self._workers = workers
        self._seconds = seconds
        self._table = table
        self._stops_alone = stops_alone
        self._begin_once = Once()
        # Each of the two is set once, by any thread, and a signal handler may set the second one.
        self._is_begun = self._is_over = False
        self._began = self._deadline = 0.0
        self._at_first = 0  # how many clients there were
        self._calls: list[Callable[[], object]] = []  # when it is over
        self._receivers: list[_Receiver] = []

    # Any thread.

    @property
    def is_moving(self) -> bool:
        """Whether streams are moved, or will be when another worker has loaded its application."""
        return self._is_begun and not self._is_over

    def begin(self, since: float, over: Callable[[], object]) -> None:
        """See :class:`ssesync.server.transferring.Transfer`."""
        self._calls.append(over)
        self._began = self._began or time.monotonic()
        self._is_begun = True  # also where another thread is in the next steps: then this one waits for their result
        if not self._begin_once():
            return
        self._deadline = since + self._seconds
        self._at_first = self._count()
        if not (self._at_first and self.seconds_left and (self._siblings() or self._is_awaited())):
            self._is_over = True
            return
        try:
            threading.Thread(target=self._run, name="ssesync-moving", daemon=True).start()
        except RuntimeError as error:
            self._is_over = True
            text = escape(error)
            run_foreign(lambda: logger.warning("no event stream moves: no thread can be started: %s", escape(text)))

    def may_move(self, stream: Served | Detached) -> bool:
        """See :class:`ssesync.server.transferring.Transfer`."""
        if self._is_over:
            return False
        is_early = not self._is_begun or time.monotonic() - self._began < _ARRIVAL
        if not isinstance(stream, Connection):
            return is_early and streams.is_leaving(stream)
        registration = stream.registration
        if not isinstance(registration, Registration) or not isinstance(registration.sink, ChannelSource):
            return False
        return registration.sink.may_move(stream, later=is_early)

    def abandon(self) -> None:
        """See :class:`ssesync.server.transferring.Transfer`."""
        self._is_over = True

    def seconds_to_move(self) -> float | None:
        """See :class:`ssesync.server.transferring.Transfer`."""
        return self._seconds if self.is_moving else None

    @property
    def goes_on(self) -> bool:
        """Whether streams are still moved: there are some, and there is time."""
        return self.is_moving and self.seconds_left > 0 and any(self._movable())

    @property
    def seconds_left(self) -> float:
        """How much of the time is left."""
        return max(0.0, self._deadline - time.monotonic())

    def share_of(self, receiver: _Receiver) -> int:
        """Find how many more clients a worker may be sent now.

        :param receiver: the worker.
        :return: their number, 0 if the others are to take the rest.
        """
        moved = sum(each.moved for each in self._receivers)
        if moved >= self._at_first or time.monotonic() - self._began >= min(_BALANCE, self._seconds / 2):
            return _BATCH  # later clients, or those of a worker that has not loaded its application
        active = [each for each in self._receivers if not each.is_over]
        total = self._at_first - moved + sum(each.moved for each in active)
        return min(max(0, -(-total // len(active)) - receiver.moved), _BATCH)

    def _movable(self) -> Iterator[Served | Detached]:
        """Iterate over the streams that may still be moved, those that are on their way included."""
        return (stream for stream in streams.all() if stream.reason is None and self.may_move(stream))

    def _count(self) -> int:
        return sum(1 for _ in self._movable())

    # The thread.

    def _run(self) -> None:
        try:
            time.sleep(_HESITATION)
            self._move_all()
            while any(each.is_busy for each in self._receivers):
                time.sleep(_POLL)  # a batch has its own limit of time
            self._log()
        except Exception:
            logger.exception("moving event streams to other workers failed; those that are left are ended")
        finally:
            self._is_over = True
            for call in self._calls:
                call()

    def _move_all(self) -> None:
        tried: set[Sibling] = set()
        while self.goes_on:
            new = self._choose([sibling for sibling in self._siblings() if sibling not in tried])
            if self._is_awaited() and time.monotonic() - self._began < _START:
                time.sleep(_POLL)
                continue
            if not new:
                return
            tried.update(new)
            receivers = [_Receiver(self, sibling, self._folder) for sibling in new]
            self._receivers += receivers
            for receiver in receivers:
                receiver.start()
            while self.goes_on and not all(each.is_over for each in receivers):
                time.sleep(_POLL)

    def _siblings(self) -> list[Sibling]:
        return [sibling for sibling in siblings_in(self._folder) if sibling != self._own]

    def _is_awaited(self) -> bool:
        """Whether a worker will be there soon: it was forked, or will be in place of one that has ended."""
        if self._table is not None and self._table.starting(self._own.age):
            return True
        return self._stops_alone() and len(self._siblings()) + 1 < self._workers

    def _choose(self, siblings: list[Sibling]) -> list[Sibling]:
        """Choose the workers to be asked next: of those that are newer, else of all, as many newest ones as a reload
        starts. Each of many workers that stop begins with another one.

        :param siblings: the newest first.
        :return: the chosen ones.
        """
        newest = [sibling for sibling in siblings if sibling.age > self._own.age][: self._workers] or siblings
        first = self._own.age % max(1, len(newest))
        return (newest[first:] + newest[:first])[:_RECEIVERS]

    def _log(self) -> None:
        for receiver in self._receivers:
            if receiver.moved:
                logger.info(
                    "%d event streams moved to worker %d in %d ms, without an interruption",
                    receiver.moved, receiver.sibling.pid, receiver.seconds * 1000,
                )  # fmt: skip
        if left := self._count():
            reasons = [f"worker {each.sibling.pid}: {each.why or 'no answer'}" for each in self._receivers]
            are_usual = all(each.is_stopping for each in self._receivers)
            logger.log(
                logging.INFO if are_usual else logging.WARNING,
                "%d event streams could not move to another worker, and are ended, so their clients reconnect: %s",
                left, escape("; ".join(reasons) or "there is no other worker"),
            )  # fmt: skip


class _Receiver:
    """Moves clients to one other worker, on a thread.

    :param transfer: says how many.
    :param sibling: the worker.
    :param folder: where its socket is.
    """

    def __init__(self, transfer: SiblingTransfer, sibling: Sibling, folder: Path) -> None:
        self._transfer = transfer
        self.sibling = sibling
        self._path = folder / sibling.name
        self._exporters: list[Exporter] = []  # of each link
        self._began = 0.0
        #: Seconds from the first batch to the end of the last one.
        self.seconds = 0.0
        #: Why it takes no more.
        self.why = ""
        #: Whether it stops as well.
        self.is_stopping = False
        #: Whether it is taking a batch now, and whether it takes no more.
        self.is_busy = self.is_over = False

    @property
    def moved(self) -> int:
        """How many clients it has taken."""
        return sum(exporter.moved for exporter in list(self._exporters))

    def start(self) -> None:
        """Start the thread."""
        try:
            threading.Thread(target=self._run, name="ssesync-moving", daemon=True).start()
        except RuntimeError as error:
            self.why, self.is_over = str(error), True

    def _run(self) -> None:
        try:
            while self._is_interrupted():
                pass  # another link: on a busy machine an answer may be late
        except OSError as error:
            self.why = error.strerror or str(error)
        except (ValueError, RuntimeError) as error:
            self.why = str(error)
        finally:
            self.is_over = True

    def _is_interrupted(self) -> bool:
        """Move clients over a link.

        :return: whether the other worker has not answered in time, and there is time left to ask again.
        """
        try:
            self._move()
        except LinkTimeout as error:
            self.why = error.strerror or str(error)
            return self._transfer.goes_on
        return False

    def _move(self) -> None:
        brokers = [broker for broker in open_brokers() if broker.is_shared]
        hello = make_hello("worker", [broker.dispatcher.epoch for broker in brokers], stopping=True)
        try:
            link = connect(self._path, self._transfer.seconds_left, hello)
        except ConnectionRefusedError:
            self.why = "it has ended"
            return
        with link, contextlib.ExitStack() as stack:
            if link.peer["stopping"]:
                self.why, self.is_stopping = "it stops as well", True
                return
            exporters = [
                stack.enter_context(Exporter(link, broker))
                for broker in brokers
                if broker.dispatcher.epoch in link.peer["logs"]
            ]
            if not exporters:
                self.why = "it has not opened the broker"
                return
            self._exporters += exporters
            self._began = self._began or time.monotonic()
            for exporter in itertools.cycle(exporters):
                if not (self._transfer.goes_on and self._move_batch(exporter)):
                    return

    def _move_batch(self, exporter: Exporter) -> bool:
        """Move one batch of a broker's clients.

        :return: whether the other worker takes more.
        """
        if share := self._transfer.share_of(self):
            self.is_busy = True
            try:
                batch = exporter.move(share)
            finally:
                self.seconds = time.monotonic() - self._began
                self.is_busy = False
            if batch.moved or batch.refused:
                self.why = exporter.why
                return batch.moved > 0
        time.sleep(_POLL)  # for the batches of other workers, or clients that are on their way
        return True
