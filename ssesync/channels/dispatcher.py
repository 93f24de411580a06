"""The dispatcher: who in this process listens to which channels. Messages come in once and are offered to each.

It holds *sinks*, and never waits for one. Sinks come and go from any thread, messages come from one at a time. A sink
that is attached gets every message that is delivered afterwards; where that begins is ``position``, all before it lies
in the log.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from ..errors import CloseReason
from ..locks import make_lock
from .index import Index, drop, having, matches, put
from .message import CONTROL, Message
from .reentry import entered, entered_or_inside

__all__ = ["Closable", "Dispatcher", "Registration", "SharedSink", "Sink"]

logger = logging.getLogger("ssesync")

# Messages that are offered to a sink at a time. So a thread that waits is woken once for all of them, not for each:
# with a thousand threads that made bursts twenty times as fast. A quarter of what may wait for a sink by default.
_RUN = 64
# The sinks of a channel are remembered where it has more members than this. Of a user's own channel they are found as
# fast, and remembering would take memory for each user.
_FEW = 8


class Closable(Protocol):
    """Who has channels. Nothing here may wait; called on any thread."""

    def close(self, reason: CloseReason) -> object:
        """End for a reason of the broker's: it closes, or a right was taken back."""


class Sink(Protocol):
    """What a dispatcher feeds. Nothing here may wait; called on the thread that publishes or listens."""

    def offer(self, messages: Sequence[Message]) -> bool:
        """Give messages to the sink.

        :param messages: in order. One that was offered before may come again, and one from before the sink was
            attached may come: ``seq`` tells.
        :return: false if the sink has ended, and is to be detached.
        """

    def restarted(self, epoch: str, position: int) -> object:
        """Report that the log was begun anew.

        :param epoch: of the new log.
        :param position: the number of the event after which messages are offered from now on.
        """

    def missed(self, channels: Collection[str] | None) -> object:
        """Report that messages were not offered that are in the log. More may be offered afterwards.

        :param channels: the channels that they are of; ``None``: any.
        """


class ClosableSink(Sink, Closable, Protocol):
    """A sink that is a member itself."""


class SharedSink(Sink, Protocol):
    """A sink that several have, who are members by themselves."""

    def revoked(self, who: Closable) -> object:
        """One of those who have this is not to get what is offered from now on."""


@dataclass(eq=False, slots=True)
class Registration:
    """What the dispatcher knows of one who has channels."""

    channels: tuple[str, ...]
    patterns: tuple[str, ...]
    key: str | None
    sink: Sink
    """What is fed: the member itself, or what it shares with others."""

    def covers(self, channel: str) -> bool:
        """Whether the channel is among those of the member."""
        return channel in self.channels or any(matches(each, channel) for each in self.patterns)


