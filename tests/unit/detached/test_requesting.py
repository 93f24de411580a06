"""Relays whose upstream is asked after the view has returned: its head, its refusals, and the ends in between."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
import time
from typing import Any

import pytest
import requests
import trustme
from requests.adapters import HTTPAdapter

from ssesync import Event, EventStream, Relay, streams
from ssesync.client.session import Adapter, shared_session
from ssesync.detached.connections import connections
from ssesync.detached.relaying import Relay as DetachedRelay
from ssesync.detached.requesting import RequestingRelay, rewritten
from ssesync.producing import Refusal
from ssesync.server.starts import views

from .small_server import TIMEOUT, SmallServer
from .test_relaying import CHUNKED, EVENT, LAST, Ended, chunk, eventually
from .upstreams import FIN, HOLD, RawUpstream

# Without keeping the connection, which a second request could meet before its end arrives.
REFUSED = (
    b"HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Type: application/json\r\nRetry-After: 7\r\n"
    b'Content-Length: 14\r\n\r\n{"error":"no"}'
)


def ask(url: str, ended: Ended | None = None, **options: Any) -> SmallServer:
    """A client of a relay whose upstream is asked afterwards."""
    environ = {"REQUEST_METHOD": "GET", "QUERY_STRING": "a=1"}
    stream = {name: options.pop(name) for name in ("detach", "keep_alive", "error_event") if name in options}
    chunked = options.pop("chunked", True)
    headers = {"X-Stream": "1", **options.pop("stream_headers", {})}

    def make() -> EventStream:
        relay = Relay.from_request(environ, url, **options)
        return EventStream(relay, on_close=ended, headers=headers, **stream)

    return SmallServer(make, chunked=chunked)


def waiting(server: SmallServer) -> RequestingRelay:
    assert server.free.wait(TIMEOUT)
    assert server.stream is not None
    assert isinstance(server.stream._detached, RequestingRelay), server.stream._detached
    return server.stream._detached


@pytest.mark.slow
def test_the_view_returns_before_the_upstream_has_answered() -> None:
    came, go, ended = threading.Event(), threading.Event(), Ended()
    steps = [came.set, lambda: go.wait(TIMEOUT), CHUNKED + chunk(EVENT), chunk(EVENT) + LAST]
    with RawUpstream(lambda: steps) as upstream:
        server = ask(upstream.url, ended, keep_alive=0.1)
        waiting(server)
        assert came.wait(TIMEOUT)
        server.client.settimeout(1.2)
        with pytest.raises(TimeoutError):
            server.client.recv(1)  # not even a keep-alive comes before the upstream's head
        server.client.settimeout(TIMEOUT)
        go.set()
        answer = server.read()
    assert answer.head.startswith(b"HTTP/1.1 200 ")
    assert answer.body == b":ok\n" + 2 * EVENT
    assert answer.complete
    assert ended.wait() == "done"
    assert streams.snapshot()["producers"]["running"] == 0


@pytest.mark.slow
def test_a_timeout_to_connect_is_none_for_reading() -> None:
    with RawUpstream(lambda: [CHUNKED + chunk(EVENT), lambda: time.sleep(1.5), chunk(EVENT), LAST]) as upstream:
        assert ask(upstream.url, timeout=(0.3, None)).read().body == b":ok\n" + 2 * EVENT
    with RawUpstream(lambda: [CHUNKED + chunk(EVENT), HOLD]) as upstream:
        assert b"event: error\n" in ask(upstream.url, timeout=(TIMEOUT, 0.3)).read().body


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "close-delimited"])
@pytest.mark.parametrize("detach", ["auto", False], ids=["detached", "served"])
def test_a_refusal_of_the_upstream_reaches_the_client(detach: Any, chunked: bool) -> None:
    with RawUpstream(lambda: [REFUSED]) as upstream:
        if not detach:
            for options, given in (({}, {}), ({"threaded": False}, {}), ({}, {"transform": lambda event: event})):
                relay = Relay.from_request({"REQUEST_METHOD": "GET"}, upstream.url, **given)
                stream = EventStream(relay, detach=False, **options)
                assert stream.open() == "401 Unauthorized"
                assert ("Retry-After", "7") in stream.headers
                assert b"".join(stream) == b'{"error":"no"}'
                assert streams.snapshot()["producers"]["running"] == 0
            return
        server = ask(upstream.url, chunked=chunked)
        waiting(server)
        answer = server.read()
    head, _, body = answer.head.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 401 Unauthorized"
    assert {b"Content-Type: application/json", b"Retry-After: 7", b"Content-Length: 14", b"Connection: close"} < {
        *lines
    }
    assert not [line for line in lines if line.startswith((b"Transfer-Encoding", b"X-Stream", b"Cache-Control"))]
    assert (body or answer.body) == b'{"error":"no"}'
    assert not answer.reset


#: With it a client is not detached, which shows only in the head.
CODED = {"Content-Encoding": "x"}


@pytest.fixture
def no_view_has_stayed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_staying", {})


@pytest.mark.usefixtures("no_view_has_stayed")
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "close-delimited"])
def test_a_refusal_after_the_head_is_an_error_event_and_the_next_one_has_its_status(chunked: bool) -> None:
    ended, raised = Ended(), list[BaseException]()

    def error_event(error: BaseException) -> Event:
        raised.append(error)
        return Event("refused")

    options: dict[str, Any] = {"chunked": chunked, "stream_headers": CODED, "error_event": error_event}
    with RawUpstream(lambda: [REFUSED]) as upstream:
        server = ask(upstream.url, ended, **options)
        answer = server.read()
        assert answer.head.startswith(b"HTTP/1.1 200 ")
        assert answer.body == b":ok\ndata: refused\n\n"
        assert not answer.complete
        assert ended.wait() == "error"
        assert "401 Unauthorized" in str(raised)

        server = ask(upstream.url, **options)
        answer = server.read()
        assert answer.head.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
        assert answer.body == b'{"error":"no"}'
        assert not raised[1:]
        assert streams.snapshot()["producers"]["running"] == 0


@pytest.mark.usefixtures("no_view_has_stayed")
def test_a_view_whose_clients_are_detached_again_does_not_wait_any_more() -> None:
    requested = threading.Semaphore(0)
    with RawUpstream(lambda: [requested.release, CHUNKED + chunk(EVENT), HOLD]) as upstream:
        first = ask(upstream.url, stream_headers=CODED)
        assert eventually(lambda: first.stream is not None and first.stream.stats.events)
        second = ask(upstream.url)
        assert second.free.wait(TIMEOUT)
        assert second.stream is not None
        assert type(second.stream._detached) is DetachedRelay  # its upstream was asked before
        waiting(third := ask(upstream.url))
        for server in (first, second, third):
            # A client that leaves before the request was sent is none that its upstream hears of.
            assert requested.acquire(timeout=TIMEOUT)
            server.client.close()
            assert upstream.left.acquire(timeout=TIMEOUT)


def test_an_upstream_that_can_not_be_reached_or_does_not_answer_is_a_bad_gateway() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    server = ask(f"http://127.0.0.1:{port}/", timeout=5)
    assert server.read().head.startswith(b"HTTP/1.1 502 Bad Gateway")
    with RawUpstream(lambda: [HOLD]) as upstream:
        server = ask(upstream.url, timeout=(5, 0.1))
        assert server.read().head.startswith(b"HTTP/1.1 504 Gateway Timeout")
        assert upstream.left.acquire(timeout=TIMEOUT)
    with RawUpstream(lambda: [FIN]) as upstream:
        server = ask(upstream.url)
        assert server.read().head.startswith(b"HTTP/1.1 502 Bad Gateway")


@pytest.mark.parametrize("how", ["leave", "stop", "cancel"])
def test_an_end_during_the_request_ends_the_upstreams_connection(how: str) -> None:
    came, ended = threading.Event(), Ended()
    with RawUpstream(lambda: [came.set, HOLD]) as upstream, requests.Session() as session:
        session.trust_env = False
        session.mount("http://", HTTPAdapter(pool_maxsize=1, pool_block=True))
        for _ in range(3):  # a place that its pool does not get back would be missed
            came.clear()
            server = ask(upstream.url, ended, session=session, timeout=5)
            connection = waiting(server)
            assert came.wait(TIMEOUT)
            if how == "leave":
                server.client.close()
            else:
                getattr(connection, how)()
                answer = server.read()
                assert answer.head.startswith(b"HTTP/1.1 200 ")
                assert b"event: error\n" in answer.body
                assert not answer.complete
            assert upstream.left.acquire(timeout=TIMEOUT)
            assert eventually(lambda: not streams.all())
    assert ended.wait() == {"leave": "client_gone", "stop": "shutdown", "cancel": "cancelled"}[how]


def test_after_a_client_has_left_nothing_is_sent_to_its_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another connection may have its number by then: upstreams and other clients got the head of one that had left."""
    came, sent = threading.Event(), list[tuple[int, bytes]]()
    with RawUpstream(lambda: [came.set, HOLD]) as upstream:
        connection = waiting(server := ask(upstream.url))
        assert came.wait(TIMEOUT)
        send = connections().send

        def record(fd: int, data: bytes, size: int) -> int:
            sent.append((fd, data))
            return send(fd, data, size)

        monkeypatch.setattr(connections(), "send", record)
        server.client.close()
        assert upstream.left.acquire(timeout=TIMEOUT)
        assert eventually(lambda: connection.closed)
        turned = threading.Event()
        connections().call_soon(turned.set)
        assert turned.wait(TIMEOUT)
    assert sent == []
    assert connection.fd == -1


