"""relay_request: what of a client's request goes to the upstream, and what never does."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from django.test import RequestFactory
from flask import Flask
from flask import request as flask_request

from ssesync import Relay, get_last_event_id, relay_request
from ssesync.testing import FakeSSEServer, RecordedRequest, head

Upstream = Callable[..., FakeSSEServer]
Send = Callable[..., RecordedRequest]
ANSWER = head("Content-Length: 0")


@pytest.fixture(params=["environ", "flask", "django"])
def send(request: pytest.FixtureRequest, upstream: Upstream, session: requests.Session) -> Send:
    """Passes a request on by way of each kind of request object; what the upstream got."""
    server = upstream([ANSWER])

    def send(
        method: str = "GET",
        query: str = "",
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        path: str = "",
        **options: Any,
    ) -> RecordedRequest:
        environ = RequestFactory().generic(method, "/asked", body, "application/json", QUERY_STRING=query).environ
        environ |= {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in (headers or {}).items()}
        environ["wsgi.input"] = io.BytesIO(body)
        environ["wsgi.input_terminated"] = True
        # So that an option may have the name of what was asked.
        options = {name.removeprefix("our_"): value for name, value in options.items()} | {"session": session}
        target = server.url + path
        if request.param == "environ":
            response = relay_request(environ, target, **options)
        elif request.param == "django":
            from django.core.handlers.wsgi import WSGIRequest

            response = relay_request(WSGIRequest(environ), target, **options)
        else:
            with Flask(__name__).request_context(environ):
                response = relay_request(flask_request, target, **options)
        response.close()
        return server.requests[-1]

    return send


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_the_method_goes_along(method: str, send: Send) -> None:
    assert send(method).method == method


@pytest.mark.parametrize("body", [b'{"a": 1}', b"\x00\xff" * 50_000])
def test_the_body_and_its_type_go_along(body: bytes, send: Send) -> None:
    got = send("POST", body=body)
    assert got.body == body
    assert got.headers["content-type"] == "application/json"


@pytest.mark.parametrize("query", ["a=1&b=%2F%20+x&a=2", "q=%C3%A9", "flag", "a=b=c&;,:@!$'()*", ""])
def test_the_query_goes_along_as_it_is(query: str, send: Send) -> None:
    assert send(query=query).target == ("/?" + query if query else "/")


def test_bytes_above_ascii_in_the_query_keep_their_meaning(send: Send) -> None:
    assert send(query="q=é".encode().decode("latin-1")).target == "/?q=%C3%A9"


def test_the_query_is_added_to_the_upstream_s_own(send: Send) -> None:
    assert send(query="a=1", path="v1?key=x").target == "/v1?key=x&a=1"


@pytest.mark.parametrize("last", ["7", "größer-€", "a b"])
def test_the_last_event_id_goes_along(last: str, send: Send) -> None:
    got = send(headers={"Last-Event-ID": last.encode().decode("latin-1")})
    assert get_last_event_id({"Last-Event-ID": got.headers["last-event-id"]}) == last


@pytest.mark.parametrize(("query", "last"), [("lastEventId=7", "7"), ("lastEventId=%207", "7")])
def test_the_last_event_id_of_a_polyfill_goes_along_as_a_header(query: str, last: str, send: Send) -> None:
    assert send(query=query).headers["last-event-id"] == last


def test_without_a_last_event_id_there_is_no_such_header(send: Send) -> None:
    assert "last-event-id" not in send(query="lastEventId=%20").headers


def test_an_event_stream_is_requested_uncompressed(send: Send) -> None:
    got = send(headers={"Accept": "*/*", "Accept-Encoding": "gzip, br", "Cache-Control": "max-age=5"})
    assert got.headers["accept"] == "text/event-stream"
    assert got.headers["accept-encoding"] == "identity"
    assert got.headers["cache-control"] == "no-cache"


def test_only_headers_that_are_allowed_go_along(send: Send) -> None:
    sent = {
        "Accept-Language": "de",
        "User-Agent": "me/1",
        "Authorization": "Bearer s",
        "X-Trace": "1",
        "Cookie": "a=b",
    }
    got = send(headers=sent).headers
    assert (got["accept-language"], got["user-agent"]) == ("de", "me/1")
    assert not {"authorization", "x-trace", "cookie"} & got.keys()
    got = send(headers=sent, forward=("authorization", "X-Trace")).headers
    assert (got["authorization"], got["x-trace"]) == ("Bearer s", "1")
    assert "accept-language" not in got


def test_cookies_and_hop_by_hop_headers_never_go_along(send: Send) -> None:
    never = {
        "Connection": "close, X-Mine",
        "Cookie": "a=b",
        "Expect": "100-continue",
        "Host": "elsewhere.example",
        "Keep-Alive": "timeout=5",
        "Proxy-Authorization": "Basic x",
        "Proxy-Connection": "close",
        "TE": "trailers",
        "Trailer": "X",
        "Transfer-Encoding": "chunked",
        "Upgrade": "h2c",
        "X-Mine": "1",
    }
    got = send("POST", body=b"{}", headers=never, forward=[*never, "Content-Length", "X-Other"]).headers
    assert got["host"].startswith("127.0.0.1:")
    assert got["content-length"] == "2"
    assert got.get("connection", "keep-alive") == "keep-alive"
    assert not {name.lower() for name in never} - {"host", "connection"} & got.keys()


def test_headers_of_the_options_win(send: Send) -> None:
    ours = {"accept": "application/json", "Last-Event-ID": "9", "User-Agent": "gateway", "X-Key": "k"}
    got = send(headers={"Last-Event-ID": "7", "User-Agent": "me"}, our_headers=ours).headers
    assert {name.lower(): got[name.lower()] for name in ours} == {name.lower(): ours[name] for name in ours}


def test_a_body_of_the_options_wins_and_brings_its_own_type(send: Send) -> None:
    got = send("POST", body=b"client's", json={"model": "m"})
    assert json.loads(got.body) == {"model": "m"}
    assert got.headers["content-type"] == "application/json"
    got = send("POST", body=b"client's", data={"a": "b"})
    assert (got.body, got.headers["content-type"]) == (b"a=b", "application/x-www-form-urlencoded")
    got = send("POST", body=b"client's", files={"f": b"x"})
    assert got.headers["content-type"].startswith("multipart/form-data; boundary=")
    got = send("POST", body=b"client's", data=b"ours")
    assert (got.body, got.headers["content-type"]) == (b"ours", "application/json")


def test_method_and_params_of_the_options_win(send: Send) -> None:
    got = send("POST", query="a=1", our_method="GET", params={"b": "2"})
    assert (got.method, got.target) == ("GET", "/?b=2")


def test_the_session_is_used_and_not_closed(upstream: Upstream) -> None:
    closed: list[bool] = []

    class Session(requests.Session):
        def close(self) -> None:
            closed.append(True)
            super().close()

    server = upstream([ANSWER])
    session = Session()
    session.trust_env = False
    for _ in range(3):
        response = relay_request({"REQUEST_METHOD": "GET"}, server.url, session=session)
        assert response.content == b""
    assert closed == []
    assert server.connections == 1
    session.close()


def test_a_chunked_body_is_read_to_the_end_that_the_server_sees_to(upstream: Upstream) -> None:
    server = upstream([ANSWER])
    environ = {"REQUEST_METHOD": "POST", "wsgi.input": io.BytesIO(b"all of it"), "wsgi.input_terminated": True}
    relay_request(environ, server.url, headers={"X-A": "1"}).close()
    assert server.requests[0].body == b"all of it"


def test_the_response_is_a_stream(upstream: Upstream) -> None:
    go_on = threading.Event()

    def script(_: object) -> Iterator[Any]:
        yield head("Content-Length: 1")
        yield go_on
        yield b"x"

    with relay_request({"REQUEST_METHOD": "GET"}, upstream(script).url) as response:
        assert response.status_code == 200
        go_on.set()
        assert response.content == b"x"


def test_a_session_whose_hook_raises_the_status_is_answered_as_without(
    upstream: Callable[..., FakeSSEServer], session: requests.Session
) -> None:
    session.hooks["response"].append(lambda response, *args, **options: response.raise_for_status())
    server = upstream([head("Content-Length: 2", status="429 Slow Down", content_type="text/plain"), b"no"])
    environ = {"REQUEST_METHOD": "GET", "QUERY_STRING": ""}
    relay = Relay(relay_request(environ, server.url, session=session))
    assert relay.answer == ("429 Slow Down", [("Content-Type", "text/plain")], b"no")
    relay.close()
