"""What is sent: methods, bodies, headers, and the functions that give them."""

from __future__ import annotations

import contextvars
import io
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import requests

from ssesync import ConnectFailed, ConnectionLost, EventSource, StatusError
from ssesync.testing import Answer, FakeClock, FakeSSEServer, RecordedRequest, Steps

from ....cases import each_case
from .following import Log, data_of, source_of


class TestHeaders:
    def test_the_headers_of_a_request(self, server: FakeSSEServer) -> None:
        assert data_of(source_of(server)) == []
        headers = server.requests[0].headers
        assert headers["accept"] == "text/event-stream"
        assert headers["cache-control"] == "no-cache"
        assert headers["accept-encoding"] == "identity"

    def test_the_callers_win_whatever_their_case(self, server: FakeSSEServer) -> None:
        given = {"ACCEPT": "text/event-stream, text/plain", "cache-control": "no-store", "X-Mine": b"\xc3\xa4"}
        assert data_of(source_of(server, headers=given)) == []
        headers = server.requests[0].headers
        assert headers["accept"] == "text/event-stream, text/plain"
        assert headers["cache-control"] == "no-store"
        assert headers["x-mine"].encode("latin-1") == b"\xc3\xa4"
        assert list(given) == ["ACCEPT", "cache-control", "X-Mine"]

    def test_they_win_over_the_sessions(self, server: FakeSSEServer, session: requests.Session) -> None:
        session.headers.update({"X-Session": "s", "Accept": "*/*", "X-Both": "session"})
        assert data_of(source_of(server, session=session, headers={"X-Both": "source"})) == []
        headers = server.requests[0].headers
        assert (headers["x-session"], headers["x-both"]) == ("s", "source")
        assert headers["accept"] == "text/event-stream"

    def test_every_connection_sends_them(self, server: FakeSSEServer) -> None:
        server.answer(503)
        server.answer().event("one").drop()
        assert data_of(source_of(server, headers={"X-Mine": "1"}, params={"q": ["a b", "ü"]})) == ["one"]
        assert [request.headers["x-mine"] for request in server.requests] == ["1"] * 3
        assert {request.target for request in server.requests} == {"/?q=a+b&q=%C3%BC"}


class TestMethods:
    IDEMPOTENT = ("GET", "PUT", "DELETE", "OPTIONS", "TRACE", "get")
    OTHERS = ("POST", "PATCH", "REPORT", "QUERY-LIKE", "post")

    @pytest.mark.parametrize("method", IDEMPOTENT)
    def test_what_may_be_repeated_reconnects(self, method: str, server: FakeSSEServer) -> None:
        server.answer(503)
        server.answer().event("one", id=1).drop()
        body = None if method in ("GET", "get") else b"body"
        assert data_of(source_of(server, method=method, data=body)) == ["one"]
        received = [(request.method, request.body, request.last_event_id) for request in server.requests]
        assert received == [(method.upper(), body or b"", last_event_id) for last_event_id in ("", "", "1")]

    @pytest.mark.parametrize("method", OTHERS)
    def test_what_may_not_is_never_sent_twice_unasked(self, method: str, server: FakeSSEServer) -> None:
        server.answer(503)
        with pytest.raises(StatusError, match="503"):
            data_of(source_of(server, method=method, data="body"))
        server.answer().event("one").drop()
        source = source_of(server, method=method, data="body")
        assert source.read() is not None
        with pytest.raises(ConnectionLost):
            source.read()
        server.answer().event("two")
        assert data_of(source_of(server, method=method, data="body")) == ["two"]
        server.drop()
        with pytest.raises(ConnectFailed):
            data_of(source_of(server, method=method, data="body"))
        assert len(server.requests) == 4

    @pytest.mark.parametrize("method", OTHERS)
    def test_it_is_with_reconnect(self, method: str, server: FakeSSEServer) -> None:
        server.drop()
        server.answer().event("one", id=1).drop()
        assert data_of(source_of(server, method=method, json={"prompt": "ü"}, reconnect=True)) == ["one"]
        assert [request.json() for request in server.requests] == [{"prompt": "ü"}] * 3
        assert [request.last_event_id for request in server.requests] == ["", "", "1"]

    def test_a_one_shot_stream_ends_at_its_last_event_though_the_server_holds_it(self, server: FakeSSEServer) -> None:
        server.answer().event("a").event("b").event("[DONE]").event("never").stall()
        assert data_of(source_of(server, method="POST", json={}, until="[DONE]")) == ["a", "b"]
        server.wait_for_client_left()
        assert len(server.requests) == 1

    def test_until_ends_a_reconnecting_source_for_good(self, server: FakeSSEServer) -> None:
        server.answer().event("a", id=1).drop()
        server.answer().event("b", id=2).event("", type="end", id=3).stall()
        source = source_of(server, until=lambda event: event.type == "end")
        assert data_of(source) == ["a", "b"]
        assert source.state == "closed"
        assert source.last_event_id == "2"
        assert len(server.requests) == 2