def test_what_can_not_be_tapped_goes_by_a_thread() -> None:
    packed = gzip.compress(EVENT)
    head = CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    with RawUpstream(lambda: [head, chunk(packed), LAST]) as upstream:
        server = ask(upstream.url)
        waiting(server)
        assert server.read().body == b":ok\n" + EVENT
    with RawUpstream(lambda: [CHUNKED, chunk(EVENT), LAST]) as upstream:
        server = ask(upstream.url, transform=lambda event: event)
        assert server.read().body == b":ok\n" + EVENT
        assert not isinstance(server.stream and server.stream._detached, RequestingRelay)


def test_a_redirect_is_answered_and_what_requests_does_besides_is_done_by_a_helper_thread() -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 2\r\n\r\nno"
    seen: list[str] = []
    with RawUpstream(lambda: [moved]) as upstream, requests.Session() as session:
        session.trust_env = False
        assert ask(upstream.url).read().head.startswith(b"HTTP/1.1 302 ")
        session.hooks["response"].append(lambda response, **_: seen.append(threading.current_thread().name))
        assert ask(upstream.url, session=session).read().head.startswith(b"HTTP/1.1 302 ")
    assert len(seen) == 1
    assert seen[0].startswith("ssesync-connector")
    with pytest.raises(requests.exceptions.MissingSchema):
        Relay.from_request({"REQUEST_METHOD": "GET"}, "nowhere")


