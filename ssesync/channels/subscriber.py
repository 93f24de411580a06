"""Subscriber: a bounded queue, the log, and a state that decides which of the two is read next.

A subscriber is live, or it reads the log at its own pace. While it reads the log, new messages are queued until the
queue is full. If a read reaches the log's end, and the queue has taken all messages since the read began, there is no
gap between log and queue, and the subscriber is live. So a burst that is larger than the queue costs a reader one read
of the log, and only a subscriber that is not polled at all is ended.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ..errors import CloseReason
from ..event import ReceivedEvent
from ..locks import make_lock
from ..server.source import END, PENDING, End, Pending
from .completion import NONE_CLOSED, Completion
from .log import Log, LogReader, Names, Page, Position
from .message import Message
from .policy import Policy
from .queue import ALL, MessageQueue, coalescing_key, reset_message
from .reentry import entered
from .subscriber_ends import Endable, Ends
from .subscriber_state import Input, State

__all__ = ["State", "Subscriber"]

# An attribute of an enumeration costs 0.19 µs each time in CPython 3.11, a tenth of an offer.
_STARTING, _LIVE, _DRAINING = State.STARTING, State.LIVE, State.DRAINING
_COMPLETING, _ENDING = State.COMPLETING, State.ENDING
_NO_KEYS: Mapping[int, Any] = {}
# Events that are read from the log at a time: at first, and at most.
_FIRST_PAGE, _PAGE = 100, 1000


class Subscriber(Endable):
    """One subscriber of a broker. A sink of a dispatcher, or of a broadcast group for a lagging client.

    Any thread may call :meth:`offer`, :meth:`missed`, :meth:`restarted` and :meth:`close`; the other methods are for
    the reader. ``close()`` waits for no lock, since its thread may hold the subscriber's own: see :mod:`.reentry`.

    :param log: the broker's log.
    :param policy: the limits of the queue, and the action when it is full.
    :param names: the channels and patterns that are read from the log.
    :param shared: it reads for many clients. If the log has dropped the next events, it gets a reset and is not ended:
        no single client has filled the queue.
    :param completion: when it ends by itself, as it has everything. Without it, that is when all channels are closed.
    :param on_ready: called when :meth:`poll` may return more: by any thread, with no lock held. It must take no lock.
    """

    def __init__(
        self,
        log: Log,
        policy: Policy,
        names: Names = ((), ()),
        *,
        shared: bool = False,
        completion: Completion | None = None,
        on_ready: Callable[[], object] | None = None,
    ) -> None:
        self._reader, self._count = LogReader(log, names), log.count
        self._policy, self._shared = policy, shared
        self._completion = completion or Completion(*names)
        #: See the parameter. The reader may set another function.
        self.on_ready = on_ready
        self._lock = make_lock("channels.subscriber")
        self._queue = MessageQueue(policy, log.count)
        #: Whether queue or log is read next, and whether the subscriber has ended.
        self.state = _STARTING
        #: After the last message that was given to the reader.
        self.position = Position("", -1)
        #: How many events were given to the reader.
        self.events = 0
        self._newest = -1  # the number of the last message that was offered
        self._ends = Ends()
        self._polled = time.monotonic()  # infinite while the reader waits for on_ready

    @property
    def place(self) -> tuple[Policy, str, int, bool]:
        """For a successor: the policy, the position, and whether the next events may be in the log alone."""
        return self._policy, self.position.epoch, self.position.seq, self.state.reads_log

    @property
    def closed(self) -> Mapping[str, int]:
        """The number of its final event, by the name of each channel that is known to be closed. Any thread."""
        return self._completion.closed

    @property
    def pending(self) -> tuple[int, int]:
        """How many messages and bytes are queued."""
        return len(self._queue), self._queue.size

    # Called by the dispatcher or the broadcast group.

    def offer(self, messages: Sequence[Message]) -> CloseReason | None:
        """See :class:`ssesync.channels.dispatcher.Sink`."""
        if (coalesce := self._policy.coalesce) is not None:
            for message in messages:
                self._offer_coalescing(coalesce, message)
            return self.reason
        with entered(), self._lock:
            try:
                changed = self._offer(messages, _NO_KEYS)
            except BaseException:  # raised by a signal handler, perhaps before a message was queued that counts as seen
                self._miss()
                raise
        if changed and self.on_ready is not None:
            self.on_ready()
        if not self._ends:
            return None
        self._after()
        return self.reason

    def _offer_coalescing(self, coalesce: Callable[[ReceivedEvent], Any], message: Message) -> None:
        # The user's function is called while the lock is not held, and only if the queue is full, as each call costs
        # the decoding of an event. One thread at a time offers messages: a second turn finds the same as the first.
        keys: dict[int, Any] = {}
        while True:
            with entered(), self._lock:
                is_due = self.state is _LIVE and message.seq > self._newest
                unkeyed = self._queue.unkeyed(message, keys) if is_due and not self._ends else []
                changed = not unkeyed and self._offer((message,), keys)
            if not unkeyed:
                self._after(wake=changed)
                return
            for each in unkeyed:
                keys[each.seq] = coalescing_key(coalesce, each)

    def restarted(self, epoch: str, position: int) -> None:
        """See :class:`ssesync.channels.dispatcher.Sink`."""
        with entered(), self._lock:
            if self._ends or self.state is _COMPLETING:
                return
            self._queue.clear()
            if self.state is _STARTING:
                self._miss()  # the position that it is started with may be one of the old log
            elif epoch == self.position.epoch:
                # It was started with an id of the new log before the listener had noticed that log. Messages that were
                # offered until now are of the old log, whose numbers may be higher.
                self._newest = self.position.seq
                if position > self._newest:
                    self._miss()
            else:
                self.position, self._newest = Position(epoch, position), position
                self._move(Input.RESTARTED)
                self._queue.reset = self._reset_message("restarted", epoch, position)
                self._completion.closed = NONE_CLOSED
                if self._shared or self._completion.is_by_names:
                    self._miss()  # a page of the new log shows which of the channels are closed
        self._after(wake=True)

    def missed(self, channels: Collection[str] | None = None) -> None:
        """See :class:`ssesync.channels.dispatcher.Sink`."""
        with entered(), self._lock:
            self._miss()
        self._after(wake=True)

    # Called by the reader.

    def start(
        self, epoch: str, seq: int, *, from_log: bool, closed: Mapping[str, int] = NONE_CLOSED, last: int | None = 0
    ) -> None:
        """Set the position, before the first read or anew.

        :param epoch: of the log.
        :param seq: the number of the last event that the client has.
        :param from_log: the next events are in the log. Else this is the log's end, or all later events were offered.
        :param closed: the closed channels at the position, if the next events are not read from the log.
        :param last: how many events the position was found by, see :meth:`Log.start_of`. ``0``: the client has the
            events up to the position.
        """
        with entered(), self._lock:
            self.position = Position(epoch, seq)
            self._reader.last = last
            if from_log:
                self._queue.clear()
                self._move(Input.START_FROM_LOG)
            else:
                self._newest = max(self._newest, seq)
                self._queue.keep(lambda message: message.seq > seq)
                self._move(Input.START_LIVE)
                self._completion.closed = closed or self._completion.closed
                if self.state is _LIVE and self._queue and (given := self._completion.cut(self._queue.messages)):
                    self._queue.keep(lambda message: message.seq <= given[-1].seq)
                    self._move(Input.COMPLETED)
        self._after()

    def progressed(self) -> None:
        """Note that the client receives data, if slowly: it does not count as stalled."""
        self._polled = max(self._polled, time.monotonic())

    def take(self, most: int, *, waits: bool) -> list[bytes] | Pending | End:
        """Take queued messages, or read the log: for readers with a thread of their own. Does not wait for events.

        :param most: about how many bytes of queued messages.
        :param waits: see :meth:`poll`.
        :return: messages and other bytes to be sent, at least one; or ``Pending`` or ``End``, see :class:`Source`.
        """
        while True:
            polled = self.poll(most, waits=waits)
            if isinstance(polled, Position):
                return PENDING
            if isinstance(polled, CloseReason):
                return END
            if polled:
                return polled
            again = self._reader.retry_at - time.monotonic()
            if again > 0:
                return Pending(again)
            if items := self.read():
                return items

    def poll(self, most: int = ALL, *, waits: bool = False) -> list[bytes] | Position | CloseReason:
        """Take queued messages. Never waits.

        :param most: about how many bytes.
        :param waits: if the queue is empty, the reader waits for ``on_ready``. Until its next call it does not count as
            slow: it may have been woken, and its thread not run yet.
        :return: messages and other bytes to be sent, empty if :meth:`read` is to be called next; the position if there
            is nothing now; the reason at the end.
        """
        with entered(), self._lock:
            self._polled = time.monotonic()
            polled = self._poll(most)
            if waits and (not polled or isinstance(polled, Position)):
                self._polled = math.inf
        if self._ends:
            self._after()
        return polled

    def read(self, size: int = 0, names: Names | None = None) -> list[bytes] | None:
        """Read the log. If its end is reached, the messages that were queued meanwhile are added.

        :param size: about how many bytes; ``0``: one page. With small pages only, thousands of clients that reconnect
            at once while much is published would never reach the log's end.
        :param names: the channels and patterns, in place of the subscriber's own.
        :return: messages and other bytes to be sent, empty if there is no more or the subscriber has ended or was
            restarted meanwhile; ``None`` if the log can't be read now, which is logged.
        :raises Exception: an error other than the broker's. The subscriber has ended.
        """
        items = self._read_page(_FIRST_PAGE, names)
        while items and self.state.reads_log and (have := sum(map(len, items))) < size:
            more = self._read_page(max(1, min(_PAGE, (size - have) * len(items) // have)), names)
            if not more:
                break
            items += more
        return items

    def _read_page(self, limit: int, names: Names | None) -> list[bytes] | None:
        with entered(), self._lock:
            self._polled = time.monotonic()
            position = self.position if self._must_read() and not self._ends else None
        self._after()
        if position is None:
            return []
        try:
            page = self._reader.read(position, names, limit, self._completion.is_closed_by)
        except Exception:
            self.close(CloseReason.ERROR, discard=True)
            raise
        if page is None:
            return None
        if isinstance(page, CloseReason):
            self.close(page, discard=True)
            return []
        with entered(), self._lock:
            items = self._after_read(page, position)
        self._after()
        return items

    def freeze(self) -> tuple[Position, list[bytes]] | None:
        """See :class:`ssesync.detached.source.Subscriber`."""
        with entered(), self._lock:
            if self._ends or self.state is _STARTING:
                return None
            position, notes, last = self.position, self._queue.take_notes(), self._queue.last_dropped
            if notes and last > position.seq and self.state is _LIVE:
                # One of these events reports that messages were dropped: the next process must not read them. It is a
                # position that the log knows, as numbers may have gaps.
                position = position._replace(seq=last)
            return position, notes

    # With the lock held.

    def _offer(self, messages: Sequence[Message], keys: Mapping[int, Any]) -> bool:
        """Queue messages. The result: whether the reader must be woken."""
        if self._ends or self.state is _COMPLETING:
            return False
        queue, changed, completion = self._queue, False, self._completion
        watches_all = completion.types or completion.closed  # else final events only
        for message in messages:
            seq = message.seq
            if seq <= self._newest:
                continue
            self._newest = seq
            if self.state.queues:
                if not queue and self._polled != math.inf:
                    self._polled = time.monotonic()  # the queue was empty, so the reader had no reason to poll
                if queue.put(message, keys, lossless=self.state is not _LIVE):
                    changed = True
                    if (message.final or watches_all) and self.state is _LIVE:
                        if completion.note(message):
                            self._move(Input.COMPLETED)
                            break
                        watches_all = completion.types or completion.closed
                    continue
                queue.clear()
                self._move(Input.OVERRUN)
                changed = True
            self._newest = max(self._newest, messages[-1].seq)
            if time.monotonic() - self._polled > self._policy.patience:
                self._overflow()
                return True
            break
        return changed

    def _overflow(self) -> None:
        self._count("disconnected", 1)
        self._end_now(CloseReason.OVERFLOW, discard=True)

    def _miss(self) -> None:
        if self.state.reads_log:
            self._queue.clear()
        self._move(Input.MISSED)

    def _poll(self, most: int) -> list[bytes] | Position | CloseReason:
        if self._ends:
            self._carry_out_ends()
            if self.state is State.ENDED:
                return self._ends[0].reason
        if self.state is not _LIVE and self._must_read():
            return self._queue.take_notes()
        notes, messages = self._queue.take(most)
        if messages:
            self.position = Position(self.position.epoch, messages[-1].seq)
            self.events += len(messages)
        items: list[bytes] = [*notes, *messages]
        if self.state is _COMPLETING and not self._queue:
            self._end_now(CloseReason.DONE, discard=False)
        if self.state is _ENDING and not self._queue:
            if last := self._ends[0].last:
                items.append(last)
            self._move(Input.GIVEN)
            return items or self._ends[0].reason
        return items or self.position

    def _must_read(self) -> bool:
        """Whether the log is to be read. From now on the state notes that the queue has not taken a message."""
        if self.state is _DRAINING and not self._queue:
            self._move(Input.DRAINED)
        if self.state.reads_log and not self.state.queues:
            self._queue.clear()
            self._move(Input.READ)
        return self.state.reads_log

    def _reset_message(self, why: str, epoch: str, position: int) -> Message:
        self._count("resets", 1)
        return reset_message(self._policy, why, epoch, position)

    def _after_read(self, page: Page, position: Position) -> list[bytes]:
        if position is not self.position or self._ends:
            return []  # meanwhile the listener has noticed that the log was begun anew
        messages, end = page.messages, position.seq if page.start is None else page.start
        if page.lost:
            if not (self.state.excused or self._shared):
                # It was live, and is too slow: the log has dropped its next events.
                self._overflow()
                return []
            messages, end = [self._reset_message(page.lost, page.epoch, page.head)], page.head
        elif messages:
            end = messages[-1].seq
        if page.epoch != position.epoch:
            # Messages that were offered so far may be of the old log, whose numbers have no meaning in this one.
            prefix = b"id: %s-" % page.epoch.encode()
            self._newest = self._queue.keep(lambda message: message.startswith(prefix))
        self._newest = max(self._newest, end)
        notes, completion = self._queue.take_notes(), self._completion
        given = completion.cut(messages)
        if page.complete and given is None:
            self._move(Input.CAUGHT_UP)
            completion.closed = page.closed
            if completion.all_closed:
                given = messages
            elif self.state is _LIVE:
                self._queue.keep(lambda message: message.seq > end)
                queued = self._queue.take(ALL)[1]
                if (last := completion.cut(queued)) is not None:
                    given = messages + last
                messages = messages + queued
        if given is not None:
            messages = given
            self._queue.clear()  # its messages are among these, or come after the last one
            self._end_now(CloseReason.DONE, discard=False)
        end = messages[-1].seq if messages else end
        self.position = Position(page.epoch, end)
        self.events += len(messages)
        return [*notes, *messages]
