"""What a client is answered that can't be served now, and when it is to come back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from ssesync import EventStream, SettingsError, Writer
from ssesync.detached.last_answer import closing
from ssesync.server.refusal import ReconnectionTimes, is_event_source
from ssesync.server.registry import Streams
from tests.unit.server.test_stream import environ

BROWSER = {"HTTP_ACCEPT": "text/event-stream"}


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[Streams]:
    fresh = Streams()
    monkeypatch.setattr("ssesync.server.stream.streams", fresh)
    monkeypatch.setattr("ssesync.server.closing.streams", fresh)
    monkeypatch.setattr("ssesync.server.refusing.streams", fresh)
    yield fresh
    for stream in fresh.all():
        stream.close()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("ssesync.server.refusal.time", clock)
    return clock


def refused(**more: Any) -> tuple[str, dict[str, str], bytes]:
    """The answer to one more client than there is room for."""
    options = {"max_streams": 1, **more.pop("options", {})}
    stream = EventStream(Writer(), **options)
    status = stream.open(environ(**more))
    return status, dict(stream.headers), b"".join(stream)


# when


def test_at_most_a_hundred_refused_clients_reconnect_in_a_second_between_3_and_120_seconds(
    clock: Clock,
) -> None:
    times = ReconnectionTimes()
    waits = sorted(times.give() for _ in range(2000))
    assert waits[0] >= 3
    assert waits[-1] <= 2 * (3 + 2000 / 100)
    assert max(sum(start <= wait < start + 1 for wait in waits) for start in range(3, 46)) <= 120  # by chance
    waits += [times.give() for _ in range(20_000)]
    assert max(waits) <= 120


def test_reconnection_times_are_short_again_when_no_more_clients_are_refused(clock: Clock) -> None:
    times = ReconnectionTimes()
    for _ in range(5000):
        times.give()
    assert times.give() > 40
    clock.now += 30
    assert 20 < times.give() < 60
    clock.now += 60
    assert 3 <= times.give() <= 6
    assert 30 <= times.give(least=30) <= 60


def test_a_few_clients_that_come_back_again_and_again_wait_no_longer_each_time(clock: Clock) -> None:
    times = ReconnectionTimes()
    for _ in range(200):
        clock.now += 0.5
        assert 3 <= times.give() <= 6.1


# who


@pytest.mark.parametrize(
    ("accept", "method", "expected"),
    [
        ("text/event-stream", "GET", True),
        (" Text/Event-Stream ", "GET", True),
        ("text/event-stream", "POST", False),
        ("text/event-stream, */*", "GET", False),
        ("text/event-stream;q=1", "GET", False),
        ("*/*", "GET", False),
        ("", "GET", False),
    ],
)
def test_a_browser_is_recognised_by_accepting_event_streams_alone(accept: str, method: str, expected: bool) -> None:
    assert is_event_source({"REQUEST_METHOD": method, "HTTP_ACCEPT": accept}) is expected


# what


def test_a_browser_gets_200_with_nothing_but_a_reconnection_time_and_others_503(afresh: Streams) -> None:
    kept = EventStream(Writer(), headers={"X-Own": "1"})
    kept.open(environ())
    status, headers, body = refused(**BROWSER)
    assert status == "200 OK"
    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert 3000 <= int(re.fullmatch(rb"retry: (\d+)\n", body)[1]) <= 6000  # type: ignore[index]
    for others in ({}, {"HTTP_ACCEPT": "text/event-stream, */*"}, {**BROWSER, "REQUEST_METHOD": "POST"}):
        status, headers, body = refused(**others)
        assert (status, body) == ("503 Service Unavailable", b"too many event streams\n")
        assert 3 <= int(headers["Retry-After"]) <= 7
    assert afresh.snapshot()["refused"] == 4


def test_with_refusal_503_everybody_gets_that() -> None:
    kept = EventStream(Writer())
    kept.open(environ())
    status, _, body = refused(options={"refusal": "503"}, **BROWSER)
    assert (status, body) == ("503 Service Unavailable", b"too many event streams\n")
    with pytest.raises(SettingsError, match="refusal takes 'auto' or '503', got '429'"):
        EventStream(Writer(), refusal="429")


def test_no_reconnection_time_is_shorter_than_the_streams_own() -> None:
    kept = EventStream(Writer())
    kept.open(environ())
    _, _, body = refused(options={"retry": 20_000}, **BROWSER)
    assert 20_000 <= int(body.split()[1]) <= 40_000
    _, headers, _ = refused(options={"retry": 20_000})
    assert 20 <= int(headers["Retry-After"]) <= 40


def test_a_browser_of_another_origin_may_read_its_refusal() -> None:
    kept = EventStream(Writer())
    kept.open(environ())
    origin = "https://friend.example"
    _, headers, _ = refused(options={"cors_origins": [origin]}, HTTP_ORIGIN=origin, **BROWSER)
    assert headers["Access-Control-Allow-Origin"] == origin


def test_while_refused_browsers_are_to_come_back_streams_begin_with_a_normal_reconnection_time(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    def opening(**options: Any) -> bytes:
        stream = EventStream(Writer(), **options)
        stream.open(environ())
        try:
            return next(stream)
        finally:
            stream.close()

    kept = EventStream(Writer())
    kept.open(environ())
    assert refused()[0].startswith("503")
    assert opening() == b":ok\n"
    assert refused(**BROWSER)[0].startswith("200")
    assert opening() == b"retry: 3000\n"
    assert opening(retry=7000) == b"retry: 7000\n"
    assert opening(padding=3) == b":   \nretry: 3000\n"
    clock.now += 60
    assert opening() == b":ok\n"


def test_a_stream_that_is_only_refused_counts_as_refused_and_says_why(afresh: Streams) -> None:
    for more, expected in ((BROWSER, "200 OK"), ({}, "503 Service Unavailable")):
        stream = EventStream.refused("the broker can't be reached", name="/news")
        assert stream.open(environ(**more)) == expected
        body = b"".join(stream)
        assert body.startswith(b"retry: ") if more else body == b"the broker can't be reached\n"
        stream.close()
    snapshot = afresh.snapshot()
    assert (snapshot["opened"], snapshot["refused"], snapshot["streams"]) == (0, 2, [])


# the end of the connection

HEAD = b"HTTP/1.1 503 Service Unavailable\r\nServer: x\r\n"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            HEAD + b"Connection: keep-alive\r\nContent-Length: 3\r\n\r\nno\n",
            HEAD + b"Content-Length: 3\r\nConnection: close\r\n\r\nno\n",
        ),
        (
            HEAD + b"Keep-Alive: 5\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nno\n\r\n0\r\n\r\n",
            HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nno\n\r\n0\r\n\r\n",
        ),
        (HEAD + b"\r\nno\n", HEAD + b"Connection: close\r\n\r\nno\n"),
        (b"", None),
        (HEAD, None),
        (HEAD + b"\r\n", None),
        (HEAD + b"Content-Length: 4\r\n\r\nno\n", None),
        (HEAD + b"Content-Length: 2\r\n\r\nno\n", None),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nno\n\r\n", None),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nno\n\r\n0\r\n\r\nHTTP/1.1", None),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nnone\r\n0\r\n\r\n", None),
        (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", None),
        (b"HTTP/1.1 100 Continue\r\n\r\n", None),
        (b"data: no head\n\n", None),
    ],
)
def test_only_a_complete_answer_is_made_the_last_one_of_its_connection(written: bytes, expected: bytes | None) -> None:
    assert closing(written) == expected