def test_over_tls_all_connections_share_a_context(tmp_path: Any) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with RawUpstream(lambda: [CHUNKED, chunk(EVENT), LAST], tls=context) as upstream:
        for _ in range(2):
            server = ask(upstream.url, verify=str(tmp_path / "ca.pem"))
            assert server.read().body == b":ok\n" + EVENT
        # What these trust is not what those do that are asked without it.
        server = ask(upstream.url, timeout=5)
        assert server.read().head.startswith(b"HTTP/1.1 502 ")
        assert ask(upstream.url, verify=False).read().body == b":ok\n" + EVENT
    adapter = shared_session().get_adapter("https://x")
    assert type(adapter) is Adapter
    request = requests.Request("GET", "https://127.0.0.1/").prepare()
    one, two = (
        adapter.get_connection_with_tls_context(request, verify, None, None)
        for verify in (str(tmp_path / "ca.pem"), True)
    )
    assert one.conn_kw["ssl_context"] is not two.conn_kw["ssl_context"]


def test_the_session_of_requests_without_one_takes_no_cookies() -> None:
    head = CHUNKED.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=b\r\n\r\n")
    with RawUpstream(lambda: [head, chunk(EVENT), LAST]) as upstream:
        assert ask(upstream.url).read().body == b":ok\n" + EVENT
    assert not list(shared_session().cookies)


HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: s\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"Set-Cookie: c=1\r\n\r\n"
)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            Refusal("404 Not Found", [("Content-Type", "text/plain")], b"no"),
            b"HTTP/1.1 404 Not Found\r\nServer: s\r\nSet-Cookie: c=1\r\nContent-Type: text/plain\r\n"
            b"Content-Length: 2\r\n\r\nno",
        ),
        (Refusal("204 No Content", []), b"HTTP/1.1 204 No Content\r\nServer: s\r\nSet-Cookie: c=1\r\n\r\n"),
    ],
)
def test_a_held_head_becomes_that_of_another_response(answer: Refusal, expected: bytes) -> None:
    assert rewritten(HEAD + b"4\r\n:ok\n\r\n", answer, ("Content-Type", "Cache-Control")) == expected
