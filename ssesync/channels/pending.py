"""Pending: the messages that wait for one subscriber, how they are made fewer when there is no room, and what ends
it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..errors import CloseReason
from ..event import Event
from .message import Message
from .policy import Policy

__all__ = ["End", "Pending", "key_of"]

logger = logging.getLogger("ssesync")


class End(NamedTuple):
    """How a subscriber is to end."""

    reason: CloseReason
    #: What comes after the messages that wait.
    last: bytes
    #: Whether these are dropped.
    discard: bool


class Pending:
    """Messages in the order of their numbers; once they are coalesced, one of each key.

    It has no lock: all methods are called with the inbox's lock held.
    """

    __slots__ = ("_max_bytes", "_max_events", "keyed", "messages", "size")

    def __init__(self, policy: Policy) -> None:
        self._max_events, self._max_bytes = policy.max_pending_events, policy.max_pending_bytes
        #: The messages, while they are not coalesced.
        self.messages: list[Message] = []
        #: The newest message of each key, instead of them, since there was no room.
        self.keyed: dict[Any, Message] | None = None
        #: Bytes of the messages.
        self.size = 0

    def __len__(self) -> int:
        keyed = self.keyed
        return len(self.messages if keyed is None else keyed)

    def all(self) -> list[Message]:
        """The messages, in order."""
        return self.messages if self.keyed is None else list(self.keyed.values())

    def clear(self) -> None:
        """Drop all of them."""
        self.messages, self.keyed, self.size = [], None, 0

    def keep(self, wanted: Callable[[Message], bool]) -> None:
        """Drop all others."""
        if self.keyed is None:
            self.messages = [message for message in self.messages if wanted(message)]
        else:
            self.keyed = {key: message for key, message in self.keyed.items() if wanted(message)}
        self.size = sum(map(len, self.all()))

    def has_room(self, message: Message, dropped: int = 0) -> bool:
        """Whether one more may wait, when so many are dropped."""
        waiting = len(self.messages if self.keyed is None else self.keyed) - dropped
        return not waiting or (waiting < self._max_events and self.size + len(message) <= self._max_bytes)

    def add(self, message: Message) -> None:
        """Put a message behind the others. Not while they are coalesced."""
        self.messages.append(message)
        self.size += len(message)

    def drop_oldest(self, message: Message) -> int:
        """Drop the oldest, until there is room for one more; how many those were."""
        dropped = 0
        while dropped < len(self.messages) and not self.has_room(message, dropped):
            self.size -= len(self.messages[dropped])
            dropped += 1
        del self.messages[:dropped]
        return dropped

    def to_be_coalesced(self, message: Message) -> list[Message]:
        """The messages whose keys are needed to put this one among them: none, while there is room."""
        if self.keyed is not None:
            return [message]
        return [] if self.has_room(message) else [*self.messages, message]

    def coalesce(self, keys: Mapping[int, Any]) -> int:
        """Keep the newest of each key from now on; how many messages were dropped.

        :param keys: the key of each message by its number.
        """
        messages, self.messages, self.keyed = self.messages, [], {}
        for message in messages:
            key = keys[message.seq]
            self.keyed.pop(key, None)  # the newest last, so that ids ascend
            self.keyed[key] = message
        self.size = sum(map(len, self.keyed.values()))
        return len(messages) - len(self.keyed)

    def replace(self, message: Message, key: Any) -> tuple[bool, int]:
        """Put a message in the place of the one of the same key, while they are coalesced.

        :return: whether there was room, and how many messages were dropped.
        """
        assert self.keyed is not None
        older = self.keyed.pop(key, None)
        if older is not None:
            self.size -= len(older)
        if not self.has_room(message):
            return False, int(older is not None)
        self.keyed[key] = message
        self.size += len(message)
        return True, int(older is not None)


def key_of(coalesce: Callable[[Event], Any], message: Message) -> Any:
    """The key by which a message is coalesced. The user's function is called here: not with a lock held."""
    try:
        key = coalesce(message.event)
        hash(key)
    except Exception:
        logger.exception("the function that coalesces events failed")
        key = None
    return message.seq if key is None else (message.channel, key)
