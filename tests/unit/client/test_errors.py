"""Whatever goes wrong with a response is one of the library's errors, with what is needed to find out why."""

from __future__ import annotations

import copy
import pickle
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import requests

from ssesync import (
    ConnectionLost,
    ContentTypeError,
    Event,
    IdleTimeout,
    Reader,
    ReadError,
    ResponseError,
    StatusError,
)
from ssesync.testing import (
    CHUNKED,
    FIN,
    HOLD,
    LAST_CHUNK,
    RST,
    FakeSSEServer,
    RecordedRequest,
    Step,
    chunk,
    chunked,
    head,
)

from ...cases import each_case
from .conftest import Tls
from .raw_server import FRAMINGS, TIMEOUT, Steps, gzip_pieces

EVENT = Event("x", type="message")


@each_case("status", ["201 Created", "206 Partial Content", "400 Bad RecordedRequest", "404 Not Found", "503 Busy"])
def test_another_status_is_refused_with_the_response_and_its_body(
    status: str, serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve_both([head("Content-Length: 7", "X-Why: y", status=status), b"no luck"])
    response = get(server)
    with pytest.raises(StatusError, match=rf"status {status[:3]} instead of 200.*no luck") as caught:
        Reader(response)
    error = caught.value
    assert isinstance(error, ResponseError)
    assert error.response is response
    assert error.response.headers["X-Why"] == "y"
    assert error.body == b"no luck"


@each_case(
    "content_type",
    [
        None,
        "",
        "text/html; charset=utf-8",
        "application/json",
        "text/event-streams",
        "text/event",
        "text/plain; a=text/event-stream",
    ],
)
def test_another_media_type_is_refused_with_the_response_and_its_body(
    content_type: str | None, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    response = get(serve([head(CHUNKED, content_type=content_type), chunked(b"<h1>", b"Hello")]))
    with pytest.raises(ContentTypeError, match=r"instead of text/event-stream.*<h1>Hello") as caught:
        Reader(response)
    assert caught.value.response is response
    assert caught.value.body == b"<h1>Hello"


@each_case(
    "content_type",
    [
        "text/event-stream",
        "TEXT/Event-Stream",
        "text/event-stream;charset=utf-8",
        "text/event-stream ; charset=UTF-8; x=y",
        " text/event-stream",
        'text/event-stream;a="b;c"',
    ],
)
def test_the_media_type_counts_in_any_case_with_any_parameters(
    content_type: str, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    response = get(serve([head("Content-Length: 9", content_type=content_type), b"data: x\n\n"]))
    assert list(Reader(response)) == [EVENT]


def test_status_204_reads_as_a_stream_without_events(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve([head(status="204 No Content", content_type=None)])
    for _ in range(2):
        assert list(Reader(get(server))) == []
    assert server.connections == 1


def test_without_the_check_any_response_is_read(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    response = get(serve([head(CHUNKED, status="500 Broken", content_type="text/plain"), chunked(b"data: x\n\n")]))
    assert list(Reader(response, check=False)) == [EVENT]


def test_a_compressed_body_of_a_refused_answer_is_decompressed(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    body = b"".join(gzip_pieces([b"no ", b"luck"]))
    headers = ("Content-Encoding: gzip", f"Content-Length: {len(body)}")
    response = get(serve([head(*headers, status="500 Broken"), body]))
    with pytest.raises(StatusError) as caught:
        Reader(response)
    assert caught.value.body == b"no luck"


@each_case("framing", [name for name in FRAMINGS if name != "many chunks each"])
def test_a_refused_answer_without_end_costs_no_more_than_64_kb(
    framing: str, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    start, sent, _ = FRAMINGS[framing]([b"x" * 999 + b"\n"] * 300)

    def script(_: RecordedRequest) -> Steps:
        yield start.replace(b"200 OK", b"500 Broken")
        for parts in sent:
            yield from parts
        yield HOLD

    server = serve(script)
    with pytest.raises(StatusError) as caught:
        Reader(get(server))
    assert len(caught.value.body) == 65536
    assert caught.value.body == ((b"x" * 999 + b"\n") * 66)[:65536]
    assert len(str(caught.value)) < 400
    assert server.client_left.acquire(timeout=TIMEOUT)


@pytest.mark.slow
def test_a_refused_answer_that_stalls_raises_with_the_bytes_so_far(
    serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssesync.client.reader._EXCERPT_SECONDS", 0.2)
    server = serve_both([head(CHUNKED, status="429 Slow Down"), chunk(b"later"), HOLD])
    response = get(server)
    with pytest.raises(StatusError, match="429") as caught:
        Reader(response)
    assert caught.value.response is response
    assert caught.value.body in (b"later", b"")  # nothing, where the machine needed the time for itself
    assert server.client_left.acquire(timeout=TIMEOUT)


@pytest.mark.slow
@pytest.mark.parametrize("start", [head(CHUNKED, status="500 Oh"), head(CHUNKED, content_type="text/html")])
@pytest.mark.parametrize("content", [b"", b"too bad"])
def test_a_short_silence_is_enough_to_report_a_refused_answer_that_stays_open(
    start: bytes, content: bytes, serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("ssesync.client.reader._EXCERPT_SILENCE", 0.3)  # as it is without these tests' conftest.py
    monkeypatch.setattr("ssesync.client.reader._EXCERPT_SECONDS", TIMEOUT * 2)
    response = get(serve_both([start + (chunk(content) if content else b""), HOLD]))
    began = time.monotonic()
    with pytest.raises(ResponseError) as caught:
        Reader(response)
    assert time.monotonic() - began < TIMEOUT
    assert caught.value.body in (content, b"")


@pytest.mark.parametrize("end", [FIN, RST])
def test_a_refused_answer_that_breaks_raises_by_its_status(
    end: Step, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    response = get(serve([head("Content-Length: 100", status="502 Bad Gateway"), b"no", end]))
    with pytest.raises(StatusError, match="502") as caught:
        Reader(response)
    assert caught.value.body in (b"no", b"")


def test_the_error_can_be_copied(serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]) -> None:
    with pytest.raises(StatusError) as caught:
        Reader(get(serve([head("Content-Length: 2", status="400 Bad"), b"no"])))
    for twin in (copy.copy(caught.value), pickle.loads(pickle.dumps(caught.value))):
        assert (type(twin), str(twin), twin.body) == (StatusError, str(caught.value), b"no")
        assert twin.response.status_code == 400


@pytest.mark.slow
@pytest.mark.parametrize("framing", FRAMINGS)
def test_silence_for_longer_than_the_idle_timeout_is_an_error(
    framing: str, serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    start, sent, _ = FRAMINGS[framing]([b"data: x\n\n", b"data: never\n\n"])
    server = serve_both([start, *sent[0], HOLD])
    reader = Reader(get(server, timeout=(TIMEOUT, TIMEOUT)), idle_timeout=0.3)
    seen: list[Event] = []
    with pytest.raises(IdleTimeout) as caught:
        reader.for_each(seen.append)
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, ReadError)
    assert caught.value.__cause__ is not None
    assert not reader.cancelled
    assert reader.read() is None
    assert server.client_left.acquire(timeout=TIMEOUT)


@pytest.mark.slow
def test_the_read_timeout_of_the_request_holds_where_no_idle_timeout_is_given(
    serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    reader = Reader(get(serve_both([head(CHUNKED), chunk(b"data: x\n\n"), HOLD]), timeout=(TIMEOUT, 1)))
    assert reader.read() == EVENT
    with pytest.raises(IdleTimeout):
        reader.read()


def paced(pause: float, count: int) -> Callable[[RecordedRequest], Iterator[bytes | Step]]:
    """Comments with pauses between them, then an event, then silence."""

    def script(_: RecordedRequest) -> Iterator[bytes | Step]:
        yield head(CHUNKED)
        for _unused in range(count):
            time.sleep(pause)
            yield chunk(b":\n")
        yield chunk(b"data: x\n\n")
        yield HOLD

    return script


@pytest.mark.slow
def test_comments_restart_the_idle_timeout_and_the_connect_timeout_does_not_apply(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    response = get(serve(paced(0.25, 8)), timeout=(1.0, TIMEOUT))
    start = time.monotonic()
    reader = Reader(response, idle_timeout=1.5)
    assert reader.read() == EVENT
    assert time.monotonic() - start > 1.5
    with pytest.raises(IdleTimeout):
        reader.read()


@pytest.mark.slow
def test_an_idle_timeout_does_not_outlive_its_stream(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    def script(request: RecordedRequest) -> Iterator[bytes | Step]:
        if request.connection == 0 and request.target == "/":
            yield head(CHUNKED)
            if len(server.requests) == 2:
                time.sleep(1.5)
            yield chunked(b"data: x\n\n")

    server = serve(script)
    assert list(Reader(get(server), idle_timeout=1)) == [EVENT]
    assert list(Reader(get(server))) == [EVENT]
    assert server.connections == 1


KNOW_THEIR_END = [
    "one chunk each",
    "many chunks each",
    "one chunk that trickles",
    "Content-Length",
    "gzip, chunked",
    "gzip, Content-Length",
]


@each_case("framing", FRAMINGS)
def test_a_reset_in_mid_stream_is_a_lost_connection_with_its_cause(
    framing: str, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    start, sent, _ = FRAMINGS[framing]([b"data: x\n\n", b"data: never\n\n"])
    go = threading.Event()
    reader = Reader(get(serve([start, *sent[0], go, RST])))
    assert reader.read() == EVENT
    go.set()
    with pytest.raises(ConnectionLost) as caught:
        reader.read()
    assert isinstance(caught.value, ConnectionError)
    assert isinstance(caught.value, ReadError)
    assert caught.value.__cause__ is not None
    assert not reader.cancelled
    assert reader.read() is None


# The ssl of older Pythons tells a reset as an end: there, only these framings know better.
@pytest.mark.parametrize("framing", KNOW_THEIR_END)
def test_a_reset_under_tls_is_a_lost_connection(framing: str, tls: Tls, get: Callable[..., requests.Response]) -> None:
    start, sent, _ = FRAMINGS[framing]([b"data: x\n\n", b"data: never\n\n"])
    go = threading.Event()
    with FakeSSEServer([start, *sent[0], go, RST], tls=tls.context) as server:
        reader = Reader(get(server))
        assert reader.read() == EVENT
        go.set()
        with pytest.raises(ConnectionLost):
            reader.read()


@each_case("framing", KNOW_THEIR_END)
def test_an_end_before_the_framing_says_so_is_a_lost_connection(
    framing: str, serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    start, sent, _ = FRAMINGS[framing]([b"data: x\n\n", b"data: never\n\n"])
    reader = Reader(get(serve_both([start, *sent[0], FIN])), until="[DONE]", until_required=True)
    assert reader.read() == EVENT
    with pytest.raises(ConnectionLost):
        reader.read()
    assert reader.read() is None


@pytest.mark.parametrize("framing", ["close-delimited", "HTTP/1.0"])
def test_without_a_framed_end_the_connections_end_is_the_streams(
    framing: str, serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    start, sent, _ = FRAMINGS[framing]([b"data: x\n\n"])
    assert list(Reader(get(serve_both([start, *sent[0], b"data: half\n", FIN])))) == [EVENT]


@pytest.mark.parametrize("framing", ["chunked", "close-delimited"])
def test_malformed_gzip_is_an_error_that_says_so(
    framing: str, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    good = next(gzip_pieces([b"data: x\n\n"]))
    bad = b"\xff" * 40
    if framing == "chunked":
        steps: list[bytes | Step] = [head(CHUNKED, "Content-Encoding: gzip"), chunk(good), chunk(bad), LAST_CHUNK]
    else:
        steps = [head("Content-Encoding: gzip"), good, bad, FIN]
    reader = Reader(get(serve(steps)))
    with pytest.raises(ReadError, match="decompress") as caught:
        list(reader)
    assert not isinstance(caught.value, ConnectionLost)
    assert caught.value.__cause__ is not None


def test_a_body_that_is_no_gzip_at_all_is_an_error(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve([head(CHUNKED, "Content-Encoding: gzip"), chunked(b"data: x\n\n")])
    with pytest.raises(ReadError, match="decompress"):
        Reader(get(server)).read()
