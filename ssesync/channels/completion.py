"""Completion: which event is the last one that a subscription gets.

A subscription by names is complete when all of its channels are closed and their events were given. One that has types
of events in ``until_type`` is complete after the first event of such a type, whatever its channels are. A subscription
with patterns is never complete by closing, as other channels may match.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

from .message import Message

__all__ = ["NONE_CLOSED", "Completion"]

#: No channel is closed.
NONE_CLOSED: Mapping[str, int] = MappingProxyType({})


class Completion:
    """When one subscription is complete. Its subscriber calls all methods with its lock held.

    :param channels: the names of its channels.
    :param patterns: its patterns.
    :param types: the types of ``until_type``.
    :param closed: the numbers of the final events of its channels, as far as they are closed.
    """

    __slots__ = ("_channels", "closed", "types")

    def __init__(
        self,
        channels: Collection[str],
        patterns: Collection[str] = (),
        types: Collection[str] = (),
        closed: Mapping[str, int] = NONE_CLOSED,
    ) -> None:
        self._channels = () if patterns else channels
        #: An event of these types is the last one.
        self.types = types
        #: The number of the final event, by the name of each closed channel. Each change makes another mapping, so any
        #: thread may read it.
        self.closed = closed

    def is_closed_by(self, closed: Mapping[str, int]) -> bool:
        """Whether the subscription gets nothing more if these channels are closed.

        :param closed: the closed channels.
        :return: whether all of its channels are among them, and it has no patterns.
        """
        return bool(self._channels) and all(channel in closed for channel in self._channels)

    @property
    def is_by_names(self) -> bool:
        """Whether it can be complete by closing."""
        return bool(self._channels)

    @property
    def all_closed(self) -> bool:
        """Whether all of its channels are closed."""
        return bool(self.closed) and self.is_closed_by(self.closed)

    def note(self, message: Message) -> bool:
        """Note a message that the reader gets.

        :param message: the message.
        :return: whether it is the last one.
        """
        if message.final:
            self.closed = {**self.closed, message.channel: message.seq}
        elif message.channel in self.closed:
            # The limits have dropped the closed channel, and it was begun anew.
            self.closed = {name: seq for name, seq in self.closed.items() if name != message.channel}
        return self.all_closed or (bool(self.types) and message.channel != "" and message.type in self.types)

    def cut(self, messages: list[Message]) -> list[Message] | None:
        """Note messages that the reader gets, up to the last one.

        :param messages: the messages.
        :return: the messages up to the last one; ``None`` if the last one is not among them.
        """
        for number, message in enumerate(messages):
            if (message.final or self.types or self.closed) and self.note(message):
                return messages[: number + 1]
        return None


def types_of(until_type: str | Iterable[str] | None) -> tuple[str, ...]:
    """Check the argument ``until_type``.

    :param until_type: a type of events, or several.
    :return: the types.
    :raises TypeError: it is neither text nor several texts.
    """
    types = (until_type,) if isinstance(until_type, str) else tuple(until_type or ())
    for each in types:
        if not isinstance(each, str):
            raise TypeError(f"until_type takes the types of events as text, got {type(each).__name__}")
    return types
