"""Which answers open a stream, which end it, which are asked for again and which are errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ssesync import (
    Backoff,
    ConnectFailed,
    ConnectionLost,
    ContentTypeError,
    EventSource,
    EventTooLarge,
    IdleTimeout,
    ReadError,
    ResponseError,
    RetriesExhausted,
    StatusError,
    StreamEnded,
)
from ssesync.testing import HOLD, Answer, FakeClock, FakeSSEServer, head

from ....cases import each_case
from .following import Following, Log, data_of, in_turn, source_of, take, wait_for

TRANSIENT = [408, 425, 429, 500, 501, 502, 503, 504, 505, 507, 508, 511, 520, 599]
FINAL = [
    *(201, 202, 206, 299),
    *(300, 304, 305, 306),
    *(400, 401, 402, 403, 404, 405, 406, 407, 409, 410, 413, 415, 418, 421, 422, 426, 428, 431, 451, 499, 600),
]


@pytest.mark.parametrize("status", TRANSIENT)
def test_a_transient_status_is_retried(status: int, server: FakeSSEServer) -> None:
    server.answer(status, body="sorry", times=2)
    server.answer().event("one", id=1)
    log = Log()
    source = source_of(server, **log.hooks)
    assert data_of(source) == ["one"]
    assert len(server.requests) == 4
    assert log.names == ["StatusError", "StatusError", "StreamEnded"]
    assert isinstance(log.errors[0], StatusError)
    assert log.errors[0].response.status_code == status
    assert source.response is not None
    assert source.response.status_code == 204


@pytest.mark.parametrize("status", FINAL)
def test_a_status_that_is_final_is_raised_with_the_answer(status: int, server: FakeSSEServer) -> None:
    server.answer(status, body="no such stream", headers={"X-Reason": "old"})
    log = Log()
    source = source_of(server, **log.hooks)
    with pytest.raises(StatusError, match=rf"status {status}\b") as raised:
        source.read()
    assert raised.value.response.status_code == status
    assert raised.value.response.headers["X-Reason"] == "old"
    assert raised.value.body == (b"" if status == 304 else b"no such stream")
    assert log.entries == [("error", "StatusError")]
    assert log.errors == [raised.value]
    assert source.response is raised.value.response
    assert source.state == "closed"
    assert source.read() is None
    assert len(server.requests) == 1


def test_204_ends_quietly(server: FakeSSEServer) -> None:
    log = Log()
    source = source_of(server, **log.hooks)
    assert source.read() is None
    assert log.entries == []
    assert source.state == "closed"
    assert source.response is not None
    assert source.response.status_code == 204
    assert len(server.requests) == 1


def test_204_ends_quietly_after_failures(server: FakeSSEServer) -> None:
    server.answer(503)
    server.answer().event("one")
    assert data_of(source_of(server)) == ["one"]
    assert len(server.requests) == 3


TYPES = {
    "text/event-stream": True,
    "text/event-stream; charset=utf-8": True,
    "text/event-stream;charset=ISO-8859-1;x=y": True,
    "TEXT/Event-Stream ; charset=latin-1": True,
    "text/event-streams": False,
    "text/plain": False,
    "text/html; a=text/event-stream": False,
    "application/json": False,
    "": False,
}


@pytest.mark.parametrize("content_type", [kind for kind, good in TYPES.items() if good])
def test_the_essence_of_the_media_type_decides(content_type: str, server: FakeSSEServer) -> None:
    server.answer(content_type=content_type).event("zweiter Gang: Käse")
    assert data_of(source_of(server)) == ["zweiter Gang: Käse"]


@pytest.mark.parametrize("content_type", [kind for kind, good in TYPES.items() if not good])
def test_another_media_type_is_final(content_type: str, server: FakeSSEServer) -> None:
    server.answer(content_type=content_type, body="<html>log in</html>")
    log = Log()
    with pytest.raises(ContentTypeError) as raised:
        data_of(source_of(server, **log.hooks))
    assert raised.value.body == b"<html>log in</html>"
    assert log.errors == [raised.value]
    assert len(server.requests) == 1


def test_an_event_that_is_too_large_is_final_after_those_before_it(server: FakeSSEServer) -> None:
    server.answer().event("small", id=1).event("x" * 200, id=2)
    log = Log()
    source = source_of(server, max_event_size=100, **log.hooks)
    assert source.read().data == "small"  # type: ignore[union-attr]
    with pytest.raises(EventTooLarge) as raised:
        source.read()
    assert log.errors == [raised.value]
    assert source.last_event_id == "1"


def test_a_body_that_can_not_be_decompressed_is_followed_by_a_reconnection(server: FakeSSEServer) -> None:
    server.answer(headers={"Content-Encoding": "gzip"}).raw(b"this is no gzip")
    server.answer().event("one")
    log = Log()
    assert data_of(source_of(server, **log.hooks)) == ["one"]
    assert log.names == ["ReadError", "StreamEnded"]


def test_a_refused_connection_is_retried() -> None:
    with FakeSSEServer() as server:
        url = server.url
    servers: list[FakeSSEServer] = []

    def start(error: Exception, delay: float, attempt: int) -> None:
        if attempt == 3:
            servers.append(FakeSSEServer(in_turn(Answer().event("one")), port=server.port).start())

    log = Log()
    source = EventSource(url, clock=FakeClock(), on_error=log.hooks["on_error"], on_retry=start)
    try:
        assert data_of(source) == ["one"]
    finally:
        for each in servers:
            each.close()
    assert log.names == ["ConnectFailed"] * 3 + ["StreamEnded"]
    assert isinstance(log.errors[0], ConnectionError)
    assert log.errors[0].__cause__ is not None


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before the headers", "after them", "after an event", "in the middle of an event"])
def test_silence_for_the_idle_timeout_is_retried(when: str, serve: Callable[..., FakeSSEServer]) -> None:
    silent = {
        "before the headers": [HOLD],
        "after them": Answer().stall(),
        "after an event": Answer().event("one", id=1).stall(),
        "in the middle of an event": Answer().event("one", id=1).raw("data: never").stall(),
    }[when]
    server = serve(in_turn(silent, Answer().event("two", id=2)))
    log = Log()
    came = data_of(source_of(server, idle_timeout=1, **log.hooks))
    assert came == (["two"] if "headers" in when or "them" in when else ["one", "two"])
    assert log.names == ["ConnectFailed" if "headers" in when else "IdleTimeout", "StreamEnded"]
    server.wait_for_client_left()


@pytest.mark.slow
def test_comments_alone_keep_a_stream_from_being_idle(server: FakeSSEServer) -> None:
    answer = server.answer()
    for _ in range(8):
        answer.keep_alive().pause(0.2)
    answer.event("one")
    log = Log()
    assert data_of(source_of(server, idle_timeout=1.5, **log.hooks)) == ["one"]
    assert log.names == ["StreamEnded"]


def test_a_certificate_of_no_known_authority_is_final(serve: Callable[..., FakeSSEServer], tls: Any) -> None:
    server = serve(in_turn(Answer().event("one")), tls=tls[0])
    log = Log()
    with pytest.raises(ConnectFailed, match="CERTIFICATE_VERIFY_FAILED"):
        data_of(source_of(server, **log.hooks))
    assert log.names == ["ConnectFailed"]
    assert data_of(source_of(server, verify=tls[1])) == ["one"]


def test_an_aborted_tls_handshake_is_retried(server: FakeSSEServer) -> None:
    # As when a proxy is up before what lies behind it. This server speaks no TLS.
    log = Log()
    url = f"https://127.0.0.1:{server.port}/"
    source = EventSource(url, clock=FakeClock(), on_error=log.hooks["on_error"], on_retry=lambda *_: source.close())
    following = Following(source)

    def cut() -> list[Exception]:
        server.drop_connections()
        return log.errors

    wait_for(cut)
    assert following.result() == []
    assert log.names == ["ConnectFailed"]


URLS = ["", "no-scheme", "ftp://127.0.0.1/", "http://", "http://[::1", "http://127.0.0.1:99999999/"]


@each_case("url", URLS)
def test_an_invalid_url_raises_the_error_of_requests(url: str) -> None:
    log = Log()
    with pytest.raises(ValueError) as raised:
        EventSource(url, clock=FakeClock(), **log.hooks).read()
    assert log.errors == [raised.value]
    assert not log.waits


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"headers": {"X-A": "a\nb"}}, ValueError),
        ({"headers": {"X-A": 1}}, ValueError),
        ({"method": "POST", "json": float("nan"), "reconnect": True}, OSError),
        ({"method": "POST", "json": object(), "reconnect": True}, TypeError),
        ({"verify": "/no/such/file"}, OSError),
        ({"headers": lambda: 1 // 0}, ZeroDivisionError),
        ({"params": lambda: dict[str, str]()["token"]}, KeyError),
    ],
    ids=[
        "header with line end",
        "header of another type",
        "NaN",
        "no JSON",
        "no CA file",
        "function",
        "other function",
    ],
)
def test_a_request_that_can_not_be_made_is_raised_at_once(
    options: dict[str, Any], error: type[Exception], serve: Callable[..., FakeSSEServer], tls: Any
) -> None:
    server = serve(tls=tls[0] if "verify" in options else None)
    log = Log()
    with pytest.raises(error) as raised:
        source_of(server, **options, **log.hooks).read()
    assert not isinstance(raised.value, ReadError)
    assert log.errors == [raised.value]
    assert not server.requests


class TestShouldRetry:
    """``should_retry`` overrules the rules both ways."""

    @pytest.mark.parametrize("status", [404, 401, 403, 410, 302, 600])
    def test_it_retries_a_final_status(self, status: int, server: FakeSSEServer) -> None:
        server.answer(status, times=3)
        server.answer().event("one")
        judged: list[Exception] = []
        source = source_of(server, should_retry=lambda error: judged.append(error) or True)  # type: ignore[func-returns-value]
        assert data_of(source) == ["one"]
        assert [type(error) for error in judged] == [StatusError] * 3 + [StreamEnded]

    def test_it_retries_another_media_type_and_obeys_retry_after(
        self, server: FakeSSEServer, smallest_waits: None
    ) -> None:
        server.answer(content_type="text/html", headers={"Retry-After": "7"}, body="starting")
        server.answer().event("one")
        clock = FakeClock()
        assert data_of(source_of(server, clock=clock, should_retry=lambda _: True)) == ["one"]
        assert clock.waits == [7.0, 0.0]

    @pytest.mark.parametrize("status", [503, 429, 408, 500])
    def test_it_has_a_passing_status_raised(self, status: int, server: FakeSSEServer) -> None:
        server.answer(status)
        with pytest.raises(StatusError):
            data_of(source_of(server, should_retry=lambda _: False))
        assert len(server.requests) == 1

    def test_it_has_a_lost_connection_raised(self, server: FakeSSEServer) -> None:
        server.answer().event("one").drop()
        source = source_of(server, should_retry=lambda error: not isinstance(error, ConnectionLost))
        assert source.read() is not None
        with pytest.raises(ConnectionLost):
            source.read()

    def test_it_has_the_end_of_the_stream_end_quietly(self, server: FakeSSEServer) -> None:
        server.answer().event("one")
        assert data_of(source_of(server, should_retry=lambda _: False)) == ["one"]
        assert len(server.requests) == 1

    def test_none_leaves_it_to_the_rules(self, server: FakeSSEServer) -> None:
        server.answer(503)
        server.answer().event("one")
        server.answer(404)
        seen: list[str | None] = []
        with pytest.raises(StatusError):
            take(source_of(server, should_retry=lambda _: None), seen)
        assert seen == ["one"]

    def test_it_has_a_function_that_fails_called_again(self, server: FakeSSEServer) -> None:
        server.answer().event("one")
        answers = iter([LookupError("the vault is sealed"), LookupError("still"), {"Authorization": "a"}, {}])

        def headers() -> Any:
            answer = next(answers)
            if isinstance(answer, LookupError):
                raise answer
            return answer

        log = Log()
        source = source_of(server, headers=headers, should_retry=lambda _: True, **log.hooks)
        assert data_of(source) == ["one"]
        assert log.names == ["LookupError", "LookupError", "StreamEnded"]

    def test_what_it_raises_goes_to_the_consumer(self, server: FakeSSEServer) -> None:
        server.answer(503)
        with pytest.raises(ZeroDivisionError):
            data_of(source_of(server, should_retry=lambda _: 1 / 0))

    def test_the_limits_hold_nevertheless(self, server: FakeSSEServer) -> None:
        server.answer(404, times=None)
        with pytest.raises(RetriesExhausted):
            data_of(source_of(server, should_retry=lambda _: True, backoff=Backoff(max_attempts=4)))
        assert len(server.requests) == 5


class TestReconnectOff:
    """``reconnect=False``: every failure is raised as it is, the end of the stream is the end."""

    def test_the_end_of_the_stream_is_the_end(self, server: FakeSSEServer) -> None:
        server.answer().event("one")
        assert data_of(source_of(server, reconnect=False)) == ["one"]
        assert len(server.requests) == 1

    @pytest.mark.parametrize(
        ("answer", "error"),
        [
            (Answer(503), StatusError),
            (Answer(404), StatusError),
            (Answer(content_type="text/plain"), ContentTypeError),
            (Answer().event("one").drop(), ConnectionLost),
            (Answer().event("one").drop(rst=True), ConnectionError),
            pytest.param(Answer().stall(), IdleTimeout, marks=pytest.mark.slow),
            pytest.param([HOLD], ConnectFailed, marks=pytest.mark.slow),
            pytest.param([head()[:20]], ConnectFailed, marks=pytest.mark.slow),
        ],
        ids=["503", "404", "type", "FIN", "RST", "idle", "no answer", "half an answer"],
    )
    def test_a_failure_is_raised(
        self, answer: Any, error: type[Exception], serve: Callable[..., FakeSSEServer]
    ) -> None:
        server = serve(in_turn(answer))
        with pytest.raises(error) as raised:
            data_of(source_of(server, reconnect=False, idle_timeout=1))
        assert isinstance(raised.value, ReadError)
        assert len(server.requests) == 1

    def test_should_retry_may_ask_for_it_all_the_same(self, server: FakeSSEServer) -> None:
        server.answer(503)
        server.answer().event("one")
        source = source_of(server, reconnect=False, should_retry=lambda error: isinstance(error, ResponseError))
        assert data_of(source) == ["one"]
        assert len(server.requests) == 2