class Dispatcher:
    """See the module. Its methods may be called from any thread but for :meth:`claim` and :meth:`deliver`, whose
    callers come one at a time."""

    def __init__(self) -> None:
        self._lock = make_lock("channels.dispatcher")
        self._members: dict[Closable, Registration] = {}
        self._index: Index[Closable] = Index()
        self._keys: dict[str, Closable | dict[Closable, None]] = {}
        self._replaced: dict[Closable, Closable] = {}  # who is about to go, by who has come instead
        self._snapshots: dict[str, tuple[Sink, ...]] = {}
        self._gone: deque[Any] = deque()
        #: Which log ``position`` is a place of.
        self.epoch = ""
        #: A sink that is attached now gets all that comes after this.
        self.position = 0
        self._changed: set[str] | None = None  # until somebody asks: within one process nobody does
        #: Called with each message of the brokers' own channel.
        self.on_control: Callable[[Message], object] = lambda message: None

    def attach(
        self, sink: ClosableSink, channels: Iterable[str], patterns: Iterable[str] = (), key: str | None = None
    ) -> None:
        """Offer the sink every message of these channels from now on."""
        self._register(sink, Registration(tuple(channels), tuple(patterns), key, sink), None)

    def register(self, who: Closable, member: Registration, instead_of: Closable | None = None) -> tuple[str, int]:
        """One more has channels, who counts by himself and ends by himself, and gets what a shared sink is offered.

        The sink is offered each message once, however many have it. ``instead_of`` is who will be detached next, and
        who counts no more. The answer: the log and the place in it from which on the sink is offered all messages of
        these channels. What came before, it may not have been offered.
        """
        return self._register(who, member, instead_of)

    def _register(self, who: Any, member: Registration, instead_of: Closable | None) -> tuple[str, int]:
        with self._held():
            self._members[who] = member
            if instead_of is not None:
                self._replaced[who] = instead_of
            self._index.add(who, member.channels, member.patterns)
            if member.key is not None:
                put(self._keys, member.key, who)
            self._changed_at(member, None if member.sink is who else member.sink)
            return self.epoch, self.position

    def detach(self, who: Closable) -> None:
        """Offer the sink nothing more. Any number of times, and also from a destructor, which may run anywhere."""
        self._gone.append(who)
        self._purge()

    def __len__(self) -> int:
        return len(self._members)

    def count(self, channel: str) -> int:
        """How many have the channel, be it by a pattern."""
        with self._held():
            return self._count(self._index.having(channel))

    def channel_count(self) -> int:
        """How many channels anyone has by their names."""
        return len(self._index.names)

    def take_changed(self, *, every: bool = False) -> dict[str, int]:
        """The channels whose number of members has changed since the last call, or all of them, with that number."""
        with self._held():
            changed, self._changed = self._changed, set()
            if every or changed is None:
                changed = {*(changed or ()), *self._index.names}
            return {channel: self._count(having(self._index.names, channel)) for channel in changed}

    def _count(self, found: Collection[Closable]) -> int:
        return len(found) - sum(new in found and old in found for new, old in self._replaced.items())

    def claim(self, channels: Iterable[str], position: int) -> list[str]:
        """Take it on to deliver what comes up to ``position``; those of the channels that anyone wants."""
        with self._held():
            self.position = position
            return [channel for channel in channels if channel == CONTROL or self._sinks_of(channel)]

    def deliver(self, messages: Iterable[Message], position: int | None = None) -> None:
        """Offer messages, in order, to all who have their channels; ``position`` is where they end."""
        with self._held():
            if position is not None:
                # Before they are offered: a sink that comes from now on looks for them in the log.
                self.position = position
            runs: list[tuple[list[Message], tuple[Sink, ...]]] = []
            for message in messages:
                sinks = self._sinks_of(message.channel)
                last = runs[-1][1] if runs else None
                if (sinks is not last and sinks != last) or len(runs[-1][0]) == _RUN:
                    runs.append(([], sinks))
                runs[-1][0].append(message)
        for run, sinks in runs:
            for message in run:
                if message.channel == CONTROL:
                    self.on_control(message)
            # Sink by sink: one that waits is woken once, and finds all of them.
            for sink in sinks:
                if not sink.offer(run):
                    self._gone.append(sink)
        self._purge()

    def restarted(self, epoch: str, position: int) -> None:
        """Report to all sinks that the log was begun anew.

        :param epoch: of the new log.
        :param position: the number of the event after which messages are delivered from now on.
        """
        with self._held():
            self.epoch, self.position = epoch, position
            sinks = self._all_sinks()
        for sink in sinks:
            sink.restarted(epoch, position)

    def missed(self, channels: Iterable[str] | None) -> None:
        """Tell the sinks of some channels, or all, that not everything could be delivered to them."""
        with self._held():
            found: dict[Sink, list[str] | None] = {}
            if channels is None:
                found.update(dict.fromkeys(self._all_sinks()))
            for name in channels or ():
                for sink in self._sinks_of(name):
                    found[sink] = [*(found.get(sink) or ()), name]
        for sink, names in found.items():
            sink.missed(names)

    def revoke(self, key: str, channel: str | None) -> int:
        """End the members that a key has, or only those that have the channel; how many that were."""
        with self._held():
            members: list[tuple[Any, Registration]] = [(who, self._members[who]) for who in having(self._keys, key)]
        members = [(who, member) for who, member in members if channel is None or member.covers(channel)]
        for who, member in members:
            if member.sink is not who:
                cast(SharedSink, member.sink).revoked(who)
            who.close(CloseReason.REVOKED)
            self.detach(who)
        return len(members)

    def close(self, reason: CloseReason) -> None:
        """End all members. Any thread, any signal handler: it waits for no lock."""
        for member in list(self._members):  # one step of the interpreter
            member.close(reason)
            self.detach(member)

    def _all_sinks(self) -> list[Sink]:
        return list(dict.fromkeys(member.sink for member in self._members.values()))

    def _sinks_of(self, channel: str) -> tuple[Sink, ...]:
        sinks = self._snapshots.get(channel)
        if sinks is None:
            found = self._index.having(channel)
            sinks = tuple(dict.fromkeys([self._members[who].sink for who in found]))
            if len(found) > _FEW:
                if len(self._snapshots) > 10_000:
                    self._snapshots.clear()
                self._snapshots[channel] = sinks
        return sinks

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        try:
            with entered(), self._lock:
                yield
        finally:
            self._purge()

    def _purge(self) -> None:
        # A sink may be let go of by a destructor, on a thread that holds the lock: then it waits in the queue until
        # the lock is free. Whoever held it comes here after letting go, so nobody stays behind.
        if not self._gone:
            return
        with entered_or_inside():
            while self._gone and self._lock.acquire(blocking=False):
                try:
                    while self._gone:
                        self._remove(self._gone.popleft())
                finally:
                    self._lock.release()

    def _remove(self, who: Closable) -> None:
        member = self._members.pop(who, None)
        if member is None:
            return
        if self._replaced:
            self._replaced = {new: old for new, old in self._replaced.items() if who not in (new, old)}
        self._index.remove(who, member.channels, member.patterns)
        if member.key is not None:
            drop(self._keys, member.key, who)
        self._changed_at(member)

    def _changed_at(self, member: Registration, sharing: Sink | None = None) -> None:
        if self._changed is not None:
            self._changed.update(member.channels)
        if member.patterns:
            self._snapshots.clear()
        for channel in member.channels:
            # One more who has a sink that is fed already changes nothing.
            if sharing is None or sharing not in self._snapshots.get(channel, ()):
                self._snapshots.pop(channel, None)
