"""The clients of one broadcast group, by channel, and the events after which their streams end."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from .dispatcher import Registration
from .index import Index, drop, having, put
from .message import Message

__all__ = ["ClientIndex"]


class ClientIndex(Index[int]):
    """The descriptors of a group's clients. Only the reactor's thread uses it."""

    def __init__(self) -> None:
        super().__init__()
        #: The number of the final event, by the name of each channel that clients have and that is closed.
        self.closed: dict[str, int] = {}
        #: The clients whose streams end after an event of a type, by the type.
        self.until: dict[str, int | dict[int, None]] = {}

    def add_client(self, fd: int, registration: Registration) -> None:
        """Add a client.

        :param fd: its descriptor.
        :param registration: its channels, and the types of events after which its stream ends.
        """
        self.add(fd, registration.channels, registration.patterns)
        for each in registration.until:
            put(self.until, each, fd)

    def remove_client(self, fd: int, registration: Registration) -> None:
        """Undo :meth:`add_client`. Does nothing for a client that was not added.

        :param fd: its descriptor.
        :param registration: as it was added.
        """
        self.remove(fd, registration.channels, registration.patterns)
        for each in registration.until:
            drop(self.until, each, fd)
        if self.closed:
            self.closed = {channel: seq for channel, seq in self.closed.items() if channel in self.names}

    def set_closed(self, channels: Iterable[str], closed: Mapping[str, int]) -> None:
        """Note which channels are closed and which are not.

        :param channels: the channels.
        :param closed: the number of the final event of those that are closed.
        """
        if closed or self.closed:
            for channel in channels:
                if channel in closed:
                    self.closed[channel] = closed[channel]
                else:
                    self.closed.pop(channel, None)

    def ends_clients(self, message: Message) -> bool:
        """Whether a message's type ends the stream of a client that has its channel.

        :param message: the message.
        :return: whether it does.
        """
        return bool(self.ended_by(message))

    def ended_by(self, message: Message) -> list[int]:
        """Find the clients whose streams end after a message because of its type.

        :param message: the message.
        :return: their descriptors.
        """
        ended = having(self.until, message.type) if self.until and message.channel else ()
        clients = self.having(message.channel) if ended else ()
        return [fd for fd in ended if fd in clients]

    def note(self, messages: Sequence[Message]) -> Collection[str]:
        """Note the final events among messages that were sent.

        :param messages: the messages, in order.
        :return: the closed channels whose clients may have everything now.
        """
        if self.closed:
            for message in messages:  # the limits may have dropped the closed channel, and it was begun anew
                self.closed.pop(message.channel, None)
        final = {message.channel: message.seq for message in messages if message.final}
        self.closed.update((channel, seq) for channel, seq in final.items() if channel in self.names)
        return list(final) if messages[0].channel else list(self.closed)  # a reset: the final events may be lost

    def is_complete(self, registration: Registration, seq: int) -> bool:
        """Whether a client that got all messages up to a number has everything.

        :param registration: the client's.
        :param seq: the number.
        :return: whether its channels are closed up to there.
        """
        return not registration.patterns and all(
            self.closed.get(channel, math.inf) <= seq for channel in registration.channels
        )
