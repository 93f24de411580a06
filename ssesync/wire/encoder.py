"""Events to bytes (HTML standard, "Server-sent events", section "Parsing an event stream", read backwards).

An ``Event`` refuses what can't be written when it is made, so nothing here can fail.
"""

from __future__ import annotations

import functools

from ..event import Event, ReceivedEvent

__all__ = ["KEEP_ALIVE", "encode", "encode_comment", "encode_keep_alive"]

#: One comment line and one line end. A blank line after it would make several popular clients emit an empty event.
KEEP_ALIVE = b":keep-alive\n"


def encode(event: Event) -> bytes:
    """Encode an event.

    An event that has only a comment becomes a comment line, and one that has only a reconnection time that line:
    neither dispatches anything, so neither gets the blank line that some clients treat as an empty event.

    :param event: the event.
    :return: its bytes on the wire, with the blank line.
    """
    text = ""
    if event.comment is not None:
        text = ": " + _lines(event.comment, ": ") + "\n"
    # As in written_id(), whose call would cost a tenth of this function.
    if (event_id := event.id) is not None and (event_id or event.__class__ is not ReceivedEvent):
        text += f"id: {event_id}\n"
    if event.type is not None:
        text += f"event: {event.type}\n"
    if event.retry is not None:
        text += f"retry: {event.retry}\n"
    if event.data is not None:
        text += "data: " + _lines(event.data, "data: ") + "\n\n"
    elif event_id is not None or event.type is not None:
        text += "\n"
    return text.encode("utf-8")


def encode_comment(text: str) -> bytes:
    """Encode a comment, which clients ignore.

    :param text: the text, of any number of lines.
    :return: its bytes on the wire, with one colon a line and without a blank line.
    :raises EventError: the text holds a lone surrogate.
    """
    return encode(Event(comment=text))


@functools.lru_cache(64)
def encode_keep_alive(event_type: str | None) -> bytes:
    """Encode a keep-alive, which may be sent between two blocks.

    :param event_type: the setting ``keep_alive_event``.
    :return: a comment, or an event of this type. The event has no id, so the client's last event ID stays as it is, and
        an empty data line, as none is dispatched without one (HTML standard, "dispatch the event").
    """
    return KEEP_ALIVE if event_type is None else encode(Event("", type=event_type))


def _lines(text: str, prefix: str) -> str:
    # Not str.splitlines, which cuts at nine more characters. The prefix always ends in a space: a client removes one,
    # so a space at the beginning of the text is kept.
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.replace("\n", "\n" + prefix)