ONCE: dict[str, Callable[[], dict[str, Any]]] = {
    "generator": lambda: {"data": (piece for piece in [b"a"])},
    "iterator": lambda: {"data": iter([b"a"])},
    "file": lambda: {"data": io.BytesIO(b"a")},
    "text file": lambda: {"data": io.StringIO("a")},
    "form with a file": lambda: {"data": {"a": io.BytesIO(b"a")}},
    "upload": lambda: {"files": {"a": io.BytesIO(b"a")}},
    "upload with its name": lambda: {"files": {"a": ("a.txt", io.BytesIO(b"a"), "text/plain")}},
    "list of uploads": lambda: {"files": [("a", ("a.txt", io.BytesIO(b"a")))]},
}


class TestBodies:
    @each_case("kind", ONCE)
    @each_case("why", [{"reconnect": True}, {"method": "PUT"}, {"headers": dict}], ids=["reconnect", "PUT", "function"])
    def test_one_that_can_be_read_once_is_refused_where_it_would_be_needed_again(
        self, kind: str, why: dict[str, Any]
    ) -> None:
        with pytest.raises(TypeError, match="read only once"):
            EventSource("http://127.0.0.1/", **{"method": "POST", **ONCE[kind](), **why})

    @pytest.mark.parametrize("kind", ONCE)
    def test_it_is_sent_where_it_is_not(self, kind: str, server: FakeSSEServer) -> None:
        server.answer().event("one")
        assert data_of(source_of(server, method="POST", **ONCE[kind]())) == ["one"]
        assert b"a" in server.requests[0].body

    def test_restart_does_not_send_what_is_left_of_it(self, server: FakeSSEServer) -> None:
        server.answer().event("one").stall()
        source = source_of(server, method="POST", data=iter([b"once"]))
        assert source.read() is not None
        source.restart()
        with pytest.raises(TypeError, match="read only once"):
            source.read()
        assert [request.body for request in server.requests] == [b"once"]

    def test_nor_does_should_retry(self, server: FakeSSEServer) -> None:
        server.answer(503)
        source = source_of(
            server, method="POST", data=io.BytesIO(b"once"), should_retry=lambda error: isinstance(error, StatusError)
        )
        with pytest.raises(TypeError, match="read only once"):
            source.read()
        assert [request.body for request in server.requests] == [b"once"]

    @pytest.mark.parametrize(
        "body",
        [
            {"data": b"bytes"},
            {"data": "text ü"},
            {"data": {"a": "1", "b": ["2", "3"]}},
            {"data": [("a", "1")]},
            {"json": [1, {"a": None}]},
            {"files": {"a": ("a.txt", b"content")}},
        ],
        ids=["bytes", "text", "form", "pairs", "JSON", "upload"],
    )
    def test_others_are_sent_anew_every_time(self, body: dict[str, Any], server: FakeSSEServer) -> None:
        server.answer(503)
        server.answer().event("one")
        assert data_of(source_of(server, method="PUT", **body)) == ["one"]
        sizes = {len(request.body) for request in server.requests}
        assert len(server.requests) == 3
        assert len(sizes) == 1
        assert sizes != {0}


