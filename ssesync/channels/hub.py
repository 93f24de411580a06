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
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import CloseReason
from .frame import CONTROL, Frame, compiled

__all__ = ["Hub", "Listed", "Sink"]

logger = logging.getLogger("ssesync")

# Frames that are offered to a sink at a time. So a thread that waits is woken once for all of them, not for each: with
# a thousand threads that made bursts twenty times as fast. A quarter of what may wait for a sink by default.
_RUN = 64


class Listed(Protocol):
    """Who has channels. Nothing here may wait; called on any thread."""

    def close(self, reason: CloseReason) -> object:
        """End for a reason of the broker's: it closes, or a right was taken back."""


class Sink(Listed, Protocol):
    """What a hub feeds. Nothing here may wait; called on the thread that publishes or listens."""

    def offer(self, frame: Frame) -> bool:
        """Take a frame, or not. ``False``: the sink is over, drop it. A frame that was offered before may come again,
        and one from before the sink was attached may come: ``seq`` tells."""

    def lost(self, why: str, epoch: str, position: int) -> object:
        """The log was begun anew: what comes now comes after ``position`` of ``epoch``."""

    def missed(self) -> object:
        """There was more than was offered, and more may come: the log knows."""

    def revoked(self, who: Listed) -> object:
        """One of those who have this is not to get what is offered from now on."""


@dataclass(eq=False, slots=True)
class Member:
    """What the hub knows of one who has channels."""

    channels: tuple[str, ...]
    patterns: tuple[str, ...]
    key: str | None
    sink: Sink
    expressions: tuple[re.Pattern[str], ...] = ()

    def covers(self, channel: str) -> bool:
        """Whether the channel is among those of the sink."""
        return channel in self.channels or any(each.fullmatch(channel) for each in self.expressions)


