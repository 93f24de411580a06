"""The harness's flows that are about the stream itself: lines, fields, byte order marks, comments, sizes."""

from __future__ import annotations

import pytest

from .harness import Service, StreamServer

BOM = b"\xef\xbb\xbf"

Events = list[tuple[str, str, str]]


def plain(*data: str) -> Events:
    """Events with data alone."""
    return [("message", text, "") for text in data]


# What is sent, in as many chunks as there are pieces, and the events that come of it.
PARSING: dict[str, tuple[list[str], Events]] = {
    "a line": (["data: Hello\n\n"], plain("Hello")),
    "a line in two pieces": (["data: Hel", "lo\n\n"], plain("Hello")),
    "two events in a piece": (["data: Hello\n\ndata: World\n\n"], plain("Hello", "World")),
    "two events that share the second of three pieces": (
        ["data: left", "right\n\ndata:", "more\n\n"],
        plain("leftright", "more"),
    ),
    "two lines": (["data: Hello\ndata:World\n\n"], plain("Hello\nWorld")),
    "empty data": (["data:\n\n"], plain("")),
    "a type": (["event: greeting\ndata: Hello\n\n"], [("greeting", "Hello", "")]),
    "an id": (["id: abc\ndata: Hello\n\n"], [("message", "Hello", "abc")]),
    "a type and an id": (["event: greeting\nid: abc\ndata: Hello\n\n"], [("greeting", "Hello", "abc")]),
    "fields in reverse order": (["data: Hello\nid: abc\nevent: greeting\n\n"], [("greeting", "Hello", "abc")]),
    "an id with NUL": (["id: a\0bc\ndata: Hello\n\n"], plain("Hello")),
    "an id that stays": (
        ["id: abc\ndata: first\n\n", "data: second\n\n"],
        [("message", "first", "abc"), ("message", "second", "abc")],
    ),
    "an id that is emptied": (
        ["id: abc\ndata: first\n\n", "id: \ndata: second\n\n"],
        [("message", "first", "abc"), ("message", "second", "")],
    ),
    "an unknown field": (["event: greeting\ncolor: blue\ndata: Hello\n\n"], [("greeting", "Hello", "")]),
    "no space": (["event:greeting\ndata:Hello\n\n"], [("greeting", "Hello", "")]),
    "two spaces": (["event:  greeting\ndata:  Hello\n\n"], [(" greeting", " Hello", "")]),
    "no colon": (["data\n\ndata\ndata\n\n"], plain("", "\n")),
    "characters of several bytes": (["data: €豆腐\n\n"], plain("€豆腐")),
    "CR at the end of a piece, LF at the start of the next": (
        ["data: Hello\r", "\ndata: World\r", "\n\r\ndata: OK\r", "\n", "\r", "\n"],
        plain("Hello\nWorld", "OK"),
    ),
}

# With LF for the line end.
LINES: dict[str, tuple[str, Events]] = {
    "one line": ("data: event 1\n\n", plain("event 1")),
    "one line, then two": (
        "data: event 1\n\ndata: event 2 line 1\ndata: event 2 line 2\n\n",
        plain("event 1", "event 2 line 1\nevent 2 line 2"),
    ),
    "an empty line first": ("data:\ndata: line2\ndata: line3\n\n", plain("\nline2\nline3")),
    "an empty line within": ("data: line1\ndata:\ndata: line3\n\n", plain("line1\n\nline3")),
    "a blank line too many": ("data: event 1\n\n\ndata: event 2\n\n", plain("event 1", "event 2")),
    "two blank lines too many": ("data: event 1\n\n\n\ndata: event 2\n\n", plain("event 1", "event 2")),
}

BOMS: dict[str, tuple[list[bytes], Events]] = {
    "at the start": ([BOM + b"data: Hello\n\n"], plain("Hello")),
    "before a type and an id": (
        [BOM + b"event: greeting\nid: abc\ndata: Hello\n\n"],
        [("greeting", "Hello", "abc")],
    ),
    "before two events": ([BOM + b"data: First\n\ndata: Second\n\n"], plain("First", "Second")),
    "in a later event": ([b"data: First\n\n", b"data: " + BOM + b"Second\n\n"], plain("First", "\ufeffSecond")),
    "in two pieces": ([BOM[:2], BOM[2:] + b"data: Hello\n\n"], plain("Hello")),
    "in three pieces": ([BOM[:1], BOM[1:2], BOM[2:], b"data: Hello\n\n"], plain("Hello")),
    "at the start and in the data": ([BOM + b"data: " + BOM + b"Hello\n\n"], plain("\ufeffHello")),
    "none": ([b"data: Hello\n\n"], plain("Hello")),
    "before two lines": ([BOM + b"data: Line1\ndata: Line2\n\n"], plain("Line1\nLine2")),
    "before empty data": ([BOM + b"data:\n\n"], plain("")),
}


