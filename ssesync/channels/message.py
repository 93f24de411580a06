"""Messages: events of a channel as they go over the wire, made once in a process and shared by all who get them.

An id is ``<epoch>-<seq>``. ``seq`` counts the events of all channels of a broker, so one id tells how far a client has
come in any number of channels. The epoch names the log: a log that was begun anew does not know the ids of the old one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ..detached.source import Numbered
from ..errors import ChannelError, EventError, excerpt
from ..event import Event, dump_json, warn_if_encoded
from ..wire.decoder import Decoder
from ..wire.encoder import encode

__all__ = ["CONTROL", "Message", "body_of", "check_channel", "check_pattern", "parse_id"]

#: What brokers tell one another goes over a channel of a name that no user can give.
CONTROL = "\x01control"
_ID = re.compile(r"([0-9a-z]{1,32})-(\d{1,18})")
_LONGEST_NAME = 200


class Message(Numbered):
    """An event as it goes over the wire, id and all, that knows its place. A *sink* sends it as the bytes it is."""

    channel: str
    _event: Event | None

    @classmethod
    def make(cls, epoch: str, seq: int, channel: str, body: bytes) -> Message:
        """The message of an event that is encoded without its id already."""
        message = cls(b"id: %s-%d\n%s" % (epoch.encode(), seq, body))
        message.seq = seq
        message.channel = channel
        message._event = None
        return message

    @property
    def event(self) -> Event:
        """The event again, for those who don't send bytes."""
        if self._event is None:
            decoder = Decoder(max_event_size=len(self) + 1)
            self._event = decoder.feed(self)[0]
        return self._event


def parse_id(text: str) -> tuple[str, int] | None:
    """Epoch and seq of an id, ``None`` for a text that is no id of ours."""
    match = _ID.fullmatch(text)
    return None if match is None else (match[1], int(match[2]))


def body_of(item: Any, type: str | None, dumps: Callable[[Any], str | bytes] | None) -> bytes:
    """What is published, encoded without an id.

    :raises EventError: it has an id, or nothing that a client would see.
    :raises TypeError: it is neither an event nor text nor anything that JSON can hold.
    """
    if isinstance(item, Event):
        if type is not None:
            raise TypeError("give the type to the Event that is published, not beside it")
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
    if event.id is not None:
        raise EventError(
            "id", event.id, "is the broker's to give, or clients could not resume: publish the event without one"
        )
    if event.data is None:
        raise EventError("data", None, "is not set, so no client would see the event")
    return encode(event)


def check_channel(name: object) -> str:
    """The name of a channel.

    :raises ChannelError: it is empty, longer than 200 characters, or holds ``*``, a control character or a surrogate.
    :raises TypeError: it is no text.
    """
    text = check_pattern(name)
    if "*" in text:
        raise ChannelError(f"a channel's name can't hold '*', got {excerpt(text)}; many channels: patterns=[...]")
    return text


def check_pattern(name: object) -> str:
    """A pattern of channels' names, where ``*`` stands for any characters, or none. Errors as for names."""
    if not isinstance(name, str):
        raise TypeError(f"a channel's name is text, got {type(name).__name__} {excerpt(name)}")
    text = str.__str__(name)
    if not 0 < len(text) <= _LONGEST_NAME or any(c < " " or c == "\x7f" or "\ud800" <= c <= "\udfff" for c in text):
        raise ChannelError(
            f"a channel's name has 1 to {_LONGEST_NAME} characters and no control characters, got {excerpt(text)}"
        )
    return text


def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern as a regular expression for ``fullmatch``. No pattern has the brokers' own channel in it."""
    return re.compile("[^\x01]*".join(re.escape(part) for part in pattern.split("*")))
