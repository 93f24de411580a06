"""The bounded queue of one subscriber, and the policies for a full queue."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..event import Event, ReceivedEvent
from ..json_encoder import dump_json
from ..wire.encoder import encode
from .message import Message
from .policy import Policy

__all__ = ["ALL", "MessageQueue", "coalescing_key", "reset_message"]

logger = logging.getLogger("ssesync")

#: A number of bytes that no queue reaches: all messages are taken.
ALL = 1 << 62


class MessageQueue:
    """Messages in the order of their numbers; once they are coalesced, one for each key.

    It has no lock: its subscriber calls all methods with the subscriber's lock held.

    :param policy: how much may wait, and what is dropped when there is no room.
    :param count: called with the name of a counter and the number to add.
    """

    __slots__ = ("_by_key", "_count", "_dropped", "_messages", "last_dropped", "policy", "reset", "size")

    def __init__(self, policy: Policy, count: Callable[[str, int], object]) -> None:
        #: How much may wait, and what is dropped when there is no room.
        self.policy = policy
        self._count = count
        self._messages: list[Message] = []  # while they are not coalesced
        self._by_key: dict[Any, Message] | None = None  # once they are: the newest message of each key
        self._dropped = 0  # since the last take()
        #: The number of the last message that was dropped as the policy says; -1: none since the last clear().
        self.last_dropped = -1
        #: A reset event to be sent before the messages. It is not one of them.
        self.reset: Message | None = None
        #: The bytes of the messages that wait.
        self.size = 0

    def __len__(self) -> int:
        by_key = self._by_key
        return len(self._messages if by_key is None else by_key)

    def __bool__(self) -> bool:
        return bool(self._messages or self._by_key)

    @property
    def messages(self) -> list[Message]:
        """The messages, oldest first. Not to be changed."""
        return self._messages if self._by_key is None else list(self._by_key.values())

    def clear(self) -> None:
        """Drop all messages."""
        self._replace(())
        self.last_dropped = -1

    def keep(self, wanted: Callable[[Message], bool]) -> int:
        """Drop the other messages.

        :param wanted: true for a message that stays.
        :return: the number of the last message, -1 if none waits.
        """
        if self._by_key is None:
            self._replace(filter(wanted, self._messages))
        else:
            self._by_key = {key: message for key, message in self._by_key.items() if wanted(message)}
            self.size = sum(map(len, self._by_key.values()))
        messages = self._messages or [*(self._by_key or {}).values()]
        return messages[-1].seq if messages else -1

    def take(self, most: int) -> tuple[list[bytes], list[Message]]:
        """Remove messages, oldest first.

        :param most: about how many bytes; at least one message is taken.
        :return: see :meth:`take_notes`; and the messages.
        """
        notes = self.take_notes() if self._dropped or self.reset is not None else []
        if self._by_key is None and self.size <= most:
            messages, self._messages, self.size = self._messages, [], 0
            return notes, messages
        messages = self.messages
        left: list[Message] = []
        if self.size > most:
            sizes = itertools.accumulate(map(len, messages))
            number = max(1, sum(1 for _ in itertools.takewhile(lambda size: size <= most, sizes)))
            messages, left = messages[:number], messages[number:]
        if self._by_key is None or not left:
            self._replace(left)
        else:
            self.keep(lambda message: message.seq >= left[0].seq)
        return notes, messages

    def take_notes(self) -> list[bytes]:
        """Remove the events to be sent before the messages.

        :return: the reset event, and the event that reports dropped messages, if there are any.
        """
        notes: list[bytes] = [] if self.reset is None else [self.reset]
        if self._dropped:
            notes.append(encode(Event(dump_json({"count": self._dropped}), type=self.policy.dropped_event)))
        self.reset, self._dropped = None, 0
        return notes

    def put(self, message: Message, keys: Mapping[int, Any], *, lossless: bool) -> bool:
        """Add a message; where there is no room, drop others as the policy says.

        :param message: the message, newer than all that wait.
        :param keys: the coalescing keys of the messages that :meth:`unkeyed` named, by number.
        :param lossless: drop nothing, whatever the policy says.
        :return: whether it was added. If not, the reader needs no waiting message either: the log has all of them.
        """
        if self._by_key is None:
            policy, waiting = self.policy, len(self._messages)
            if not waiting or (
                waiting < policy.max_pending_events and self.size + len(message) <= policy.max_pending_bytes
            ):  # _has_room(), without the call
                self._messages.append(message)
                self.size += len(message)
                return True
            if lossless or policy.overflow == "disconnect":
                return False
            if policy.overflow == "drop_oldest":
                self._drop_oldest(message)
                self._messages.append(message)
                self.size += len(message)
                return True
            self._coalesce(keys)
        return self._put_by_key(message, keys[message.seq])

    def unkeyed(self, message: Message, keys: Mapping[int, Any]) -> list[Message]:
        """The messages whose coalescing keys :meth:`put` needs in addition to the known ones.

        :param message: the message to be added.
        :param keys: the known keys, by number.
        :return: the messages without a key; none while there is room.
        """
        if self._by_key is not None:
            needed: Iterable[Message] = (message,)
        else:
            needed = () if self._has_room(message) else (*self._messages, message)
        return [each for each in needed if each.seq not in keys]

    def _has_room(self, message: Message, dropped: int = 0) -> bool:
        waiting = len(self) - dropped
        policy = self.policy
        return not waiting or (
            waiting < policy.max_pending_events and self.size + len(message) <= policy.max_pending_bytes
        )

    def _replace(self, messages: Iterable[Message]) -> None:
        self._messages, self._by_key = list(messages), None
        self.size = sum(map(len, self._messages))

    def _drop_oldest(self, message: Message) -> None:
        dropped = 0
        while dropped < len(self._messages) and not self._has_room(message, dropped):
            self.size -= len(self._messages[dropped])
            dropped += 1
        if dropped:
            self.last_dropped = self._messages[dropped - 1].seq
        del self._messages[:dropped]
        self._dropped += dropped
        self._count("dropped", dropped)

    def _coalesce(self, keys: Mapping[int, Any]) -> None:
        """Keep only the newest message of each key from now on."""
        messages = self._messages
        by_key: dict[Any, Message] = {}
        for message in messages:
            key = keys[message.seq]
            by_key.pop(key, None)  # the newest last, so that ids ascend
            by_key[key] = message
        self._messages, self._by_key = [], by_key
        self.size = sum(map(len, by_key.values()))
        self._count("coalesced", len(messages) - len(by_key))

    def _put_by_key(self, message: Message, key: Any) -> bool:
        """Put a message in the place of the one that has the same key."""
        assert self._by_key is not None
        older = self._by_key.pop(key, None)
        if older is not None:
            self.size -= len(older)
            self._count("coalesced", 1)
        if not self._has_room(message):
            return False
        self._by_key[key] = message
        self.size += len(message)
        return True


def reset_message(policy: Policy, why: str, epoch: str, position: int) -> Message:
    """Make the event on which a client fetches its state anew.

    :param policy: names the event's type.
    :param why: the reason.
    :param epoch: of the log.
    :param position: the number of the event after which the client continues.
    :return: the reset event, with the id of that event.
    """
    return Message.make(epoch, position, "", encode(Event(dump_json({"reason": why}), type=policy.reset_event)))


def coalescing_key(coalesce: Callable[[ReceivedEvent], Any], message: Message) -> Any:
    """Call the user's function for the key by which a message is coalesced. Never called while a lock is held.

    :param coalesce: the user's function.
    :param message: the message.
    :return: its key; messages of different channels never have the same one.
    """
    try:
        key = coalesce(message.event)
        hash(key)
    except Exception:
        logger.exception("the coalesce function failed; the event is not coalesced")
        key = None
    return message.seq if key is None else (message.channel, key)
