"""What is in answers and events, so that both ends can tell whether it is right."""

from __future__ import annotations

#: For coalescing: an event's number, divided by this, leaves what it is about.
KINDS_OF_EVENTS = 5


def echo(number: int, size: int) -> bytes:
    """The body of an ordinary answer: all of it says whose it is."""
    mark = b"%d." % number
    return (mark * (size // len(mark) + 1))[:size]


def event_data(channel: str, number: int, size: int = 0) -> str:
    """An event's: channel, number, and filled up."""
    return f"{channel} {number}".ljust(size, "x") if size else f"{channel} {number}"


def number_of(data: str) -> int:
    """The number in it."""
    return int(data.partition(" ")[2].rstrip("x"))
