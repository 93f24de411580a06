"""The hub: who in this process listens to which channels. Frames come in once and are offered to each.

It holds *sinks*, and never waits for one. Sinks come and go from any thread, frames come from one at a time. A sink
that is attached gets every frame that is delivered afterwards; where that begins is ``position``, all before it lies
in the log.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import CloseReason
from .frame import CONTROL, Frame, compiled

__all__ = ["Hub", "Sink"]

logger = logging.getLogger("ssesync")

# Frames that are offered to a sink at a time. So a thread that waits is woken once for all of them, not for each: with
# a thousand threads that made bursts twenty times as fast. A quarter of what may wait for a sink by default.
_RUN = 64


class Sink(Protocol):
    """What a hub feeds. Nothing here may wait; called on the thread that publishes or listens."""

    def offer(self, frame: Frame) -> bool:
        """Take a frame, or not. ``False``: the sink is over, drop it. A frame that was offered before may come again,
        and one from before the sink was attached may come: ``seq`` tells."""

    def close(self, reason: CloseReason) -> object:
        """End for a reason of the broker's: it closes, or a right was taken back."""

    def lost(self, why: str, epoch: str, position: int) -> object:
        """The log was begun anew: what comes now comes after ``position`` of ``epoch``."""

    def missed(self) -> object:
        """There was more than was offered, and more may come: the log knows."""


@dataclass(eq=False)
class Member:
    """What the hub knows of a sink."""

    channels: tuple[str, ...]
    patterns: tuple[str, ...]
    key: str | None
    expressions: list[re.Pattern[str]] = field(default_factory=list)

    def covers(self, channel: str) -> bool:
        """Whether the channel is among those of the sink."""
        return channel in self.channels or any(each.fullmatch(channel) for each in self.expressions)


