"""With a transform events are decoded, mapped to none, one or many, and encoded."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ssesync import Event, EventStream, Relay
from ssesync.testing import CHUNKED, HOLD, LAST_CHUNK, RST, FakeSSEServer, chunk, head
from ssesync.wire import Decoder
from tests.unit.client.raw_server import TIMEOUT

from .conftest import OPENING

Ask = Callable[..., Any]
Upstream = Callable[..., FakeSSEServer]
NUMBERS = b"".join(b"id: %d\nevent: number\ndata: %d\n\n" % (number, number) for number in range(6))


def relayed(response: Any, transform: Callable[[Event], Any], **options: Any) -> tuple[EventStream, bytes]:
    stream = EventStream(Relay(response, transform=transform, **options), keep_alive=None, first_event_timeout=0)
    stream.open()
    data = b"".join(stream)
    assert data.startswith(OPENING)
    return stream, data[len(OPENING) :]


def whole(body: bytes) -> list[bytes]:
    return [head(CHUNKED), *(chunk(body[at : at + 7]) for at in range(0, len(body), 7)), LAST_CHUNK]


def doubled(event: Event) -> Iterator[Event]:
    yield event
    yield event


def even(event: Event) -> Event | None:
    return event if int(event.data or "") % 2 == 0 else None


def upper(event: Event) -> Event:
    return dataclasses.replace(event, data="n" + (event.data or ""), id=None, type=None)


@pytest.mark.parametrize(
    ("transform", "data"),
    [
        (even, ["0", "2", "4"]),
        (doubled, list("001122334455")),
        (lambda event: [], []),
        (lambda event: (event, "more"), ["0", "more", "1", "more", "2", "more", "3", "more", "4", "more", "5", "more"]),
        (upper, ["n0", "n1", "n2", "n3", "n4", "n5"]),
        (lambda event: {"n": int(event.data or "")}, [f'{{"n":{n}}}' for n in range(6)]),
        (lambda event: f"text {event.data}", [f"text {n}" for n in range(6)]),
        (lambda event: bytearray(b"b"), ["b"] * 6),
    ],
    ids=["none or one", "a generator", "an empty list", "many", "changed", "JSON", "text", "bytes"],
)
def test_what_the_transform_gives_is_sent(transform: Any, data: list[str], upstream: Upstream, ask: Ask) -> None:
    stream, came = relayed(ask(upstream(whole(NUMBERS))), transform)
    assert [event.data for event in Decoder().feed(came)] == data
    assert stream.stats.events == len(data)
    assert stream.reason == "done"


def test_an_event_that_is_given_back_as_it_is_goes_as_it_came(upstream: Upstream, ask: Ask) -> None:
    body = b"data: a\n\nevent: token\ndata: b\n\nid: 7\ndata: c\ndata: d\n\nid: \ndata: e\n\ndata: f\n\n"
    assert relayed(ask(upstream(whole(body))), lambda event: event)[1] == body


def test_the_transform_sees_events_and_no_comments(upstream: Upstream, ask: Ask) -> None:
    seen: list[Event] = []
    relayed(ask(upstream(whole(b": c\nid: 1\ndata: x\n\n:\n\ndata: y\n\n"))), seen.append)
    assert seen == [Event("x", type="message", id="1"), Event("y", type="message", id="1")]


def test_reconnection_times_are_passed_on(upstream: Upstream, ask: Ask) -> None:
    came = relayed(ask(upstream(whole(b"retry: 100\n\ndata: x\n\nretry: 4000\n"))), lambda event: event)[1]
    decoder = Decoder()
    assert [event.data for event in decoder.feed(came)] == ["x"]
    assert decoder.retry == 4000


def test_an_error_in_the_transform_ends_both_streams_and_is_logged(
    upstream: Upstream, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: Event) -> Event:
        if event.data == "2":
            raise ValueError("no two")
        return event

    server = upstream([head(CHUNKED), chunk(NUMBERS), HOLD])
    stream, came = relayed(ask(server), fail)
    events = Decoder().feed(came)
    assert [event.type for event in events] == ["number", "number", "error"]
    assert "no two" not in came.decode()
    assert "no two" in caplog.text
    assert stream.reason == "error"
    assert server.client_left.acquire(timeout=TIMEOUT)


def test_something_that_can_not_be_sent_is_an_error_that_names_its_type(
    upstream: Upstream, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    stream, came = relayed(ask(upstream(whole(NUMBERS))), lambda event: [event, object()])
    assert [event.type for event in Decoder().feed(came)] == ["number", "error"]
    assert stream.reason == "error"
    assert "can't send 'object'" in caplog.text


def test_events_before_one_that_is_too_large_are_sent(
    upstream: Upstream, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    body = b"data: a\n\ndata: b\n\ndata: " + b"c" * 2_000
    stream, came = relayed(ask(upstream([head(CHUNKED), chunk(body), HOLD])), lambda e: e, max_event_size=1_000)
    assert [event.data for event in Decoder().feed(came)[:2]] == ["a", "b"]
    assert stream.reason == "error"
    assert "max_event_size=1,000" in caplog.text


def test_an_upstream_that_breaks_off_ends_the_stream_with_an_error_event(
    upstream: Upstream, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    came = threading.Event()
    server = upstream([head(CHUNKED), chunk(b"data: a\n\ndata: b"), came, RST])

    def note(event: Event) -> Event:
        came.set()
        return event

    _, data = relayed(ask(server), note)
    assert [event.type for event in Decoder().feed(data)] == ["message", "error"]
    assert "ConnectionLost" in caplog.text