class TestFunctions:
    """``url``, ``headers`` and ``params`` as functions, called for every connection."""

    def test_a_token_that_is_good_for_one_connection(self, serve: Callable[..., FakeSSEServer]) -> None:
        used: set[str] = set()
        numbers = itertools.count(1)

        def script(request: RecordedRequest) -> Steps:
            token = request.headers["authorization"]
            if token in used:
                return Answer(401)
            used.add(token)
            sent = int(request.last_event_id or 0)
            return Answer().event(str(sent + 1), id=sent + 1).drop() if sent < 4 else Answer(204)

        server = serve(script)
        source = source_of(server, headers=lambda: {"Authorization": f"Bearer {next(numbers)}"})
        assert data_of(source) == ["1", "2", "3", "4"]
        assert [request.headers["authorization"] for request in server.requests] == [f"Bearer {n}" for n in range(1, 6)]

    def test_all_three_are_called_once_for_every_connection(self, server: FakeSSEServer) -> None:
        server.answer(503)
        server.answer().event("one", id=1)
        counts = [itertools.count() for _ in range(3)]
        source = source_of(
            server,
            url=lambda: f"{server.url}{next(counts[0])}",
            headers=lambda: {"X-Count": str(next(counts[1]))},
            params=lambda: {"count": next(counts[2])},
        )
        assert data_of(source) == ["one"]
        received = [(request.target, request.headers["x-count"]) for request in server.requests]
        assert received == [("/0?count=0", "0"), ("/1?count=1", "1"), ("/2?count=2", "2")]
        assert server.requests[2].last_event_id == "1"

    def test_they_may_give_nothing(self, server: FakeSSEServer) -> None:
        assert data_of(source_of(server, headers=lambda: None, params=lambda: None)) == []

    def test_a_401_is_answered_by_one_more_attempt_at_once(self, server: FakeSSEServer) -> None:
        tokens = iter("abc")
        server.answer(401)
        server.answer().event("one")
        clock, log = FakeClock(), Log()
        source = source_of(server, clock=clock, headers=lambda: {"Authorization": next(tokens)}, **log.hooks)
        assert data_of(source) == ["one"]
        assert [request.headers["authorization"] for request in server.requests] == ["a", "b", "c"]
        assert log.entries[:2] == [("error", "StatusError"), ("open", 200)]
        assert len(clock.waits) == 1

    def test_the_next_401_is_final(self, server: FakeSSEServer) -> None:
        server.answer(401, times=5)
        with pytest.raises(StatusError, match="401"):
            data_of(source_of(server, params=dict))
        assert len(server.requests) == 2

    def test_without_a_function_the_first_one_is(self, server: FakeSSEServer) -> None:
        server.answer(401, times=5)
        with pytest.raises(StatusError, match="401"):
            data_of(source_of(server, headers={"Authorization": "a"}))
        assert len(server.requests) == 1

    def test_an_open_stream_or_another_failure_in_between_allows_another_refresh(self, server: FakeSSEServer) -> None:
        server.answer(401)
        server.answer().event("one")
        server.answer(401)
        server.answer(503)
        server.answer(401)
        server.answer().event("two").stall()
        server.answer(401)
        server.answer().event("three")
        source = source_of(server, headers=dict)
        came = []
        for event in source:
            came.append(event.data)
            if event.data == "two":
                source.restart()
        assert came == ["one", "two", "three"]

    def test_a_post_is_sent_again_after_a_401_for_it_was_not_heard(self, server: FakeSSEServer) -> None:
        server.answer(401)
        server.answer().event("one")
        assert data_of(source_of(server, method="POST", json={}, headers=dict)) == ["one"]
        assert len(server.requests) == 2

    def test_should_retry_decides_about_a_401_as_about_others(self, server: FakeSSEServer) -> None:
        server.answer(401)
        with pytest.raises(StatusError):
            data_of(source_of(server, headers=dict, should_retry=lambda _: False))
        assert len(server.requests) == 1

    @pytest.mark.parametrize(
        "failure",
        [
            requests.ConnectionError("no route"),
            requests.Timeout("too slow"),
            ConnectionRefusedError("nobody there"),
            TimeoutError("too slow"),
        ],
        ids=lambda failure: type(failure).__name__,
    )
    def test_where_one_fails_by_the_networks_fault_it_is_called_again(
        self, failure: Exception, server: FakeSSEServer
    ) -> None:
        server.answer().event("one")
        answers = iter([failure, failure, {}, {}])

        def headers() -> Any:
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

        log = Log()
        assert data_of(source_of(server, headers=headers, **log.hooks)) == ["one"]
        assert log.names == ["ConnectFailed", "ConnectFailed", "StreamEnded"]
        assert log.errors[0].__cause__ is failure

    @pytest.mark.parametrize(("status", "again"), [(503, True), (429, True), (403, False), (400, False)])
    def test_the_status_of_a_token_server_counts(
        self, status: int, again: bool, server: FakeSSEServer, session: requests.Session
    ) -> None:
        server.answer(status, when=lambda request: request.path == "/token")
        server.answer(when=lambda request: request.path == "/token", times=None, body="secret")
        server.answer().event("one")

        def headers() -> dict[str, str]:
            response = session.get(f"{server.url}token")
            response.raise_for_status()
            return {"Authorization": response.text}

        if again:
            assert data_of(source_of(server, headers=headers)) == ["one"]
        else:
            with pytest.raises(requests.HTTPError, match=str(status)):
                data_of(source_of(server, headers=headers))

    @pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt])
    def test_an_exit_in_a_function_ends_the_consumer(self, end: type[BaseException], server: FakeSSEServer) -> None:
        def headers() -> dict[str, str]:
            raise end

        source = source_of(server, headers=headers, should_retry=lambda _: True)
        with pytest.raises(end):
            source.read()
        assert source.state == "closed"

    def test_they_see_the_consumers_context_variables(self, server: FakeSSEServer) -> None:
        tenant = contextvars.ContextVar("tenant", default="nobody")
        tenant.set("acme")
        assert data_of(source_of(server, headers=lambda: {"X-Tenant": tenant.get()})) == []
        assert server.requests[0].headers["x-tenant"] == "acme"