class Hub:
    """See the module. Its methods may be called from any thread but for :meth:`claim` and :meth:`deliver`, whose
    callers come one at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._members: dict[Sink, Member] = {}
        self._channels: dict[str, dict[Sink, None]] = {}
        self._patterns: dict[str, tuple[re.Pattern[str], dict[Sink, None]]] = {}
        self._keys: dict[str, dict[Sink, None]] = {}
        self._snapshots: dict[str, tuple[Sink, ...]] = {}
        self._gone: deque[Sink] = deque()
        #: Which log ``position`` is a place of.
        self.epoch = ""
        #: A sink that is attached now gets all that comes after this.
        self.position = 0
        self._changed: set[str] = set()
        #: Called with each frame of the brokers' own channel.
        self.on_control: Callable[[Frame], object] = lambda frame: None

    def attach(self, sink: Sink, channels: Iterable[str], patterns: Iterable[str] = (), key: str | None = None) -> None:
        """Offer the sink every frame of these channels from now on."""
        member = Member(tuple(channels), tuple(patterns), key)
        with self._held():
            self._members[sink] = member
            for channel in member.channels:
                self._channels.setdefault(channel, {})[sink] = None
            for pattern in member.patterns:
                expression, sinks = self._patterns.setdefault(pattern, (compiled(pattern), {}))
                member.expressions.append(expression)
                sinks[sink] = None
            if key is not None:
                self._keys.setdefault(key, {})[sink] = None
            self._changed_at(member)

    def detach(self, sink: Sink) -> None:
        """Offer the sink nothing more. Any number of times, and also from a destructor, which may run anywhere."""
        self._gone.append(sink)
        self._purge()

    def __len__(self) -> int:
        return len(self._members)

    def count(self, channel: str) -> int:
        """How many sinks have the channel, be it by a pattern."""
        with self._held():
            return len(self._sinks_of(channel))

    def take_changed(self, *, every: bool = False) -> dict[str, int]:
        """The channels whose number of sinks has changed since the last call, or all of them, with that number."""
        with self._held():
            changed, self._changed = self._changed, set()
            if every:
                changed.update(self._channels)
            return {channel: len(self._channels.get(channel, ())) for channel in changed}

    def claim(self, channels: Iterable[str], position: int) -> list[str]:
        """Take it on to deliver what comes up to ``position``; those of the channels that anyone wants."""
        with self._held():
            self.position = position
            return [channel for channel in channels if channel == CONTROL or self._sinks_of(channel)]

    def deliver(self, frames: Iterable[Frame], position: int | None = None) -> None:
        """Offer frames, in order, to all who have their channels; ``position`` is where they end."""
        with self._held():
            if position is not None:
                # Before they are offered: a sink that comes from now on looks for them in the log.
                self.position = position
            runs: list[tuple[list[Frame], tuple[Sink, ...]]] = []
            for frame in frames:
                sinks = self._sinks_of(frame.channel)
                if not runs or runs[-1][1] is not sinks or len(runs[-1][0]) == _RUN:
                    runs.append(([], sinks))
                runs[-1][0].append(frame)
        for run, sinks in runs:
            for frame in run:
                if frame.channel == CONTROL:
                    self.on_control(frame)
            # Sink by sink: one that waits is woken once, and finds all of them.
            for sink in sinks:
                for frame in run:
                    if not sink.offer(frame):
                        self._gone.append(sink)
                        break
        self._purge()

    def lost(self, why: str, epoch: str, position: int) -> None:
        """Tell all sinks that the log was begun anew, and go on after ``position`` of ``epoch``."""
        with self._held():
            self.epoch, self.position = epoch, position
            sinks = list(self._members)
        for sink in sinks:
            sink.lost(why, epoch, position)

    def missed(self, channels: Iterable[str] | None) -> None:
        """Tell the sinks of some channels, or all, that not everything could be delivered to them."""
        with self._held():
            found = self._members if channels is None else (sink for name in channels for sink in self._sinks_of(name))
            sinks = list(dict.fromkeys(found))
        for sink in sinks:
            sink.missed()

    def revoke(self, key: str, channel: str | None) -> int:
        """End the sinks that a key has, or only those that have the channel; how many that were."""
        with self._held():
            sinks = [
                sink
                for sink in self._keys.get(key, ())
                if channel is None or self._members[sink].covers(channel)
            ]  # fmt: skip
        for sink in sinks:
            sink.close(CloseReason.REVOKED)
            self.detach(sink)
        return len(sinks)

    def close(self, reason: CloseReason) -> None:
        """End all sinks."""
        with self._held():
            sinks = list(self._members)
        for sink in sinks:
            sink.close(reason)
            self.detach(sink)

    def _sinks_of(self, channel: str) -> tuple[Sink, ...]:
        sinks = self._snapshots.get(channel)
        if sinks is None:
            found = dict(self._channels.get(channel, ()))
            if channel != CONTROL:
                for expression, matching in self._patterns.values():
                    if expression.fullmatch(channel):
                        found.update(matching)
            if len(self._snapshots) > 10_000:
                self._snapshots.clear()
            sinks = self._snapshots[channel] = tuple(found)
        return sinks

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        finally:
            self._purge()

    def _purge(self) -> None:
        # A sink may be let go of by a destructor, on a thread that holds the lock: then it waits in the queue until
        # the lock is free. Whoever held it comes here after letting go, so nobody stays behind.
        while self._gone and self._lock.acquire(blocking=False):
            try:
                while self._gone:
                    self._remove(self._gone.popleft())
            finally:
                self._lock.release()

    def _remove(self, sink: Sink) -> None:
        member = self._members.pop(sink, None)
        if member is None:
            return
        for channel in member.channels:
            sinks = self._channels.get(channel, {})
            sinks.pop(sink, None)
            if not sinks:
                self._channels.pop(channel, None)
        for pattern in member.patterns:
            _, sinks = self._patterns[pattern]
            sinks.pop(sink, None)
            if not sinks:
                del self._patterns[pattern]
        if member.key is not None:
            sinks = self._keys[member.key]
            sinks.pop(sink, None)
            if not sinks:
                del self._keys[member.key]
        self._changed_at(member)

    def _changed_at(self, member: Member) -> None:
        self._changed.update(member.channels)
        if member.patterns:
            self._snapshots.clear()
        for channel in member.channels:
            self._snapshots.pop(channel, None)
