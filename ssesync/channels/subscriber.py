"""Inbox: what waits for one subscriber, where it has come to, and what happens when it can't keep up.

A subscriber follows live, or is *behind*: then it reads the log at its own pace, and what is published meanwhile is
kept here as far as there is room. When a reading finds the log's end, and nothing was left out here meanwhile, the two
meet without a gap and it is live. So a burst that is larger than the room for it costs a reader nothing but a look
into the log, and only who does not read at all is given up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ..errors import CloseReason
from ..event import Event, dump_json
from ..locks import make_lock
from ..wire.encoder import encode
from .dispatcher import Listed
from .message import Message
from .pending import End, Pending, key_of
from .policy import Policy
from .reentry import Wakeup, entered, entered_or_inside

__all__ = ["Inbox"]

_NONE: Mapping[int, Any] = {}


class Inbox:
    """A dispatcher's sink. ``offer``, ``close`` and ``lost`` come from any thread, the rest from the one that reads.

    ``close`` waits for no lock, since it may be called on a thread that holds the inbox's own: see :mod:`.reentry`.
    Callbacks are called while no lock is held.

    :param policy: how much may wait, and what becomes of the rest.
    :param count: called with the name of a counter and by how much it goes up.
    """

    def __init__(self, policy: Policy, count: Callable[[str, int], object]) -> None:
        #: How much may wait, and what becomes of the rest.
        self.policy = policy
        self._count = count
        self._lock = make_lock("channels.inbox")
        self._wakeup = Wakeup()
        self._must_wake = False
        self._pending = Pending(policy)
        self._reset: Message | None = None
        self._last = b""
        self._dropped = 0
        self._newest = -1  # that was offered
        self._left_out = False  # something that is in the log
        self._looked = time.monotonic()
        self._waiting = 0
        self._ends: list[End] = []  # the first counts, and stays
        self._ended = 0  # how many of them were carried out
        self._successor: Listed | None = None
        #: The last that was given to the reader.
        self.cursor = -1
        #: Of what log the cursor is.
        self.epoch = ""
        #: Whether the log is to be read.
        self.behind = False
        #: Whether it is not for its own slowness that it is behind.
        self.blameless = False
        #: Changes when the cursor was set from outside.
        self.generation = 0
        #: How many events were given to the reader.
        self.events = 0
        #: Called when there is something for a reader who does not wait here. It must take no lock.
        self.on_wake: Callable[[], object] | None = None

    @property
    def reason(self) -> CloseReason | None:
        """Why the subscriber ended, ``None`` while it has not."""
        return self._ends[0].reason if self._ends else None

    @property
    def pending(self) -> tuple[int, int]:
        """How many messages and bytes wait."""
        return len(self._pending), self._pending.size

    # Of the dispatcher.

    def offer_all(self, messages: Sequence[Message]) -> bool:
        """:meth:`offer` for several, in order."""
        if self.policy.coalesce is not None:
            return all(self._offer_coalescing(message) for message in messages)
        with entered(), self._lock:
            if self._left_out and not self._ends:
                self._newest = max(self._newest, messages[-1].seq)
                taken = self._patient()
            else:
                taken = all(self._offer(message) for message in messages)
        self._after()
        return taken

    def offer(self, message: Message) -> bool:
        """See :class:`ssesync.channels.dispatcher.Sink`."""
        if self.policy.coalesce is not None:
            return self._offer_coalescing(message)
        with entered(), self._lock:
            try:
                taken = self._offer(message)
            except BaseException:  # of a signal handler, after the message was noticed and before it was put here
                self._missed()
                raise
        if self._must_wake or self._ends:
            self._after()
        return taken

    def _offer_coalescing(self, message: Message) -> bool:
        # The user's function is called while the lock is not held, and for none while there is room, as each call costs
        # the decoding of an event. Messages come from one thread at a time: a second turn finds no others than the
        # first.
        assert self.policy.coalesce is not None
        keys: dict[int, Any] = {}
        while True:
            with entered(), self._lock:
                may_wait = not (self._ends or self._left_out or self.behind or message.seq <= self._newest)
                due = self._pending.to_be_coalesced(message) if may_wait else []
                unkeyed = [each for each in due if each.seq not in keys]
                taken = not unkeyed and self._offer(message, keys)
            if not unkeyed:
                self._after()
                return taken
            for each in unkeyed:
                keys[each.seq] = key_of(self.policy.coalesce, each)

    def _offer(self, message: Message, keys: Mapping[int, Any] = _NONE) -> bool:
        if self._ends:
            return False
        if message.seq <= self._newest:
            return True
        self._newest = message.seq
        if self._left_out:
            return self._patient()
        pending = self._pending
        if pending.keyed is None and not pending.has_room(message):
            if self.behind or self.policy.overflow == "disconnect":
                return self._leave_out()
            if self.policy.overflow == "coalesce":
                self._count("coalesced", pending.coalesce(keys))
            else:
                dropped = pending.drop_oldest(message)
                self._dropped += dropped
                self._count("dropped", dropped)
        if pending.keyed is not None:
            fits, dropped = pending.replace(message, keys[message.seq])
            self._count("coalesced", dropped)
            if not fits:
                return self._leave_out()
        else:
            if not pending.messages:
                self._looked = time.monotonic()  # before this there was nothing to be seen
            pending.add(message)
        self._must_wake = True
        return True

    def lost(self, why: str, epoch: str, position: int) -> None:
        """See :class:`ssesync.channels.dispatcher.Sink`."""
        with entered(), self._lock:
            if self._ends:
                return
            if epoch == self.epoch:
                # It has come with an id of the new log before the listener knew of that one. What was offered until now
                # was of the old one, whose numbers may be higher.
                self._pending.clear()
                self._newest = self.cursor
                if position > self.cursor:
                    self._missed()
            else:
                self.generation += 1
                self._clear()
                self.epoch, self.cursor, self._newest = epoch, position, position
                self.behind = self.blameless = False
                self._reset = self.reset(why, epoch, position)
                self._must_wake = True
        self._after()

    def missed(self, channels: Collection[str] | None = None) -> None:
        """See :class:`ssesync.channels.dispatcher.Sink`."""
        with entered(), self._lock:
            self._missed()
        self._after()

    def close(self, reason: CloseReason, *, last: bytes = b"", discard: bool = False) -> bool:
        """End; whether this call was the one that ended it. Any thread, any signal handler.

        What waits is still given, and then ``last``; not with ``discard``, nor when a right was taken back.
        """
        successor = self._successor
        if successor is not None:
            successor.close(reason)
        end = End(reason, b"" if discard else last, discard or reason is CloseReason.REVOKED)
        self._ends.append(end)
        first = self._ends[0] is end
        self._carry_out_ends()
        self._wake()
        return first

    def pass_on(self, successor: Listed) -> CloseReason | None:
        """End, as somebody else has the client now, who is told of whatever would have ended this. If it has ended
        already: why."""
        # In this order: whoever ends it in between ends the successor too, who may be ended any number of times.
        self._successor = successor
        end = End(CloseReason.CANCELLED, b"", discard=True)
        self._ends.append(end)
        if self._ends[0] is not end:
            self._successor = None
            return self.reason
        self._carry_out_ends()
        return None

    def abandon(self) -> None:
        """End without a lock: for a destructor, which may run on a thread that holds any."""
        if not self._ends:
            self._ends.append(End(CloseReason.CANCELLED, b"", discard=False))

    # Of the reader.

    def start(self, epoch: str, cursor: int, *, behind: bool) -> None:
        """Set out after the cursor: live, or from the log."""
        with entered(), self._lock:
            self.epoch, self.cursor = epoch, cursor
            self.behind, self.blameless = behind or self._left_out, behind
            if behind:
                self._pending.clear()  # it is all in the log
            else:
                self._newest = max(self._newest, cursor)
                self._pending.keep(lambda message: message.seq > cursor)
        self._after()

    def still_reads(self) -> None:
        """The client takes what it was given, if slowly: it is none of those that are given up."""
        self._looked = time.monotonic()

    def look(self) -> tuple[int, str, int] | None:
        """Whether the log is to be read: generation, epoch and cursor. What is left out from now on is noticed."""
        with entered(), self._lock:
            self._looked = time.monotonic()
            if self._left_out and not self._pending:
                self.behind = True
            place = None
            if self.behind and not self._ends:
                if self._left_out:
                    self._clear()
                place = self.generation, self.epoch, self.cursor
        self._after()
        return place

    def found(self, messages: list[Message], *, complete: bool, generation: int, end: int, epoch: str) -> list[Message]:
        """The log was read up to ``end``: what there is to give now. If nothing was left out, it is live."""
        with entered(), self._lock:
            given = self._found(messages, complete, generation, end, epoch)
        self._after()
        return given

    def take(self, timeout: float | None) -> Sequence[bytes] | None:
        """Wait up to ``timeout`` seconds; ``None`` at the end. ``[]``: the time is over, or the log is to be read."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._wakeup.clear()  # before it is looked for what there is: what comes afterwards sets it again
            with entered(), self._lock:
                items = self._take()
            self._after()
            if items != []:
                return items
            remaining = None if deadline is None else deadline - self._looked
            if self.behind or (remaining is not None and remaining <= 0):
                return []
            self._wait(remaining)

    def pause(self, timeout: float | None) -> None:
        """Wait up to ``timeout`` seconds for the end."""
        self._wakeup.clear()
        if not self._ends:
            self._wait(timeout)

    def reset(self, why: str, epoch: str, position: int) -> Message:
        """The event that tells a client to fetch anew what it shows, with the id to go on from."""
        self._count("resets", 1)
        return Message.make(
            epoch, position, "", encode(Event(dump_json({"reason": why}), type=self.policy.reset_event))
        )

    # With the lock held.

    def _take(self) -> Sequence[bytes] | None:
        self._looked = time.monotonic()
        self._apply_ends()
        if self.behind and not self._ends:
            return self._take_reset()
        if self._pending or self._last or self._reset:
            return self._give()
        return None if self._ends else []

    def _give(self) -> list[bytes]:
        items: list[bytes] = [*self._take_reset()]
        if self._dropped:
            items.append(encode(Event(dump_json({"count": self._dropped}), type=self.policy.dropped_event)))
            self._dropped = 0
        messages = self._pending.all()
        if messages:
            self.cursor = messages[-1].seq
        self.events += len(messages)
        items += messages
        if self._last:
            items.append(self._last)
            self._last = b""
        self._pending.clear()
        return items

    def _take_reset(self) -> list[Message]:
        message, self._reset = self._reset, None
        return [] if message is None else [message]

    def _found(self, messages: list[Message], complete: bool, generation: int, end: int, epoch: str) -> list[Message]:
        if generation != self.generation or self._ends:
            return []
        if epoch != self.epoch:
            # What has come so far may be of the old log, of which the numbers say nothing in this one.
            self._pending.keep(lambda message: message.startswith(b"id: %s-" % epoch.encode()))
            kept = self._pending.all()
            self._newest = kept[-1].seq if kept else end
        self.epoch, self.cursor = epoch, end
        self._newest = max(self._newest, end)
        if complete and not self._left_out:
            self.behind = self.blameless = False
            self._pending.keep(lambda message: message.seq > end)
            messages = messages + self._pending.all()
            self._pending.clear()
            self.cursor = messages[-1].seq if messages else end
        messages = self._take_reset() + messages
        self.events += len(messages)
        return messages

    def _missed(self) -> None:
        self._left_out = self.blameless = True
        if self.behind:
            self._pending.clear()
        elif not self._pending:
            self.behind = True
        self._must_wake = True

    def _clear(self) -> None:
        self._pending.clear()
        self._left_out = False

    def _leave_out(self) -> bool:
        self._pending.clear()
        self._left_out = self.behind = self._must_wake = True
        return self._patient()

    def _patient(self) -> bool:
        # One that waits here is no slow one: it is woken, and may just not have had the processor yet.
        if self._waiting or time.monotonic() - self._looked <= self.policy.patience:
            return True
        self._count("disconnected", 1)
        self._ends.append(End(CloseReason.OVERFLOW, b"", discard=True))
        self._apply_ends()
        self._must_wake = True
        return False

    def _apply_ends(self) -> None:
        while len(self._ends) > self._ended:
            end = self._ends[self._ended]
            if self._ended:
                del self._ends[1]
            if end.discard or self.behind:  # where it is behind, what waits comes after a gap
                self._clear()
            if not self._ended:
                self._last, self._ended = end.last, 1

    def _after(self) -> None:
        """Do what the holder of the lock has found to be done after it."""
        if self._must_wake:
            self._must_wake = False
            self._wake()
        if len(self._ends) > self._ended:
            self._carry_out_ends()

    def _carry_out_ends(self) -> None:
        # Where the lock is held, its holder does it.
        with entered_or_inside():
            while len(self._ends) > self._ended and self._lock.acquire(blocking=False):
                try:
                    self._apply_ends()
                finally:
                    self._lock.release()

    def _wait(self, timeout: float | None) -> None:
        self._waiting += 1
        try:
            self._wakeup.wait(timeout)
        finally:
            self._waiting -= 1

    def _wake(self) -> None:
        if self.on_wake is not None:
            self.on_wake()
        self._wakeup.set()
