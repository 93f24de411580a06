"""Answers of status 1xx come before the one that counts: they are skipped, however many, and an endless row ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import requests

from ssesync import (
    Backoff,
    CancelToken,
    ConnectFailed,
    ConnectionLost,
    Event,
    EventSource,
    EventStream,
    IdleTimeout,
    Reader,
    ReadError,
    Relay,
    RetriesExhausted,
    StatusError,
)
from ssesync.testing import (
    CHUNKED,
    HOLD,
    LAST_CHUNK,
    Answer,
    FakeSSEServer,
    RecordedRequest,
    Step,
    chunk,
    chunked,
    head,
)

from .background import Background
from .raw_server import FRAMINGS, TIMEOUT, Steps

HINTS = head("Link: </a>; rel=preload", "Set-Cookie: a=1", status="103 Early Hints", content_type=None)
INTERIM = {
    "103": [HINTS],
    "100, 103": [head(status="100 Continue", content_type=None) + HINTS],
    "102 twice, 103, in pieces": [head(status="102 Processing", content_type=None)] * 2 + [HINTS],
    "199": [head(status="199 What", content_type=None)],
    "closing": [head("Connection: close", status="103 Early Hints", content_type=None)],
}
EVENT = Event("hello", type="message")


@pytest.mark.parametrize(
    ("name", "framing"), [(name, "one chunk each") for name in INTERIM] + [("103", framing) for framing in FRAMINGS]
)
def test_an_interim_answer_is_skipped(
    name: str, framing: str, serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    start, sent, end = FRAMINGS[framing]([b"data: hello\n\n", b"data: hello\n\n"])
    steps = [*INTERIM[name], start, *(piece for pieces in sent for piece in pieces), *end]
    # Whole, so that what follows has been read along with the interim answer, and in pieces.
    whole = b"".join(step for step in steps if isinstance(step, bytes))
    for script in (steps, [whole, *(step for step in steps if isinstance(step, Step))]):
        response = get(serve_both(script))
        reader = Reader(response)
        assert (response.status_code, reader.response) == (200, response)
        assert response.headers["Content-Type"] == "text/event-stream"
        assert list(reader) == [EVENT] * 2


def test_the_answer_that_counts_may_come_later_and_be_cancelled_meanwhile(
    serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    go = threading.Event()
    server = serve_both([HINTS, go, head(CHUNKED), chunked(b"data: hello\n\n")])
    response = get(server)
    reading = Background(lambda: list(Reader(response))).wait_until_it_reads()
    go.set()
    assert reading.result() == [EVENT]

    server = serve_both([HINTS, HOLD])
    token, response = CancelToken(), get(server)
    reading = Background(lambda: list(Reader(response, cancel=token))).wait_until_it_reads()
    token.set()
    assert reading.result() == []
    assert server.client_left.acquire(timeout=TIMEOUT)


def test_where_none_comes_that_is_an_error(
    serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    with pytest.raises(ConnectionLost):
        Reader(get(serve_both([HINTS, Step.FIN])))
    with pytest.raises(IdleTimeout):
        Reader(get(serve_both([HINTS, HOLD])), idle_timeout=0.1)


def test_what_counts_may_be_a_refusal(
    serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    script = [HINTS, head("Content-Length: 7", "Retry-After: 5", status="429 Slow Down"), b"no luck"]
    with pytest.raises(StatusError, match="status 429") as caught:
        Reader(get(serve_both(script)))
    assert caught.value.body == b"no luck"
    assert caught.value.response.headers["Retry-After"] == "5"


@pytest.mark.parametrize("status", ["101 Switching Protocols"])
def test_after_101_comes_no_http(
    status: str, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    with pytest.raises(StatusError, match="status 101"):
        Reader(get(serve([head(status=status, content_type=None), head(CHUNKED), chunked(b"data: hello\n\n")])))


def test_the_connection_is_used_again_after_it(
    serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve_both([HINTS, head(CHUNKED), chunked(b"data: hello\n\n")])
    for _ in range(3):
        assert list(Reader(get(server))) == [EVENT]
    assert server.connections == 1


def test_a_response_of_urllib3_is_read_on_too(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    raw = get(serve([HINTS, head(CHUNKED), chunked(b"data: hello\n\n")])).raw
    reader = Reader(raw)
    assert reader.response.status == 200
    assert list(reader) == [EVENT]


def endless(status: str) -> Callable[[RecordedRequest], Steps]:
    def script(_: RecordedRequest) -> Iterator[bytes]:
        # In pieces of fifty: under gevent the server writes until all buffers are full before the client has its turn.
        while True:
            yield head(status=status, content_type=None) * 50

    return script


def test_an_endless_row_ends_for_a_reader(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    response = get(serve(endless("103 Early Hints")))
    with pytest.raises(ReadError, match="more than 100 answers of status 1xx"):
        Background(lambda: Reader(response)).result()


@pytest.mark.parametrize("status", ["100 Continue", "102 Processing", "103 Early Hints"])
def test_an_endless_row_ends_for_a_source_which_tries_again(status: str, serve: Callable[..., FakeSSEServer]) -> None:
    source = EventSource(serve(endless(status)).url, backoff=Backoff(initial=0, max_attempts=1))
    with pytest.raises(RetriesExhausted, match="more than 100 answers of status 1xx") as caught:
        Background(lambda: list(source)).result()
    assert isinstance(caught.value.last_error, ConnectFailed)


@pytest.mark.parametrize("own", [False, True])
def test_a_source_skips_them_and_keeps_its_session_s_ways(own: bool, serve: Callable[..., FakeSSEServer]) -> None:
    server = serve(
        lambda request: (
            [HINTS, *Answer().event("one", id=1).steps()]
            if not request.last_event_id
            else [HINTS, *Answer(204).steps()]
        )
    )
    with requests.Session() as session:
        session.trust_env = False
        options = {"session": session} if own else {}
        source = EventSource(server.url, backoff=Backoff(initial=0), **options)  # type: ignore[arg-type]
        assert [event.data for event in source] == ["one"]
    assert len(server.requests) == 2


@pytest.mark.parametrize("behind", ["stream", "refusal", "nothing", "101"])
def test_a_relay_never_passes_one_on(
    behind: str, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    script = {
        "stream": [HINTS, head(CHUNKED), chunk(b"data: hello\n\n"), LAST_CHUNK],
        "refusal": [HINTS, head("Content-Length: 2", status="403 No", content_type="text/plain"), b"no"],
        "nothing": [HINTS],
        "101": [head(status="101 Switching Protocols", content_type=None)],
    }[behind]
    response = get(serve([*script, HOLD] if behind == "101" else [*script, Step.FIN]))
    if behind == "nothing":
        with pytest.raises(ConnectionLost):
            Relay(response)
        return
    relay = Relay(response)
    if behind == "stream":
        assert relay.answer is None
        assert b"data: hello\n\n" in b"".join(EventStream(relay, keep_alive=None))
    else:
        assert relay.answer is not None
        assert relay.answer[0][:3] == {"refusal": "403", "101": "502"}[behind]
        relay.close()


def test_a_relay_of_a_response_that_can_not_be_read_on_answers_502(
    serve: Callable[..., FakeSSEServer],
    get: Callable[..., requests.Response],
    without_fast_path: Callable[[requests.Response], requests.Response],
) -> None:
    relay = Relay(without_fast_path(get(serve([HINTS, head(CHUNKED), HOLD]))))
    assert relay.answer is not None
    assert relay.answer[0] == "502 Bad Gateway"
    relay.close()
