"""Sessions: the caller's, which stay so with all that is handed to them, our own, and those of other kinds."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import BaseAdapter
from requests.auth import AuthBase
from urllib3 import HTTPResponse

from ssesync import EventSource, StatusError
from ssesync.testing import Answer, FakeClock, FakeSSEServer

from ....cases import each_case
from .following import data_of, in_turn, source_of


class Locked(AuthBase):
    """An auth object as those of token libraries are: it holds a lock, and can be neither copied nor pickled."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seen: list[int] = []

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        with self.lock:
            self.seen.append(id(self))
            request.headers["Authorization"] = f"Locked {len(self.seen)}"
        return request


class TestSession:
    def test_the_callers_is_neither_closed_nor_altered(self, server: FakeSSEServer, session: requests.Session) -> None:
        closed = []
        session.close = lambda: closed.append(True)  # type: ignore[method-assign]
        before = {name: (id(value), repr(value)) for name, value in vars(session).items() if name != "close"}
        server.answer().event("one", id=1)
        server.answer(503)
        server.answer(404)
        source = source_of(server, session=session, headers={"X-Mine": "1"}, verify=False, params={"a": "1"})
        with pytest.raises(StatusError):
            data_of(source)
        source.close()
        with source_of(server, session=session) as source:
            source.read()
        assert closed == []
        assert {name: (id(value), repr(value)) for name, value in vars(session).items() if name != "close"} == before
        del session.close
        assert session.get(server.url).status_code == 204

    def test_our_own_is_closed_with_the_source(self, server: FakeSSEServer) -> None:
        server.answer(503, times=2)
        source: EventSource = source_of(server, on_error=lambda _: source.close())
        assert source.read() is None
        server.wait_for_client_left()
        server.answer().event("one").stall()
        for event in source_of(server):
            assert event.data == "one"
            break
        server.wait_for_client_left()

    def test_one_connection_serves_many_answers(self, server: FakeSSEServer) -> None:
        server.answer(times=20).event("x")
        assert len(data_of(source_of(server))) == 20
        assert server.connections == 1

    def test_an_auth_object_that_holds_a_lock_is_passed_by_reference(self, server: FakeSSEServer) -> None:
        server.answer().event("one")
        auth = Locked()
        assert data_of(source_of(server, auth=auth)) == ["one"]
        assert auth.seen == [id(auth)] * 2
        assert [request.headers["authorization"] for request in server.requests] == ["Locked 1", "Locked 2"]

    def test_options_reach_the_session_as_they_were_given(self, server: FakeSSEServer) -> None:
        calls: list[dict[str, Any]] = []

        class Spy(requests.Session):
            def request(self, *args: Any, **options: Any) -> requests.Response:
                calls.append(options)
                return super().request(*args, **options)

        given: dict[str, Any] = {
            "auth": Locked(),
            "verify": False,
            "cert": (__file__, __file__),
            "proxies": {"ftp": "http://127.0.0.1:1"},
            "cookies": {"a": "b"},
            "hooks": {"response": []},
            "json": {"key": [1]},
        }
        with Spy() as session:
            assert data_of(source_of(server, session=session, method="PUT", **given)) == []
        for name, value in given.items():
            assert calls[0][name] is value
        assert calls[0]["timeout"] == (10.0, 45.0)
        assert calls[0]["stream"] is True

    def test_cookies_are_kept_over_reconnections(self, server: FakeSSEServer) -> None:
        server.answer(503, headers={"Set-Cookie": "route=a1; Path=/"})
        server.answer(headers=[("Set-Cookie", "route=b2; Path=/"), ("Set-Cookie", "x=1; Path=/")]).event("one")
        assert data_of(source_of(server, cookies={"mine": "m"})) == ["one"]
        cookies = [sorted(request.headers["cookie"].split("; ")) for request in server.requests]
        assert cookies == [["mine=m"], ["mine=m", "route=a1"], ["mine=m", "route=b2", "x=1"]]

    def test_they_go_into_the_callers_session(self, server: FakeSSEServer, session: requests.Session) -> None:
        server.answer(headers={"Set-Cookie": "route=a1; Path=/"}).event("one")
        assert data_of(source_of(server, session=session)) == ["one"]
        assert session.cookies.get_dict() == {"route": "a1"}

    def test_a_password_of_the_users_netrc_is_sent(
        self, server: FakeSSEServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login me password secret\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        assert data_of(source_of(server)) == []
        sent = server.requests[0].headers["authorization"]
        assert base64.b64decode(sent.removeprefix("Basic ")) == b"me:secret"

    @each_case("own", [True, False], ids=["own session", "caller's session"])
    @each_case("how", ["environment", "option"])
    def test_a_proxy_is_used(
        self, how: str, own: bool, serve: Callable[..., FakeSSEServer], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        proxy = serve(in_turn(Answer().event("one", id=1).drop(), Answer().event("two")))
        options: dict[str, Any] = {} if own else {"session": requests.Session()}
        if how == "environment":
            monkeypatch.setenv("http_proxy", proxy.url)
        else:
            options["proxies"] = {"http": proxy.url}
        source = EventSource("http://stream.invalid/feed", clock=FakeClock(), **options)
        assert data_of(source) == ["one", "two"]
        assert {request.target for request in proxy.requests} == {"http://stream.invalid/feed"}
        assert proxy.requests[1].last_event_id == "1"
        if not own:
            options["session"].close()

    @each_case(
        "options, message",
        [
            ({"timeout": 5}, "use connect_timeout and idle_timeout"),
            ({"stream": True}, "it is always on"),
            ({"reconect": True}, "did you mean 'reconnect'?"),
            ({"reconect": True, "session": requests.Session()}, "did you mean 'reconnect'?"),
        ],
    )
    def test_an_option_that_does_not_exist_is_refused_at_once(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(TypeError, match=message):
            EventSource("http://127.0.0.1/", **options)


class InMemory(BaseAdapter):
    """Answers without any socket, as libraries that mock requests do."""

    def __init__(self, *bodies: bytes) -> None:
        super().__init__()
        self.bodies: Iterator[bytes] = iter(bodies)
        self.adapted: list[requests.PreparedRequest] = []

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        self.adapted.append(request)
        body = next(self.bodies, None)
        response = requests.Response()
        response.status_code = 204 if body is None else 200
        response.headers["Content-Type"] = "text/event-stream"
        response.request, response.url = request, request.url or ""
        response.raw = HTTPResponse(io.BytesIO(body or b""), preload_content=False)
        return response

    def close(self) -> None:
        pass


def test_a_session_whose_answers_have_no_socket_is_followed_all_the_same(session: requests.Session) -> None:
    adapter = InMemory(b"id: 1\ndata: one\n\n", b"data: two\n\n")
    session.mount("mock://", adapter)
    source = EventSource("mock://stream", session=session, clock=FakeClock())
    assert data_of(source) == ["one", "two"]
    assert [request.headers.get("Last-Event-ID") for request in adapter.adapted] == [None, "1", "1"]


def test_closing_one_without_a_socket_ends_it(session: requests.Session) -> None:
    session.mount("mock://", InMemory(b"data: one\n\ndata: two\n\n"))
    source = EventSource("mock://stream", session=session, clock=FakeClock())
    assert source.read() is not None
    source.close()
    assert source.read() is None
