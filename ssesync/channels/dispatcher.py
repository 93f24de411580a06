"""The dispatcher: the subscriptions of this process to channels. Each message comes in once and is offered to them.

It holds *sinks*, and never waits for one. Sinks are added and removed by any thread; messages come from one at a time.
A sink gets every message that is delivered after it was added: those after ``position``. All before it is in the log.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from ..errors import CloseReason
from ..locks import make_lock
from .index import Index, drop, having, matches, put
from .message import CONTROL, Message
from .reentry import carry_out, entered

__all__ = ["Closable", "Dispatcher", "Registration", "SharedSink", "Sink"]

# Messages that are offered to a sink at a time. So a thread that waits is woken once for all of them, not for each:
# with a thousand threads that made bursts twenty times as fast. A quarter of what may wait for a sink by default.
_RUN = 64
# The sinks of a channel are remembered where it has more members than this. Of a user's own channel they are found as
# fast, and remembering would take memory for each user.
_FEW = 8
# Channels whose sinks are remembered.
_MOST_REMEMBERED = 10_000


class Closable(Protocol):
    """A member: an object that is subscribed to channels. Nothing here may wait; called on any thread."""

    def close(self, reason: CloseReason) -> object:
        """End it, since the broker closes or a right was taken back.

        :param reason: which of the two.
        """


class Sink(Protocol):
    """A dispatcher offers messages to it. Nothing here may wait; called on the thread that publishes or listens."""

    def offer(self, messages: Sequence[Message]) -> CloseReason | None:
        """Give messages to the sink.

        :param messages: in order. One that was offered before may come again, and one from before the sink was added
            may come: compare ``seq``.
        :return: why the sink has ended, and is to be removed; ``None`` while it has not.
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


class SharedSink(Sink, Protocol):
    """A sink that is offered the messages of several members."""

    def revoked(self, member: Closable) -> object:
        """Report that a member is not to get what is offered from now on.

        :param member: the member.
        """


@dataclass(eq=False, slots=True)
class Registration:
    """A member's channels, key and sink."""

    channels: tuple[str, ...]
    patterns: tuple[str, ...]
    key: str | None
    sink: Sink
    """Is offered the member's messages: the member itself, or a sink that it shares with others."""

    def covers(self, channel: str) -> bool:
        """Whether a channel is among those of the member.

        :param channel: the channel's name.
        :return: whether it is.
        """
        return channel in self.channels or any(matches(each, channel) for each in self.patterns)


