"""How a source reads a connection: what ends it, what its events carry, what is refused, hooks of the session."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests

from ssesync import Backoff, EventSource, IdleTimeout, RetriesExhausted, SettingsError, StatusError
from ssesync.testing import CHUNKED, Answer, FakeClock, FakeSSEServer, Pause, RecordedRequest, chunk, head

from .following import TIMEOUT, Following, Log, data_of, in_turn, source_of


class TestUntilInclusive:
    def test_the_last_event_is_given_its_id_counts_and_there_is_no_reconnection(self, server: FakeSSEServer) -> None:
        server.answer().event("one", id=1).event("[DONE]", id=2).event("three", id=3).stall()
        source = source_of(server, until="[DONE]", until_inclusive=True)
        assert data_of(source) == ["one", "[DONE]"]
        assert source.last_event_id == "2"
        assert len(server.requests) == 1
        server.wait_for_client_left()

    def test_whoever_reads_no_further_leaves_no_connection(self, server: FakeSSEServer) -> None:
        server.answer().event("[DONE]", id=2).stall()
        source = source_of(server, until="[DONE]", until_inclusive=True)
        assert source.read().data == "[DONE]"  # type: ignore[union-attr]
        server.wait_for_client_left()
        assert source.last_event_id == "2"
        assert source.read() is None

    def test_it_needs_an_event_to_be_about(self) -> None:
        with pytest.raises(SettingsError, match="need until="):
            EventSource("http://127.0.0.1/", until_inclusive=True)


class TestEventTimeout:
    @pytest.mark.slow
    def test_a_connection_that_brings_comments_alone_is_dead(self, serve: Callable[..., FakeSSEServer]) -> None:
        def script(_: RecordedRequest) -> Any:
            yield head(CHUNKED) + chunk(b"id: 7\ndata: one\n\n")
            while True:
                yield chunk(b":keep-alive\n")
                yield Pause(0.02)

        server = serve(script)
        source = source_of(server, event_timeout=0.3, idle_timeout=TIMEOUT, backoff=Backoff(max_attempts=2))
        following = Following(source)
        with pytest.raises(RetriesExhausted) as caught:
            following.result()
        assert isinstance(caught.value.last_error, IdleTimeout)
        assert [request.last_event_id for request in server.requests] == ["", "7", "7"]

    def test_what_is_no_time_is_refused(self) -> None:
        with pytest.raises(SettingsError, match="event_timeout="):
            EventSource("http://127.0.0.1/", event_timeout=0)


@pytest.mark.parametrize("last_event_id", [None, ""])
def test_an_id_that_is_none_is_not_sent(last_event_id: str | None, server: FakeSSEServer) -> None:
    server.answer().event("one")
    source = source_of(server, last_event_id=last_event_id)
    assert source.last_event_id == ""
    assert data_of(source) == ["one"]
    assert "last-event-id" not in server.requests[0].headers


def test_an_id_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="a last event ID is text or None, got int 5"):
        EventSource("http://127.0.0.1/", last_event_id=5)  # type: ignore[arg-type]


def test_the_reconnection_time_is_in_step_with_what_was_given(server: FakeSSEServer) -> None:
    server.answer().raw("retry: 10\ndata: a\n\ndata: b\n\nretry: 20\n\ndata: c\n\nretry: 30\ndata: d\n\n")
    source = source_of(server)
    assert [(event.data, event.retry, source.retry) for event in source] == [
        ("a", 10, 10),
        ("b", None, 10),
        ("c", None, 20),
        ("d", 30, 30),
    ]


class TestClosed:
    """Iterating a source that is closed gave nothing, without a word."""

    def test_it_is_refused_after_close(self, server: FakeSSEServer) -> None:
        with source_of(server) as source:
            pass
        for again in (source.__iter__, source.events_and_comments, lambda: source.for_each(print)):
            with pytest.raises(RuntimeError, match=r"this EventSource is closed.*make a new one"):
                again()

    def test_it_is_refused_after_the_end(self, server: FakeSSEServer) -> None:
        server.answer().event("one")
        source = source_of(server)
        assert data_of(source) == ["one"]
        with pytest.raises(RuntimeError, match="make a new one"):
            data_of(source)
        assert source.read() is None

    @pytest.mark.parametrize("by", ["cancel", "signal"])
    def test_a_cancel_that_comes_before_the_iteration_ends_it_quietly(self, by: str, server: FakeSSEServer) -> None:
        stop = threading.Event()
        source = source_of(server, cancel=stop)
        if by == "cancel":
            source.cancel()
        else:
            stop.set()
            deadline = time.monotonic() + 90
            while source.state != "closed" and time.monotonic() < deadline:
                time.sleep(0.01)  # an event can't call back: a thread polls it
        assert data_of(source) == []
        assert server.requests == []


@pytest.fixture
def raising(session: requests.Session) -> requests.Session:
    """A session whose hook raises every status of an error, as many do."""
    session.trust_env = False
    session.hooks["response"].append(lambda response, *args, **options: response.raise_for_status())
    return session


class TestARaisingHook:
    """A session's hook that calls raise_for_status() changes nothing."""

    def test_a_401_is_answered_with_fresh_values(self, server: FakeSSEServer, raising: requests.Session) -> None:
        tokens = iter(["old", "new"])
        server.answer(401)
        server.answer().event("one")
        source = source_of(server, session=raising, headers=lambda: {"Authorization": next(tokens, "newer")})
        assert source.read().data == "one"  # type: ignore[union-attr]
        assert [request.headers["authorization"] for request in server.requests] == ["old", "new"]

    def test_retry_after_is_obeyed(
        self, server: FakeSSEServer, raising: requests.Session, smallest_waits: None
    ) -> None:
        server.answer(503, retry_after=7)
        server.answer().event("one")
        clock, log = FakeClock(), Log()
        assert data_of(source_of(server, session=raising, clock=clock, **log.hooks)) == ["one"]
        assert clock.waits == [7.0, 0.0]
        assert log.names == ["StatusError", "StreamEnded"]

    def test_a_final_status_is_a_status_error_with_its_body(
        self, server: FakeSSEServer, raising: requests.Session
    ) -> None:
        server.answer(403, body="not you")
        with pytest.raises(StatusError) as caught:
            data_of(source_of(server, session=raising))
        assert (caught.value.response.status_code, caught.value.body) == (403, b"not you")

    def test_204_is_the_end(self, server: FakeSSEServer, raising: requests.Session) -> None:
        assert data_of(source_of(server, session=raising)) == []
        assert len(server.requests) == 1

    def test_it_is_the_same_after_a_redirect(self, server: FakeSSEServer, raising: requests.Session) -> None:
        server.answer(307, location="/elsewhere")
        server.answer(403, body="not you")
        with pytest.raises(StatusError, match="403"):
            data_of(source_of(server, session=raising))

    def test_what_another_request_of_the_session_raises_is_raised(
        self, serve: Callable[..., FakeSSEServer], raising: requests.Session
    ) -> None:
        tokens, server = serve(in_turn(Answer(403, body="no token"))), serve()

        class Auth(requests.auth.AuthBase):
            def __call__(self, request: Any) -> Any:
                try:
                    raising.get(tokens.url)
                except requests.HTTPError as error:
                    error.response.close()  # the hook raised before it was read
                    raise
                return request

        with pytest.raises(requests.HTTPError, match="403"):
            data_of(source_of(server, session=raising, auth=Auth()))
        assert server.requests == []