class Hub:
    """See the module. Its methods may be called from any thread but for :meth:`claim` and :meth:`deliver`, whose
    callers come one at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._members: dict[Listed, Member] = {}
        self._channels: dict[str, dict[Listed, Sink]] = {}
        self._patterns: dict[str, tuple[re.Pattern[str], dict[Listed, Sink]]] = {}
        self._keys: dict[str, dict[Listed, None]] = {}
        self._replaced: dict[Listed, Listed] = {}  # who is about to go, by who has come instead
        self._snapshots: dict[str, tuple[Sink, ...]] = {}
        self._gone: deque[Listed] = deque()
        #: Which log ``position`` is a place of.
        self.epoch = ""
        #: A sink that is attached now gets all that comes after this.
        self.position = 0
        self._changed: set[str] | None = None  # until somebody asks: within one process nobody does
        self._sharing: dict[Sink, int] = {}  # how many have a sink that is not theirs alone
        #: Called with each frame of the brokers' own channel.
        self.on_control: Callable[[Frame], object] = lambda frame: None

    def attach(self, sink: Sink, channels: Iterable[str], patterns: Iterable[str] = (), key: str | None = None) -> None:
        """Offer the sink every frame of these channels from now on."""
        self.enlist(sink, sink, channels, patterns, key)

    def enlist(
        self,
        who: Listed,
        sink: Sink,
        channels: Iterable[str],
        patterns: Iterable[str] = (),
        key: str | None = None,
        instead_of: Listed | None = None,
    ) -> bool:
        """One more has these channels, who counts by himself and ends by himself, and gets what the sink is offered.

        The sink is offered each frame once, however many have it. ``instead_of`` is who will be detached next, and who
        counts no more. The answer: whether others had the sink already. If not, it may have missed what came since the
        last of them was gone.
        """
        member = Member(tuple(channels), tuple(patterns), key, sink)
        with self._held():
            self._members[who] = member
            if instead_of is not None:
                self._replaced[who] = instead_of
            sharing = self._sharing.get(sink, 0)
            if who is not sink:
                self._sharing[sink] = sharing + 1
            for channel in member.channels:
                self._channels.setdefault(channel, {})[who] = sink
            for pattern in member.patterns:
                expression, members = self._patterns.setdefault(pattern, (compiled(pattern), {}))
                member.expressions += (expression,)
                members[who] = sink
            if key is not None:
                self._keys.setdefault(key, {})[who] = None
            self._changed_at(member)
            return sharing > 0

    def detach(self, who: Listed) -> None:
        """Offer the sink nothing more. Any number of times, and also from a destructor, which may run anywhere."""
        self._gone.append(who)
        self._purge()

    def __len__(self) -> int:
        return len(self._members)

    def count(self, channel: str) -> int:
        """How many have the channel, be it by a pattern."""
        with self._held():
            having = [self._channels.get(channel, {})]
            having += [each for expression, each in self._patterns.values() if expression.fullmatch(channel)]
            return self._count(having[0] if len(having) == 1 else set().union(*having))

    def channel_count(self) -> int:
        """How many channels anyone has by their names."""
        return len(self._channels)

    def take_changed(self, *, every: bool = False) -> dict[str, int]:
        """The channels whose number of members has changed since the last call, or all of them, with that number."""
        with self._held():
            changed, self._changed = self._changed, set()
            if every or changed is None:
                changed = {*(changed or ()), *self._channels}
            return {channel: self._count(self._channels.get(channel, ())) for channel in changed}

    def _count(self, having: Collection[Listed]) -> int:
        return len(having) - sum(new in having and old in having for new, old in self._replaced.items())

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
            sinks = self._all_sinks()
        for sink in sinks:
            sink.lost(why, epoch, position)

    def missed(self, channels: Iterable[str] | None) -> None:
        """Tell the sinks of some channels, or all, that not everything could be delivered to them."""
        with self._held():
            found = (sink for name in channels or () for sink in self._sinks_of(name))
            sinks = self._all_sinks() if channels is None else list(dict.fromkeys(found))
        for sink in sinks:
            sink.missed()

    def revoke(self, key: str, channel: str | None) -> int:
        """End the members that a key has, or only those that have the channel; how many that were."""
        with self._held():
            members = [(who, self._members[who]) for who in self._keys.get(key, ())]
        members = [(who, member) for who, member in members if channel is None or member.covers(channel)]
        for who, member in members:
            if member.sink is not who:
                member.sink.revoked(who)
            who.close(CloseReason.REVOKED)
            self.detach(who)
        return len(members)

    def close(self, reason: CloseReason) -> None:
        """End all members."""
        with self._held():
            members = list(self._members)
        for member in members:
            member.close(reason)
            self.detach(member)

    def _all_sinks(self) -> list[Sink]:
        return list(dict.fromkeys(member.sink for member in self._members.values()))

    def _sinks_of(self, channel: str) -> tuple[Sink, ...]:
        sinks = self._snapshots.get(channel)
        if sinks is None:
            found = dict.fromkeys(self._channels.get(channel, {}).values())
            if channel != CONTROL:
                for expression, matching in self._patterns.values():
                    if expression.fullmatch(channel):
                        found.update(dict.fromkeys(matching.values()))
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

    def _remove(self, who: Listed) -> None:
        member = self._members.pop(who, None)
        if member is None:
            return
        if member.sink is not who:
            self._sharing[member.sink] -= 1
            if not self._sharing[member.sink]:
                del self._sharing[member.sink]
        if self._replaced:
            self._replaced = {new: old for new, old in self._replaced.items() if who not in (new, old)}
        for channel in member.channels:
            _drop(self._channels, channel, who)
        for pattern in member.patterns:
            _, members = self._patterns[pattern]
            members.pop(who, None)
            if not members:
                del self._patterns[pattern]
        if member.key is not None:
            _drop(self._keys, member.key, who)
        self._changed_at(member)

    def _changed_at(self, member: Member) -> None:
        if self._changed is not None:
            self._changed.update(member.channels)
        if member.patterns:
            self._snapshots.clear()
        for channel in member.channels:
            self._snapshots.pop(channel, None)


def _drop(table: dict[str, dict[Listed, Any]], name: str, who: Listed) -> None:
    members = table.get(name, {})
    members.pop(who, None)
    if not members:
        table.pop(name, None)