class TestParsing:
    @pytest.mark.parametrize("case", PARSING)
    def test_an_event_is_reported_with_its_type_its_data_and_its_id(
        self, service: Service, server: StreamServer, case: str
    ) -> None:
        pieces, events = PARSING[case]
        with service.client(server) as client:
            server.connection().send(*pieces)
            assert [client.event() for _ in events] == events

    @pytest.mark.parametrize("size", [1, 2, 1000])
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
    @pytest.mark.parametrize("case", LINES)
    def test_every_line_end_is_one_however_the_stream_is_cut(
        self, service: Service, server: StreamServer, case: str, end: str, size: int
    ) -> None:
        text, events = LINES[case]
        text = text.replace("\n", end)
        with service.client(server) as client:
            server.connection().send(*[text[at : at + size] for at in range(0, len(text), size)])
            assert [client.event() for _ in events] == events

    @pytest.mark.parametrize("case", BOMS)
    def test_one_byte_order_mark_is_dropped_at_the_start(
        self, service: Service, server: StreamServer, case: str
    ) -> None:
        pieces, events = BOMS[case]
        with service.client(server) as client:
            server.connection().send(*pieces)
            assert [client.event() for _ in events] == events

    def test_characters_may_come_byte_by_byte(self, service: Service, server: StreamServer) -> None:
        with service.client(server) as client:
            connection = server.connection()
            for byte in "data: €豆腐\n\n".encode():
                connection.send(bytes([byte]))
            assert client.event() == ("message", "€豆腐", "")

    def test_a_hundred_events_at_once_are_reported_in_order(self, service: Service, server: StreamServer) -> None:
        with service.client(server) as client:
            server.connection().send("".join(f"data: message {number}\n\n" for number in range(100)))
            assert [client.event() for _ in range(100)] == plain(*[f"message {number}" for number in range(100)])

    def test_large_events_are_reported_whole(self, service: Service, server: StreamServer) -> None:
        half = "0123456789abcdef" * (7 * 1024 * 1024 // 16)
        with service.client(server) as client:
            connection = server.connection()
            connection.send(f"data: {half}\n\n")
            assert client.event()[1] == half
            connection.send(f"data: {half}", f"{half}\n\n")
            assert client.event()[1] == half + half

    def test_an_event_waits_in_no_buffer_whatever_its_size(self, service: Service, server: StreamServer) -> None:
        with service.client(server) as client:
            connection = server.connection()
            for power in range(21):
                for size in (2**power - 1, 2**power, 2**power + 1):
                    connection.send(f"data: {'x' * size}\n\n")
                    assert len(client.event()[1]) == size


class TestComments:
    def test_a_comment_is_reported_as_soon_as_its_line_is_complete(
        self, service: Service, server: StreamServer
    ) -> None:
        with service.client(server) as client:
            connection = server.connection()
            connection.send(":Hello\n")
            assert client.comment() == "Hello"
            connection.send(":World\n")
            assert client.comment() == "World"

    def test_comments_and_events_are_reported_in_the_order_of_the_stream(
        self, service: Service, server: StreamServer
    ) -> None:
        with service.client(server) as client:
            connection = server.connection()
            connection.send(":before\n", "data: Hello\n\n", ":after\n", "data: cut\n", ":within\n", "data: in two\n\n")
            assert client.comment() == "before"
            assert client.event() == ("message", "Hello", "")
            assert client.comment() == "after"
            assert client.comment() == "within"
            assert client.event() == ("message", "cut\nin two", "")

    def test_a_comment_may_follow_a_byte_order_mark(self, service: Service, server: StreamServer) -> None:
        with service.client(server) as client:
            server.connection().send(BOM + b":comment\ndata: Hello\n\n")
            assert client.comment() == "comment"
            assert client.event() == ("message", "Hello", "")
