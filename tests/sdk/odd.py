"""Odd data: what an event stream may have, and few have.

Each case is a part of one stream, between two events that are markers. :data:`OURS` are cases that this library sends;
:data:`FOREIGN`, those that the standard allows and that other servers send. :data:`TEXTS` are texts for answers of
protocols, whose events are JSON.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from ssesync import Event


class Seen(NamedTuple):
    """An event as a client gives it to its user."""

    type: str
    data: str
    id: str = ""


class Case(NamedTuple):
    """A part of a stream, and what it means by the standard.

    :param name: what the page calls it.
    :param sent: events of the library, or the chunks of another server.
    :param means: the events. An ID that came before stays in force.
    :param ids: whether the IDs are looked at.
    """

    name: str
    sent: tuple[Event | bytes, ...]
    means: tuple[Seen, ...]
    ids: bool = False


LONG = "0123456789" * 100_000
EMOJI = "\N{GRINNING FACE}\N{FAMILY}\N{LATIN SMALL LETTER U WITH DIAERESIS}\N{EURO SIGN}"
TEXTS = (
    "plain",
    "  two spaces\n",
    "\r\n",
    "a\rb\nc\r\nd",
    EMOJI * 100,
    "\u2028\x85\x0b",
    LONG,
    '{"a": "\\"}',
    "data: x\n\n",
)
FINISHED = "@finished"


def message(data: str, id: str = "") -> Seen:
    return Seen("message", data, id)


def split(text: str) -> tuple[bytes, ...]:
    """Each byte as a chunk of its own."""
    return tuple(bytes([each]) for each in text.encode())


OURS = [
    Case("line ends in data", (Event("a\rb\nc\r\nd"),), (message("a\nb\nc\nd"),)),
    Case("empty data", (Event(""),), (message(""),)),
    Case("leading spaces", (Event("  two"),), (message("  two"),)),
    Case("line ends at the end", (Event("one\n\n"),), (message("one\n\n"),)),
    Case("line ends at the start", (Event("\n\none"),), (message("\n\none"),)),
    Case("a colon first", (Event(":x"),), (message(":x"),)),
    Case("emoji", (Event(EMOJI * 1000),), (message(EMOJI * 1000),)),
    Case("line ends of Unicode", (Event("a\u2028b\x85c\x0bd\x0c"),), (message("a\u2028b\x85c\x0bd\x0c"),)),
    Case("NUL in data", (Event("a\0b"),), (message("a\0b"),)),
    Case("a line of 1 MB", (Event(LONG),), (message(LONG),)),
    Case("a type", (Event("x", type="update"),), (Seen("update", "x"),)),
    Case("a comment", (Event(comment="x"), Event("y")), (message("y"),)),
    Case("a reconnection time", (Event("x", retry=1500), Event(retry=1500), Event("y")), (message("x"), message("y"))),
    Case("an ID", (Event("x", id="7"),), (message("x", "7"),), ids=True),
    Case("the ID of a later event", (Event("y"),), (message("y", "7"),), ids=True),
    Case("a comment after an ID", (Event(comment="x"), Event("z")), (message("z"),)),
    Case("a keep-alive after an ID", (b"",), ()),
    Case("an empty ID", (Event("x", id=""),), (message("x"),), ids=True),
]  # fmt: skip
FOREIGN = [
    Case("a byte order mark", (b"\xef\xbb\xbfdata: x\n\n",), (message("x"),)),
    Case("no space after the colon", (b"data:x\n\n",), (message("x"),)),
    Case("a field without a colon", (b"data\n\n",), (message(""),)),
    Case("unknown fields", (b"foo: bar\nDATA: y\n data: z\ndata: x\n\n",), (message("x"),)),
    Case("CR LF", (b"data: a\r\nevent: update\r\n\r\ndata: b\r\n\r\n",), (Seen("update", "a"), message("b"))),
    Case("CR LF in two chunks", (b"event: update\r", b"\ndata: a\r", b"\n\r", b"\n"), (Seen("update", "a"),)),
    Case("CR", (b"data: a\r\rdata: b\r\r",), (message("a"), message("b"))),
    Case("mixed line ends", (b"data: a\n\r\ndata: b\r\n\n",), (message("a"), message("b"))),
    Case("characters in two chunks", split(f"data: {EMOJI}\n\n"), (message(EMOJI),)),
    Case("an event without data", (b"event: update\n\ndata: x\n\n",), (message("x"),)),
    Case("NUL in an ID", (b"id:8\ndata: x\n\n", b"id:a\0b\ndata: y\n\n"), (message("x", "8"), message("y", "8")), True),
    Case("comments between blank lines, after an ID", (b"\n\n:x\n\n\n",), ()),
    Case("bytes that are not UTF-8", (b"data: a\xffb\n\n",), (message("a\ufffdb"),)),
]  # fmt: skip


def marker(case: Case) -> str:
    return f"@{case.name}"


def events() -> Iterator[Event]:
    """The stream of :data:`OURS`, which does not end."""
    for case in OURS:
        yield Event(marker(case))
        for each in case.sent:
            if isinstance(each, Event):
                yield each
            else:
                time.sleep(0.5)  # longer than keep_alive of the application
    yield Event(FINISHED)
    time.sleep(3600)


def chunks() -> Iterator[bytes]:
    """The stream of :data:`FOREIGN`."""
    first, *others = FOREIGN
    yield from first.sent  # type: ignore[misc]
    for case in others:
        yield f"data: {marker(case)}\n\n".encode()
        yield from case.sent  # type: ignore[misc]
    yield f"data: {FINISHED}\n\n".encode()


def sort(seen: list[Seen], cases: list[Case]) -> dict[str, list[Seen]]:
    """Return what a client gave for each case, by the markers."""
    found: dict[str, list[Seen]] = {case.name: [] for case in cases}
    name = cases[0].name
    for each in seen:
        if each.data == FINISHED:
            break
        if each.data.startswith("@"):
            name = each.data[1:]
        else:
            found[name].append(each)
    return found
