"""What every server must do with a stream of every application."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter

import pytest

from ssesync import Event
from ssesync.wire import Decoder, encode
from tests.apps import producers
from tests.http_client import Response

from .kinds import Target
from .switchboard import Switchboard

OPENING = b":ok\n"
TICKS = b"".join(encode(event) for event in producers.ticks())
#: RFC 9110, section 7.6.1, and what PEP 3333 calls so.
HOP_BY_HOP = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "trailers",
    "transfer-encoding", "upgrade",
}  # fmt: skip


def assert_clean_end(response: Response, target: Target) -> None:
    """The body ended as its framing says, with nothing more to come."""
    assert response.read() == b""
    assert response.end == ("last chunk" if target.kind.chunked else "eof")


def test_status_headers_and_first_bytes_come_before_the_first_event(target: Target, switchboard: Switchboard) -> None:
    with target.connect() as connection:
        response = connection.get(target.path("gate", line=switchboard.port))
        assert response.status == 200
        response.expect(OPENING)
        producer = switchboard.producer()  # it has yielded nothing, and will not until it is told to
        producer.send("first")
        response.expect(b"data: first\n\n")


def test_headers_are_an_event_streams_and_none_is_hop_by_hop(target: Target) -> None:
    with target.connect() as connection:
        response = connection.get(target.path("ticks"))
        assert response.header("content-type") == "text/event-stream; charset=utf-8"
        assert response.header("cache-control") == "no-cache, no-transform"
        assert response.header("x-accel-buffering") == "no"
        for unwanted in ("content-length", "etag", "last-modified"):
            assert response.header(unwanted) is None
        assert response.chunked == target.kind.chunked
        response.read()
    [headers] = target.facts()["headers"]
    assert not HOP_BY_HOP & {name.lower() for name, _ in headers}


def test_cookies_of_middleware_and_headers_of_decorators_survive(target: Target, switchboard: Switchboard) -> None:
    with target.connect() as connection:
        response = connection.get(target.path("gate", line=switchboard.port))
        assert (response.header("set-cookie") or "").startswith("visited=yes")
        assert response.header("access-control-allow-origin") == "https://example.org"


@pytest.mark.parametrize("route", ["gate", "writer"])
def test_events_come_one_by_one_as_they_are_produced(target: Target, switchboard: Switchboard, route: str) -> None:
    with target.connect() as connection:
        response = connection.get(target.path(route, line=switchboard.port))
        response.expect(OPENING)
        producer = switchboard.producer()
        for number in range(5):
            producer.send(f"number\n{number}", type="tick", id=number)
            response.expect(f"id: {number}\nevent: tick\ndata: number\ndata: {number}\n\n".encode())
        producer.end()
        assert_clean_end(response, target)
    assert not target.has_failed()


def test_a_stream_ends_cleanly_and_its_connection_takes_another_request(target: Target) -> None:
    with target.connect() as connection:
        response = connection.get(target.path("ticks"))
        assert response.read() == OPENING + TICKS
        assert_clean_end(response, target)
        assert response.keeps_alive == target.kind.reusable
        if target.kind.reusable:
            assert connection.get(target.path("plain")).read() == b"plain"
            assert connection.get(target.path("ticks")).read() == OPENING + TICKS
        elif target.kind.chunked:
            assert connection.rest() == b""
    assert not target.has_failed()


def test_an_object_is_served_many_times_each_time_from_the_start(target: Target) -> None:
    for _ in range(3):
        with target.connect() as connection:
            assert connection.get(target.path("ticks")).read() == OPENING + TICKS


def test_keep_alives_come_in_silence_and_are_no_events(target: Target, switchboard: Switchboard) -> None:
    with target.connect() as connection:
        response = connection.get(target.path("leave", line=switchboard.port))
        producer = switchboard.producer()
        response.expect(OPENING + b":keep-alive\n" * 3)
        producer.send("first", id=1)
        body = b""
        while not body.endswith(b"data: first\n\n"):
            body += response.piece()
        response.expect(b":keep-alive\n" * 2)
        producer.send("second")
        while not body.endswith(b"data: second\n\n"):
            body += response.piece()
        producer.end()
        body += response.read()
        assert switchboard.answer().hear() == {"on_close": "done", "events": 2}
    assert body.replace(b":keep-alive\n", b"") == b"id: 1\ndata: first\n\ndata: second\n\n"
    events = Decoder().feed(body)
    assert [event.data for event in events] == ["first", "second"]


def test_an_error_before_the_first_event_is_status_500(target: Target) -> None:
    with target.connect() as connection:
        response = connection.get(target.path("failing"))
        assert response.status == 500
        assert response.header("content-type") != "text/event-stream; charset=utf-8"
        assert producers.SECRET not in response.read().decode()
    assert target.logs(producers.SECRET)


def test_an_error_after_an_event_is_an_error_event_and_no_clean_end(target: Target, switchboard: Switchboard) -> None:
    with target.connect() as connection:
        response = connection.get(target.path("gate", line=switchboard.port))
        response.expect(OPENING)
        producer = switchboard.producer()
        producer.send("first")
        response.expect(b"data: first\n\n")
        producer.fail()
        [event] = Decoder().feed(response.read_broken())
        assert event.type == "error"
        assert producers.SECRET not in str(event)
    assert target.logs(producers.SECRET)


def test_an_error_after_the_opening_is_an_error_event_and_no_clean_end(
    target: Target, switchboard: Switchboard
) -> None:
    """The status has gone out when the producer took longer than first_event_timeout and then failed."""
    with target.connect() as connection:
        response = connection.get(target.path("gate", line=switchboard.port))
        response.expect(OPENING)
        switchboard.producer().fail()
        [event] = Decoder().feed(response.read_broken())
        assert event.type == "error"
        assert producers.SECRET not in str(event)


def test_head_gets_the_headers_no_body_no_producer_and_holds_no_thread(
    target: Target, switchboard: Switchboard
) -> None:
    with contextlib.ExitStack() as connections:
        for _ in range(2 * (target.kind.pool or 4)):
            connection = connections.enter_context(target.connect())
            response = connection.head(target.path("gate", line=switchboard.port))
            assert response.status == 200
            assert response.header("content-type") == "text/event-stream; charset=utf-8"
            if response.keeps_alive:
                # What came behind the head of the first answer would now be taken for the head of the second.
                assert connection.get(target.path("plain")).read() == b"plain"
            else:
                assert connection.rest() == target.kind.after_head
            if not target.kind.concurrent:
                connection.close()
        assert target.fetch("plain") == "plain"
    assert "started" not in target.facts()
    assert not target.has_failed()


def test_a_client_that_has_all_gets_204_and_others_get_the_stream(target: Target) -> None:
    with target.connect() as connection:
        response = connection.get(target.path("finished"), Last_Event_ID="2")
        assert response.status == 204
        assert response.header("content-type") is None
        assert response.header("transfer-encoding") is None
        assert response.header("content-length") in (None, "0")  # wsgiref adds it
    assert "started" not in target.facts()
    with target.connect() as connection:
        response = connection.get(target.path("finished"), Last_Event_ID="1")
        assert response.status == 200
        assert response.read() == OPENING + TICKS
    assert target.facts()["started"] == [True]


def test_events_that_several_threads_write_all_arrive_whole(target: Target) -> None:
    with target.connect() as connection:
        response = connection.get(target.path("crowd"))
        body = response.read()
        assert_clean_end(response, target)
    assert body.startswith(OPENING)
    came = Counter((event.type, event.data) for event in Decoder().feed(body))
    expected: Counter[tuple[str | None, str | None]] = Counter()
    for thread in range(producers.THREADS):
        for number in range(producers.EACH):
            data = producers.crowd_data(thread, number)
            expected["half" if number % 10 == 9 else "whole", data] += 2 if number % 10 == 9 else 1
    assert came == expected


def test_each_threads_events_arrive_in_its_own_order_and_its_batches_together(target: Target) -> None:
    with target.connect() as connection:
        body = connection.get(target.path("crowd")).read()
    events = [(event.type, event.data or "") for event in Decoder().feed(body)]
    for thread in range(producers.THREADS):
        numbers = [json.loads(data.partition("\n")[0].partition("x")[0]) for _, data in events]
        own = [number for writer, number in numbers if writer == thread]
        assert own == sorted(own)
    halves = [place for place, (kind, _) in enumerate(events) if kind == "half"]
    for first, second in zip(halves[::2], halves[1::2], strict=True):
        assert second == first + 1
        assert events[first] == events[second]


def test_a_slow_reader_makes_the_producer_wait_and_loses_nothing(target: Target, switchboard: Switchboard) -> None:
    size = 65_536
    count = 2 * target.kind.ahead // size
    with target.connect(receive_buffer=32_768) as connection:
        path = target.path("flood", line=switchboard.port, count=count, size=size)
        response = connection.get(path)
        line = switchboard.answer()
        written = 0
        try:
            while (message := line.hear(timeout=0.6)) is not None:
                written = message["number"]
        except TimeoutError:
            pass  # it waits; a machine so slow that it only seems to can't make what follows fail
        assert written * size < target.kind.ahead
        digest, length = hashlib.sha256(), 0
        with switchboard.absorbing(line):
            while piece := response.piece():
                digest.update(piece)
                length += len(piece)
        assert_clean_end(response, target)
    expected, expected_length = hashlib.sha256(OPENING), len(OPENING)
    for number in range(count):
        data = encode(Event(producers.flood_data(number, size)))
        expected.update(data)
        expected_length += len(data)
    assert length == expected_length
    assert digest.digest() == expected.digest()


def test_a_client_that_leaves_frees_the_server_and_ends_the_producer_at_its_next_write(
    target: Target, switchboard: Switchboard
) -> None:
    with target.connect() as connection:
        response = connection.get(target.path("leave", line=switchboard.port))
        response.expect(OPENING)
        producer = switchboard.producer()
        producer.send("first")
        assert response.find(b"data: first\n\n").replace(b":keep-alive\n", b"") == b""
    assert switchboard.answer().hear() == {"on_close": "client_gone", "events": 1}
    # The producer still sits in a slow call: nobody else has to wait for it.
    assert target.fetch("plain") == "plain"
    producer.send("second")
    assert producer.farewell() == {"closed": target.key, "own_thread": True}
    assert target.facts()["on_close"] == ["client_gone"]
    assert not target.has_failed()


def test_a_client_that_leaves_ends_a_writing_view_with_the_reason(target: Target, switchboard: Switchboard) -> None:
    with target.connect() as connection:
        response = connection.get(target.path("writer", line=switchboard.port))
        response.expect(OPENING)
        producer = switchboard.producer()
    assert producer.send_until_closed() == {"stream_closed": "client_gone"}
    assert not target.has_failed()