class Dispatcher:
    """See the module. Its methods may be called from any thread but for :meth:`advance` and :meth:`deliver`, whose
    callers come one at a time."""

    def __init__(self) -> None:
        self._lock = make_lock("channels.dispatcher")
        self._members: dict[Closable, Registration] = {}
        self._index: Index[Closable] = Index()
        self._keys: dict[str, Closable | dict[Closable, None]] = {}
        self._replaced: dict[Closable, Closable] = {}  # a member that is about to be removed, by the one in its place
        self._remembered: dict[str, tuple[Sink, ...]] = {}  # the sinks of a channel
        self._removed: deque[Any] = deque()  # members that are to be removed
        #: Which log ``position`` is a number of.
        self.epoch = ""
        #: A sink that is added now is offered all that comes after this.
        self.position = 0
        self._changed: set[str] | None = None  # noted from the first take_changed() on: memory:// never calls it
        #: Called with each message of the brokers' own channel.
        self.on_control: Callable[[Message], object] = lambda message: None

    def register(
        self, member: Closable, registration: Registration, replaces: Closable | None = None
    ) -> tuple[str, int]:
        """Add a member. It is counted and closed by itself, and may share its sink with others: that is offered each
        message once, however many members want it.

        :param member: the member.
        :param registration: its channels and its sink.
        :param replaces: a member that is about to be removed, and is not counted any more.
        :return: the log and the number after which the sink is offered all messages of these channels. A shared sink
            may not have been offered those before.
        """
        try:
            with entered(), self._lock:  # as _held(), without its cost for each client that comes
                self._members[member] = registration
                if replaces is not None:
                    self._replaced[member] = replaces
                self._index.add(member, registration.channels, registration.patterns)
                if registration.key is not None:
                    put(self._keys, registration.key, member)
                self._note_change(registration, member)
                return self.epoch, self.position
        finally:
            self._purge()

    def remove(self, member: Closable) -> None:
        """Remove a member. Any number of times, and also from a destructor, which may run anywhere.

        :param member: the member.
        """
        self._removed.append(member)
        self._purge()

    def __len__(self) -> int:
        return len(self._members)

    def count(self, channel: str) -> int:
        """Count the members that have a channel, by its name or by a pattern.

        :param channel: the channel's name.
        :return: how many there are.
        """
        with self._held():
            return self._count(self._index.having(channel))

    def channel_count(self) -> int:
        """Count the channels that members have by their names.

        :return: how many there are.
        """
        return len(self._index.names)

    def take_changed(self, *, every: bool = False) -> dict[str, int]:
        """Take the channels whose number of members has changed since the last call.

        :param every: all channels, changed or not.
        :return: the number of members by channel.
        """
        with self._held():
            changed, self._changed = self._changed, set()
            if every or changed is None:
                changed = {*(changed or ()), *self._index.names}
            return {channel: self._count(having(self._index.names, channel)) for channel in changed}

    def _count(self, found: Collection[Closable]) -> int:
        return len(found) - sum(new in found and old in found for new, old in self._replaced.items())

    def advance(self, channels: Iterable[str], position: int) -> list[str]:
        """Promise to deliver what comes up to a position: a member that is added from now on gets only what is later.

        :param channels: the channels of these messages.
        :param position: the number of the last of them.
        :return: those of the channels that members have, or that the brokers use.
        """
        with self._held():
            self.position = position
            return [channel for channel in channels if channel == CONTROL or self._sinks_of(channel)]

    def deliver(self, messages: Iterable[Message], position: int | None = None) -> None:
        """Offer messages to all members that have their channels.

        :param messages: in order.
        :param position: the number of the last of them, where :meth:`advance` was not called for it.
        """
        with self._held():
            if position is not None:
                # Before they are offered: a sink that is added from now on finds them in the log.
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
                if sink.offer(run) is not None:
                    self._removed.append(sink)
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
        """Report to sinks that messages could not be delivered, which are in the log.

        :param channels: the channels that they are of; ``None``: any.
        """
        with self._held():
            found: dict[Sink, list[str] | None] = {}
            if channels is None:
                found.update(dict.fromkeys(self._all_sinks()))
            for name in channels or ():
                for sink in self._sinks_of(name):
                    found[sink] = [*(found.get(sink) or ()), name]
        for sink, names in found.items():
            sink.missed(names)

    def revoke(self, key: str | None, channel: str | None) -> int:
        """Close and remove the members that have a key.

        :param key: the key; ``None``: any.
        :param channel: only those that have this channel too; ``None``: all.
        :return: how many there were.
        """
        with self._held():
            keys = self._keys if key is None else (key,)
            found: list[tuple[Any, Registration]] = [
                (member, self._members[member]) for each in keys for member in having(self._keys, each)
            ]
        if channel is not None:
            found = [(member, registration) for member, registration in found if registration.covers(channel)]
        for member, registration in found:
            if registration.sink is not member:
                cast(SharedSink, registration.sink).revoked(member)
            member.close(CloseReason.REVOKED)
            self.remove(member)
        return len(found)

    def close(self, reason: CloseReason) -> None:
        """Close and remove all members. Any thread, any signal handler: it waits for no lock.

        :param reason: why.
        """
        for member in list(self._members):  # one step of the interpreter
            member.close(reason)
            self.remove(member)

    def _all_sinks(self) -> list[Sink]:
        return list(dict.fromkeys(registration.sink for registration in self._members.values()))

    def _sinks_of(self, channel: str) -> tuple[Sink, ...]:
        sinks = self._remembered.get(channel)
        if sinks is None:
            found = self._index.having(channel)
            sinks = tuple(dict.fromkeys([self._members[member].sink for member in found]))
            if len(found) > _FEW:
                if len(self._remembered) > _MOST_REMEMBERED:
                    self._remembered.clear()
                self._remembered[channel] = sinks
        return sinks

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        try:
            with entered(), self._lock:
                yield
        finally:
            self._purge()

    def _purge(self) -> None:
        # A member may be removed by a destructor, on a thread that holds the lock: then it waits in the queue until the
        # lock is free. The thread that held it comes here after releasing it, so no member stays.
        if not self._removed:
            return
        carry_out(self._lock, lambda: self._removed, self._remove_queued)

    def _remove_queued(self) -> None:
        while self._removed:
            self._remove(self._removed.popleft())

    def _remove(self, member: Closable) -> None:
        registration = self._members.pop(member, None)
        if registration is None:
            return
        if self._replaced:
            self._replaced = {new: old for new, old in self._replaced.items() if member not in (new, old)}
        self._index.remove(member, registration.channels, registration.patterns)
        if registration.key is not None:
            drop(self._keys, registration.key, member)
        self._note_change(registration)

    def _note_change(self, registration: Registration, added: object = None) -> None:
        joins_shared_sink = added is not None and registration.sink is not added
        if self._changed is not None:
            self._changed.update(registration.channels)
        if registration.patterns:
            self._remembered.clear()
        for channel in registration.channels:
            # One more member changes nothing where its shared sink has the channel already.
            if not (joins_shared_sink and registration.sink in self._remembered.get(channel, ())):
                self._remembered.pop(channel, None)
