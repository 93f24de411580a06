"""Inbox: what waits for one subscriber, where it has come to, and what happens when it can't keep up.

A subscriber follows live, or is *behind*: then it reads the log at its own pace, and what is published meanwhile is
kept here as far as there is room. When a reading finds the log's end, and nothing was left out here meanwhile, the two
meet without a gap and it is live. So a burst that is larger than the room for it costs a reader nothing but a look
into the log, and only who does not read at all is given up.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from ..errors import CloseReason
from ..event import Event, dump_json
from ..wire.encoder import encode
from .frame import Frame
from .policy import Policy

__all__ = ["Inbox"]

logger = logging.getLogger("ssesync")


class Successor(Protocol):
    """Who has a client that an inbox had before."""

    def close(self, reason: CloseReason) -> object:
        """End. Any thread; takes no lock."""


class Inbox:
    """A hub's sink. ``offer``, ``close`` and ``lost`` come from any thread, the rest from the one that reads.

    :param policy: how much may wait, and what becomes of the rest.
    :param count: called with the name of a counter and by how much it goes up.
    """

    def __init__(self, policy: Policy, count: Callable[[str, int], object]) -> None:
        #: How much may wait, and what becomes of the rest.
        self.policy = policy
        self._count = count
        self._condition = threading.Condition()
        self._frames: list[Frame] = []
        self._keyed: dict[Any, Frame] | None = None  # instead of them, since it is full
        self._size = 0
        self._reset: Frame | None = None
        self._last = b""
        self._dropped = 0
        self._newest = -1  # that was offered
        self._left_out = False  # something that is in the log
        self._looked = time.monotonic()
        self._waiting = 0
        self._reason: CloseReason | None = None
        self._successor: Successor | None = None
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
        return self._reason

    @property
    def pending(self) -> tuple[int, int]:
        """How many frames and bytes wait."""
        with self._condition:
            return len(self._frames if self._keyed is None else self._keyed), self._size

    # Of the hub.

    def offer_all(self, frames: Sequence[Frame]) -> bool:
        """:meth:`offer` for several, in order."""
        with self._condition:
            if self._left_out and self._reason is None:
                self._newest = max(self._newest, frames[-1].seq)
                return self._patient()
            return all(self._offer(frame) for frame in frames)

    def offer(self, frame: Frame) -> bool:
        """See :class:`ssesync.channels.hub.Sink`."""
        with self._condition:
            return self._offer(frame)

    def _offer(self, frame: Frame) -> bool:
        if self._reason is not None:
            return False
        if frame.seq <= self._newest:
            return True
        self._newest = frame.seq
        if self._left_out:
            return self._patient()
        if self._keyed is not None:
            return self._replace(frame)
        if self._has_room(frame):
            self._add(frame)
            return True
        if self.behind or self.policy.overflow == "disconnect":
            return self._leave_out()
        if self.policy.overflow == "drop_oldest":
            return self._drop_oldest(frame)
        self._coalesce_all()
        return self._replace(frame)

    def lost(self, why: str, epoch: str, position: int) -> None:
        """See :class:`ssesync.channels.hub.Sink`."""
        with self._condition:
            if self._reason is not None:
                return
            if epoch == self.epoch:
                # It has come with an id of the new log before the listener knew of that one. What was offered until now
                # was of the old one, whose numbers may be higher.
                self._clear(but_left_out=True)
                self._newest = self.cursor
                if position > self.cursor:
                    self.missed()
                return
            self.generation += 1
            self._clear()
            self.epoch, self.cursor, self._newest = epoch, position, position
            self.behind = self.blameless = False
            self._reset = self.reset(why, epoch, position)
            self._wake()

    def missed(self, channels: Collection[str] | None = None) -> None:
        """See :class:`ssesync.channels.hub.Sink`."""
        with self._condition:
            self._left_out = self.blameless = True
            if self.behind:
                self._frames, self._size = [], 0
            elif not (self._frames or self._keyed):
                self.behind = True
            self._wake()

    def close(self, reason: CloseReason, *, last: bytes = b"", discard: bool = False) -> bool:
        """End; whether this call was the one that ended it.

        What waits is still given, and then ``last``; not with ``discard``, nor when a right was taken back.
        """
        with self._condition:
            if self._successor is not None:
                self._successor.close(reason)
            if self._reason is not None:
                if discard:
                    self._clear()
                return False
            if self.behind or discard or reason is CloseReason.REVOKED:
                self._clear()  # where it is behind, this comes after a gap
            self._last = b"" if discard else last
            self._reason = reason
            self._wake()
            return True

    def pass_on(self, successor: Successor) -> CloseReason | None:
        """End, as somebody else has the client now, who is told of whatever would have ended this. If it has ended
        already: why."""
        with self._condition:
            if self._reason is None:
                self._reason, self._successor = CloseReason.CANCELLED, successor
                self._clear()
                return None
            return self._reason

    def abandon(self) -> None:
        """End without a lock: for a destructor, which may run on a thread that holds any."""
        self._reason = self._reason or CloseReason.CANCELLED

    # Of the reader.

    def start(self, epoch: str, cursor: int, *, behind: bool) -> None:
        """Set out after the cursor: live, or from the log."""
        with self._condition:
            self.epoch, self.cursor = epoch, cursor
            self.behind, self.blameless = behind or self._left_out, behind
            if not behind:
                self._newest = max(self._newest, cursor)
                self._keep_after(cursor)

    def still_reads(self) -> None:
        """The client takes what it was given, if slowly: it is none of those that are given up."""
        self._looked = time.monotonic()

    def look(self) -> tuple[int, str, int] | None:
        """Whether the log is to be read: generation, epoch and cursor. What is left out from now on is noticed."""
        with self._condition:
            self._looked = time.monotonic()
            if self._left_out and not (self._frames or self._keyed):
                self.behind = True
            if not self.behind or self._reason is not None:
                return None
            if self._left_out:
                self._clear()
            return self.generation, self.epoch, self.cursor

    def found(self, frames: list[Frame], *, complete: bool, generation: int, end: int, epoch: str) -> list[Frame]:
        """The log was read up to ``end``: what there is to give now. If nothing was left out, it is live."""
        with self._condition:
            if generation != self.generation or self._reason is not None:
                return []
            if epoch != self.epoch:
                # What has come so far may be of the old log, of which the numbers say nothing in this one.
                self._frames = [frame for frame in self._frames if frame.startswith(b"id: %s-" % epoch.encode())]
                self._size = sum(map(len, self._frames))
                self._newest = self._frames[-1].seq if self._frames else end
            self.epoch, self.cursor = epoch, end
            self._newest = max(self._newest, end)
            if complete and not self._left_out:
                self.behind = self.blameless = False
                self._keep_after(end)
                frames = frames + self._frames
                self._clear()
                self.cursor = frames[-1].seq if frames else end
            frames = self._take_reset() + frames
            self.events += len(frames)
            return frames

    def take(self, timeout: float | None) -> Sequence[bytes] | None:
        """Wait up to ``timeout`` seconds; ``None`` at the end. ``[]``: the time is over, or the log is to be read."""
        with self._condition:
            deadline = None if timeout is None else time.monotonic() + timeout
            while True:
                self._looked = time.monotonic()
                if self.behind and self._reason is None:
                    return self._take_reset()
                if self._frames or self._keyed or self._last or self._reset:
                    return self._give()
                if self._reason is not None:
                    return None
                remaining = None if deadline is None else deadline - self._looked
                if remaining is not None and remaining <= 0:
                    return []
                self._wait(remaining)

    def pause(self, timeout: float | None) -> None:
        """Wait up to ``timeout`` seconds for the end."""
        with self._condition:
            if self._reason is None:
                self._wait(timeout)

    def reset(self, why: str, epoch: str, position: int) -> Frame:
        """The event that tells a client to fetch anew what it shows, with the id to go on from."""
        self._count("resets", 1)
        return Frame.make(epoch, position, "", encode(Event(dump_json({"reason": why}), type=self.policy.reset_event)))

    # With the condition held.

    def _has_room(self, frame: Frame) -> bool:
        return self._fits(len(self._frames if self._keyed is None else self._keyed), frame)

    def _fits(self, waiting: int, frame: Frame) -> bool:
        if waiting >= self.policy.max_pending_events:
            return False
        return not waiting or self._size + len(frame) <= self.policy.max_pending_bytes

    def _add(self, frame: Frame) -> None:
        if not self._frames:
            self._looked = time.monotonic()  # before this there was nothing to be seen
        self._frames.append(frame)
        self._size += len(frame)
        self._wake()

    def _give(self) -> list[bytes]:
        items: list[bytes] = [*self._take_reset()]
        if self._dropped:
            items.append(encode(Event(dump_json({"count": self._dropped}), type=self.policy.dropped_event)))
            self._dropped = 0
        frames = self._frames if self._keyed is None else list(self._keyed.values())
        if frames:
            self.cursor = frames[-1].seq
        self.events += len(frames)
        items += frames
        if self._last:
            items.append(self._last)
            self._last = b""
        self._clear(but_left_out=True)
        return items

    def _take_reset(self) -> list[Frame]:
        frame, self._reset = self._reset, None
        return [] if frame is None else [frame]

    def _keep_after(self, cursor: int) -> None:
        self._frames = [frame for frame in self._frames if frame.seq > cursor]
        self._size = sum(map(len, self._frames))

    def _clear(self, *, but_left_out: bool = False) -> None:
        self._frames = []
        self._keyed = None
        self._size = 0
        self._left_out = but_left_out and self._left_out

    def _leave_out(self) -> bool:
        self._clear()
        self._left_out = self.behind = True
        self._wake()
        return self._patient()

    def _patient(self) -> bool:
        # One that waits here is no slow one: it is woken, and may just not have had the processor yet.
        if self._waiting or time.monotonic() - self._looked <= self.policy.patience:
            return True
        self._count("disconnected", 1)
        self.close(CloseReason.OVERFLOW, discard=True)
        return False

    def _drop_oldest(self, frame: Frame) -> bool:
        dropped = 0
        while dropped < len(self._frames) and not self._fits(len(self._frames) - dropped, frame):
            self._size -= len(self._frames[dropped])
            dropped += 1
        del self._frames[:dropped]
        self._dropped += dropped
        self._count("dropped", dropped)
        self._add(frame)
        return True

    def _coalesce_all(self) -> None:
        frames, self._frames, self._keyed = self._frames, [], {}
        for frame in frames:
            key = self._key(frame)
            self._keyed.pop(key, None)  # the newest last, so that ids ascend
            self._keyed[key] = frame
        self._size = sum(map(len, self._keyed.values()))
        self._count("coalesced", len(frames) - len(self._keyed))

    def _replace(self, frame: Frame) -> bool:
        assert self._keyed is not None
        key = self._key(frame)
        older = self._keyed.pop(key, None)
        if older is not None:
            self._size -= len(older)
            self._count("coalesced", 1)
        if not self._has_room(frame):
            return self._leave_out()
        self._keyed[key] = frame
        self._size += len(frame)
        self._wake()
        return True

    def _key(self, frame: Frame) -> Any:
        assert self.policy.coalesce is not None
        try:
            key = self.policy.coalesce(frame.event)
            hash(key)
        except Exception:
            logger.exception("the function that coalesces events failed")
            key = None
        return frame.seq if key is None else (frame.channel, key)

    def _wait(self, timeout: float | None) -> None:
        self._waiting += 1
        try:
            self._condition.wait(timeout)
        finally:
            self._waiting -= 1

    def _wake(self) -> None:
        if self.on_wake is not None:
            self.on_wake()
        if self._waiting:
            self._condition.notify_all()
