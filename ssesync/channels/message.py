"""Messages: a channel's events in the wire format, made once in a process and shared by all subscribers.

An id is ``<epoch>-<seq>``. ``seq`` counts the events of all channels of a broker, so one id is a client's position in
any number of channels. The epoch names the log: a log that was begun anew does not know the ids of the old one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from ..detached.source import Numbered
from ..errors import ChannelError, EventError, excerpt
from ..event import Event, ReceivedEvent, warn_if_encoded, written_id
from ..json_encoder import dump_json
from ..wire.decoder import Decoder
from ..wire.encoder import encode

__all__ = ["CONTROL", "Message", "Slotted", "body_of", "check_channel", "check_pattern", "parse_id"]

#: The channel for requests between the brokers of several processes. Users' channels can't have this name.
CONTROL = "\x01control"
#: What a stored event begins with if its data has a slot, see :mod:`ssesync.channels.envelope`.
_SLOT = b":ssesync-slot="
_ID = re.compile(r"([0-9a-z]{1,32})-(\d{1,18})")
_MAX_NAME_LENGTH = 200
# Control characters and surrogates.
_NEVER_IN_NAMES = re.compile("[\\x00-\\x1f\\x7f\\ud800-\\udfff]")


class Message(Numbered):
    """An event in the wire format, with its id. It has the event's number and channel."""

    channel: str
    #: Whether its channel is closed: nothing comes after it.
    final: bool = False
    _event: ReceivedEvent | None
    _type: str | None = None
    _slot = -1  # where the slot of its data is, from the beginning
    _places: tuple[int, int, int] | None = None

    @classmethod
    def make(cls, epoch: str, seq: int, channel: str, body: bytes, final: object = False) -> Message:
        """Make the message of an encoded event.

        :param epoch: of the log.
        :param seq: the event's number.
        :param channel: its channel.
        :param body: the event, encoded without an id.
        :param final: whether it closes its channel.
        :return: the message.
        """
        message = cls._of(b"id: %s-%d\n" % (epoch.encode(), seq), body)
        message.seq = seq
        message.channel = channel
        message._event = None
        if final:
            message.final = True
        return message

    @classmethod
    def first(cls, body: bytes) -> Message:
        """Make the message of an event for one client, without an id.

        :param body: the encoded event.
        :return: the message. Its number is -1, and its channel none that can be subscribed to.
        """
        message = cls._of(b"", body)
        message.seq = -1
        message.channel = CONTROL
        message._event = None
        return message

    @classmethod
    def _of(cls, head: bytes, body: bytes) -> Message:
        if not body.startswith(_SLOT):
            return cls(head + body)
        line, _, body = body.partition(b"\n")
        message = cls(head + body)
        message._slot = len(head) + int(line[len(_SLOT) :])
        return message

    @property
    def places(self) -> tuple[int, int, int]:
        """Where its data begins, where the slot is in it (-1: it has none), and where the data ends. Found once."""
        if self._places is None:
            # Published events have data, and it comes last. No other line begins so.
            begin = 0 if self.startswith(b"data: ") else self.index(b"\ndata: ") + 1
            self._places = begin + len(b"data: "), self._slot, len(self) - len(b"\n\n")
        return self._places

    @property
    def type(self) -> str:
        """The event's type."""
        if self._type is None:
            # Before the data, which a published event always has. No line of a comment begins so.
            head = self[: self.index(b"\ndata: ") + 1]
            place = head.find(b"\nevent: ")
            self._type = "message" if place < 0 else head[place + 8 : head.index(b"\n", place + 8)].decode()
        return self._type

    @property
    def event(self) -> ReceivedEvent:
        """The event, decoded, for readers that don't pass on the bytes."""
        if self._event is None:
            decoder = Decoder(max_event_size=len(self) + 1)
            self._event = decoder.feed(self)[0]
        return self._event


def parse_id(text: str) -> tuple[str, int] | None:
    """Parse an id.

    :param text: the id.
    :return: its epoch and number; ``None`` for text that is no id of a broker.
    """
    match = _ID.fullmatch(text)
    return None if match is None else (match[1], int(match[2]))


class Slotted(NamedTuple):
    """Data with a slot, to be published: a client with an envelope gets the envelope's text there, and any other client
    nothing."""

    before: str
    """The data in front of the slot."""
    after: str
    """The data behind it."""

    def encoded(self, type: str | None) -> bytes:
        """Encode the event, with the line for the slot.

        :param type: the event's type.
        :return: the encoded event.
        :raises EventError: it can't be written.
        """
        offset = len(encode(Event(self.before, type=type))) - len("\n\n")
        return b"%s%d\n%s" % (_SLOT, offset, encode(Event(self.before + self.after, type=type)))


def body_of(item: Any, type: str | None, dumps: Callable[[Any], str | bytes] | None) -> bytes:
    """Encode an item that is published, without an id.

    :param item: an event, text, or a value for ``dumps``.
    :param type: the event's type, where ``item`` is no event.
    :param dumps: the JSON encoder.
    :return: the encoded event.
    :raises EventError: it has an id, or nothing that a client would see.
    :raises TypeError: it is neither an event nor text nor anything that JSON can hold.
    """
    if isinstance(item, Slotted):
        return item.encoded(type)
    if isinstance(item, Event):
        if type is not None:
            raise TypeError("set the type of the Event itself: publish() takes type= only for other values")
        event = item
    elif isinstance(item, (str, bytes, bytearray)):
        event = warn_if_encoded(Event(bytes(item) if isinstance(item, bytearray) else item, type=type))
    elif item is None:
        raise TypeError("nothing to publish: give an Event, str, bytes or something that JSON can hold")
    else:
        try:
            event = Event((dumps or dump_json)(item), type=type)
        except TypeError as error:
            raise TypeError(f"can't publish {excerpt(item)}: {error}") from error
    if (event_id := written_id(event)) is not None:
        raise EventError(
            "id", event_id, "is set by the broker, or clients could not resume: publish the event without one"
        )
    if event.data is None:
        raise EventError("data", None, "is not set, so no client would see the event")
    return encode(event)


def check_channel(name: object) -> str:
    """Check the name of a channel.

    :param name: the name.
    :return: the name.
    :raises ChannelError: it is empty, longer than 200 characters, or holds ``*``, a control character or a surrogate.
    :raises TypeError: it is no text.
    """
    text = check_pattern(name)
    if "*" in text:
        raise ChannelError(f"a channel's name can't hold '*', got {excerpt(text)}; many channels: patterns=[...]")
    return text


def check_pattern(name: object) -> str:
    """Check a pattern of channels' names, where ``*`` stands for any characters, or none.

    :param name: the pattern.
    :return: the pattern.
    :raises ChannelError: it is empty, longer than 200 characters, or holds a control character or a surrogate.
    :raises TypeError: it is no text.
    """
    if not isinstance(name, str):
        raise TypeError(f"a channel's name is text, got {type(name).__name__} {excerpt(name)}")
    text = str.__str__(name)
    if not 0 < len(text) <= _MAX_NAME_LENGTH or _NEVER_IN_NAMES.search(text):
        raise ChannelError(
            f"a channel's name has 1 to {_MAX_NAME_LENGTH} characters and no control characters, got {excerpt(text)}"
        )
    return text


def compiled(*patterns: str) -> re.Pattern[str]:
    """Make a regular expression of patterns. It never matches the brokers' own channel.

    :param patterns: the patterns.
    :return: the expression, for ``fullmatch``; it matches where any of the patterns does.
    """
    return re.compile("|".join("[^\x01]*".join(map(re.escape, each.split("*"))) for each in patterns))
