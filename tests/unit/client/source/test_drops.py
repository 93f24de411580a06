"""A connection that breaks off, wherever it does: the consumer has every event once, in order.

The servers here keep a log of events and go on behind the ID that they are asked with, as a proper server does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest

from ssesync import ConnectFailed, ConnectionLost, ContentTypeError, Event
from ssesync.testing import CHUNKED, FIN, RST, Answer, FakeSSEServer, RecordedRequest, Steps, head
from ssesync.wire import encode

from ....cases import each_case
from .following import GEVENT, Log, data_of, in_turn, source_of

Framing = Literal["chunked", "length", "close", "http/1.0"]
FRAMINGS: tuple[Framing, ...] = ("chunked", "length", "close", "http/1.0")

LOG = [
    Event("eins", id="1"),
    Event("zwölf\n🙂", id="zwölf", type="größer"),
    Event("", id="3"),
]
BODY = b": hello\nretry: 0\n" + b"".join(map(encode, LOG)) + b"id: 4\n\ndata: behind\n\n"
EXPECTED = [*(event.data for event in LOG), "behind"]


def replaying(cuts: Iterator[tuple[int, bool]], framing: Framing) -> Callable[[RecordedRequest], Steps]:
    """Serves the log from behind the asked ID on: once up to each place of ``cuts``, then all, then 204."""
    places = {event.id: BODY.index(encode(event)) + len(encode(event)) for event in LOG}
    places["4"] = BODY.index(b"data: behind")
    finished = False

    def script(request: RecordedRequest) -> Steps:
        nonlocal finished
        body = BODY[places.get(request.last_event_id, 0) :]
        at, rst = next(cuts, (None, False))
        if at is not None:
            return Answer(framing=framing).raw(body).cut(min(at, len(body) - 1), rst=rst)
        if finished:
            return Answer(204)
        finished = True
        return Answer(framing=framing).raw(body)

    return script


@pytest.mark.slow
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("rst", [False, True], ids=["FIN", "RST"])
def test_a_cut_at_any_byte_loses_and_repeats_nothing(
    framing: Framing, rst: bool, serve: Callable[..., FakeSSEServer]
) -> None:
    # Every fifth byte under one framing and ending, which cuts all kinds of bytes, fewer under the others.
    step = 23 if GEVENT else 5 if (framing, rst) == ("chunked", False) else 11
    for at in range(0, len(BODY), step):
        with FakeSSEServer(replaying(iter([(at, rst)]), framing)) as server:
            assert data_of(source_of(server)) == EXPECTED, f"cut at {at} of {BODY!r}"
            assert len(server.requests) == 3


@pytest.mark.slow
@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_connection_that_is_cut_again_and_again_gets_there_in_the_end(
    framing: Framing, serve: Callable[..., FakeSSEServer]
) -> None:
    cuts = [(at, bool(at % 2)) for at in range(3, 70)]
    server = serve(replaying(iter(cuts), framing))
    came = data_of(source_of(server))
    assert came == EXPECTED
    assert len(server.requests) == len(cuts) + 2


START = head(CHUNKED)
POINTS: dict[str, tuple[Any, type[Exception]]] = {
    "before the answer": ([], ConnectFailed),
    "in the status line": ([START[:9]], ConnectFailed),
    "behind the headers": ([START], ConnectionLost),
    "in a chunk's size": ([START, b"1"], ConnectionLost),
    "in a chunk": ([START, b"20\r\ndata: half"], ConnectionLost),
    "behind a chunk": ([START, b"c\r\ndata: half\n\n\r\n"], ConnectionLost),
    "in the last chunk": ([START, b"c\r\ndata: half\n\n\r\n0\r\n"], ConnectionLost),
    "in a body with a length": ([head("Content-Length: 50"), b"data: half"], ConnectionLost),
}


@each_case("point", POINTS)
@each_case("end", [FIN, RST])
def test_where_a_connection_ends_decides_what_the_error_is(
    point: str, end: Any, serve: Callable[..., FakeSSEServer]
) -> None:
    steps, error = POINTS[point]
    server = serve(in_turn([*steps, end], Answer().event("whole", id=9)))
    log = Log()
    came = data_of(source_of(server, last_event_id="7", **log.hooks))
    assert came[-1] == "whole"
    assert isinstance(log.errors[0], ConnectionError)
    assert log.names[1:] == ["StreamEnded"]
    if end is FIN:  # a reset may take with it what has arrived but was not read
        assert came[:-1] == (["half"] if b"half\n\n" in b"".join(steps) else [])
        assert type(log.errors[0]) is error
    assert [request.last_event_id for request in server.requests] == ["7", "7", "9"]


HEADS = {
    "type first": START,
    "type last": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n",
    "503": b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HEADS)
def test_a_connection_that_ends_anywhere_in_the_headers_is_made_again(
    kind: str, serve: Callable[..., FakeSSEServer]
) -> None:
    start = HEADS[kind]
    server = serve(in_turn(*([start[:at], FIN] for at in range(len(start))), Answer().event("one")))
    assert data_of(source_of(server)) == ["one"]
    assert len(server.requests) == len(start) + 2


@pytest.mark.parametrize("length", ["0", None])
def test_an_answer_of_another_type_and_no_body_is_final_all_the_same(
    length: str | None, serve: Callable[..., FakeSSEServer]
) -> None:
    headers = "Content-Type: text/html\r\n" + ("Content-Length: 0\r\n" if length else "Server: s\r\n")
    server = serve(in_turn([f"HTTP/1.1 200 OK\r\n{headers}\r\n".encode(), FIN]))
    with pytest.raises(ContentTypeError):
        data_of(source_of(server))


@pytest.mark.parametrize("framing", FRAMINGS)
def test_an_orderly_end_is_distinguished_from_a_broken_connection(framing: Framing, server: FakeSSEServer) -> None:
    server.answer(framing=framing).event("one")
    log = Log()
    assert data_of(source_of(server, **log.hooks)) == ["one"]
    assert log.names == ["StreamEnded"]


def test_nothing_of_a_broken_connection_goes_into_the_next(server: FakeSSEServer) -> None:
    server.answer().raw("id: 1\ndata: one\n\nid: 2\nevent: half\ndata: a half\ndata: b").drop()
    server.answer().raw("ad luck\n\ndata: two\n\n").drop()  # would end the line above
    server.answer().raw(b"data: \xf0\x9f").drop()
    server.answer().raw(b"\x99\x82\n\ndata: three\n\n\r").drop()
    server.answer().raw("\ndata: four\n\n")  # the line end belongs to no CR of before
    server.answer().raw(b"\xef\xbb\xbfdata: five\n\n")  # a byte order mark may begin every connection
    events = list(source_of(server))
    assert [(event.type, event.data, event.id) for event in events] == [
        ("message", "one", "1"),
        ("message", "two", "1"),
        ("message", "three", "1"),
        ("message", "four", "1"),
        ("message", "five", "1"),
    ]
    assert [request.last_event_id for request in server.requests] == [""] + ["1"] * 6


@pytest.mark.parametrize("rst", [False, True], ids=["FIN", "RST"])
def test_events_before_the_end_are_returned_and_later_ones_requested_again(rst: bool, server: FakeSSEServer) -> None:
    answer = server.answer()
    for number in range(500):
        answer.event("x" * 50 + str(number), id=number)
    answer.drop(rst=rst)
    events = list(source_of(server))
    assert [event.id for event in events] == [str(number) for number in range(len(events))]
    assert len(events) == 500 or rst
    assert server.requests[1].last_event_id == (events[-1].id if events else "")


def test_an_invalid_chunk_is_followed_by_a_reconnection(server: FakeSSEServer) -> None:
    server.answer().event("one", id=1).unframed(b"zz\r\nwhat is this?\r\n").drop()
    server.answer().event("two", id=2)
    log = Log()
    assert data_of(source_of(server, **log.hooks)) == ["one", "two"]
    assert log.names == ["ReadError", "StreamEnded"]


def test_an_answer_that_is_not_http_is_followed_by_a_reconnection(serve: Callable[..., FakeSSEServer]) -> None:
    server = serve(in_turn([b"SSH-2.0-OpenSSH_9\r\n", FIN], Answer().event("one")))
    log = Log()
    assert data_of(source_of(server, **log.hooks)) == ["one"]
    assert log.names == ["ConnectFailed", "StreamEnded"]
