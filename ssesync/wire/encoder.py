"""Events to bytes (HTML standard, "Server-sent events", section "Parsing an event stream", read backwards).

What can't be written was refused when the ``Event`` was made, so nothing here can fail.
"""

from __future__ import annotations

from ..event import Event

__all__ = ["KEEP_ALIVE", "encode", "encode_comment"]

#: One comment line and one line end. A blank line behind it would make several popular clients emit an empty event.
KEEP_ALIVE = b":keep-alive\n"


def encode(event: Event) -> bytes:
    """The event as it goes over the wire, blank line included.

    An event with nothing but a comment is a comment line, and one with nothing but a reconnection
    time is that line: neither dispatches anything, so neither gets the blank line that some
    clients take for an empty event.
    """
    text = ""
    if event.comment is not None:
        text = ": " + _lines(event.comment, ": ") + "\n"
    if event.id is not None:
        text += f"id: {event.id}\n"
    if event.type is not None:
        text += f"event: {event.type}\n"
    if event.retry is not None:
        text += f"retry: {event.retry}\n"
    if event.data is not None:
        text += "data: " + _lines(event.data, "data: ") + "\n\n"
    elif event.id is not None or event.type is not None:
        text += "\n"
    return text.encode("utf-8")


def encode_comment(text: str) -> bytes:
    """A comment, one colon a line, with no blank line behind it. Clients ignore it.

    :raises EventError: the text holds a lone surrogate.
    """
    return encode(Event(comment=text))


def _lines(text: str, prefix: str) -> str:
    # Not str.splitlines, which cuts at nine more characters. The prefix ends in a space always: a client
    # removes one, so that a space the text begins with survives.
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.replace("\n", "\n" + prefix)
