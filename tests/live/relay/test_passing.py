"""Headers of the upstream's response that reach the client, and bodies above 64 kB: for streams and other answers, of
relays that are detached and of those that are not, whenever their request is sent."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from ssesync import Relay, SettingsError, relay_request
from ssesync.testing import CHUNKED, LAST_CHUNK, FakeSSEServer, chunk, head
from tests.unit.client.raw_server import TIMEOUT

Upstream = Callable[..., FakeSSEServer]
Gateway = Callable[..., str]
NAMES = [
    "mcp-session-ID",
    "X-Two",
    "Set-Cookie",
    "Connection",
    "X-Hop",
    "Content-Encoding",
    "Cache-Control",
    "X-Folded",
]
LINES = (
    "Mcp-Session-Id: 1868", "X-Two: a", "X-Two: b", "Set-Cookie: a=b; Expires=Thu, 01 Jan 2026", "Set-Cookie: c=d",
    "Connection: x-hop", "X-Hop: 1", "Cache-Control: max-age=60", "X-Secret: 1", "X-Folded: a\r\n b",
)  # fmt: skip


def makers(server: FakeSSEServer, session: requests.Session, **options: Any) -> Iterator[Callable[[Any], Relay]]:
    """A relay of a response, by whichever of the two is given the options, and one whose request is sent later."""
    timeout = (10, None)
    yield lambda request: Relay(relay_request(request, server.url, session=session, timeout=timeout), **options)
    yield lambda request: Relay(relay_request(request, server.url, session=session, timeout=timeout, **options))
    yield lambda request: Relay.from_request(request, server.url, timeout=timeout, **options)


def each_way(
    server: FakeSSEServer, session: requests.Session, gateway: Gateway, skin: str, **options: Any
) -> Iterator[requests.Response]:
    for make, detach in itertools.product(makers(server, session, **options), (True, False)):
        with requests.Session() as client:
            client.trust_env = False
            yield client.get(gateway(make, skin, detach=detach), timeout=TIMEOUT)


def test_of_a_stream(skin: str, upstream: Upstream, session: requests.Session, gateway: Gateway) -> None:
    server = upstream([head(CHUNKED, *LINES), chunk(b"id: 1\ndata: x\n\n"), LAST_CHUNK])
    for answer in each_way(server, session, gateway, skin, pass_headers=NAMES):
        assert answer.content == b":ok\nid: 1\ndata: x\n\n"
        assert answer.headers["Mcp-Session-Id"] == "1868"
        assert answer.headers["X-Two"] == "a, b"
        assert answer.headers["X-Folded"].split() == ["a", "b"]
        assert "no-cache" in answer.headers["Cache-Control"]  # the stream's own
        assert not {"X-Hop", "X-Secret", "Set-Cookie"} & set(answer.headers)
        assert answer.headers.get("Content-Encoding", "identity") == "identity"
    assert len(server.requests) == 6


def test_of_another_answer(skin: str, upstream: Upstream, session: requests.Session, gateway: Gateway) -> None:
    body = b'{"jsonrpc": "2.0"}'
    script = head(f"Content-Length: {len(body)}", *LINES, status="404 Not Found", content_type="application/json")
    server = upstream([script + body])
    for answer in each_way(server, session, gateway, skin, pass_headers=NAMES):
        assert (answer.status_code, answer.content) == (404, body)
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Mcp-Session-Id"] == "1868"
        assert answer.headers["X-Two"] == "a, b"
        assert not {"X-Hop", "X-Secret", "Set-Cookie"} & set(answer.headers)


def test_none_without_their_names(skin: str, upstream: Upstream, session: requests.Session, gateway: Gateway) -> None:
    server = upstream([head(CHUNKED, *LINES), chunk(b"data: x\n\n"), LAST_CHUNK])
    for answer in each_way(server, session, gateway, skin):
        assert not {"Mcp-Session-Id", "X-Two", "Set-Cookie"} & set(answer.headers)


@pytest.mark.parametrize(("size", "status"), [(2_000_000, 200), (2_000_001, 502)])
def test_a_larger_body(
    size: int, status: int, skin: str, upstream: Upstream, session: requests.Session, gateway: Gateway
) -> None:
    body = b"j" * size
    server = upstream([head(CHUNKED, content_type="application/json"), chunk(body), LAST_CHUNK])
    for answer in each_way(server, session, gateway, skin, max_body=2_000_000, pass_headers=["X-None"]):
        assert answer.status_code == status
        assert answer.content == body if status == 200 else b"its answer is too large" in answer.content


def test_options_that_can_not_work(upstream: Upstream, session: requests.Session) -> None:
    server = upstream([head("Content-Length: 0")])
    with pytest.raises(TypeError, match=r"takes a list of names.*pass_headers=\['Mcp-Session-Id'\]"):
        Relay(session.get(server.url, stream=True), pass_headers="Mcp-Session-Id")
    with pytest.raises(SettingsError, match="max_body"):
        Relay.from_request({"REQUEST_METHOD": "GET"}, server.url, max_body=0)
    asked = len(server.requests)
    with pytest.raises(TypeError, match="takes a list of names"):
        relay_request({"REQUEST_METHOD": "GET"}, server.url, pass_headers="Mcp-Session-Id")
    with pytest.raises(SettingsError, match="max_body"):
        relay_request({"REQUEST_METHOD": "GET"}, server.url, max_body=0)
    assert len(server.requests) == asked


def test_those_of_the_relay_take_precedence(upstream: Upstream, session: requests.Session) -> None:
    server = upstream([head("Content-Length: 4", *LINES, status="404 Not Found", content_type="text/plain"), b"gone"])
    options: dict[str, Any] = {"pass_headers": ["X-Two"], "max_body": 3}
    for ours, body in (({}, b"gon"), ({"pass_headers": ["mcp-session-id"], "max_body": 4}, b"gone")):
        response = relay_request({"REQUEST_METHOD": "GET"}, server.url, session=session, **options)
        relay = Relay(response, **ours)
        name, value = ("Mcp-Session-Id", "1868") if ours else ("X-Two", "a, b")
        assert relay.answer == ("404 Not Found", [("Content-Type", "text/plain"), (name, value)], body)
