"""An upstream that sends no event stream is answered as an ordinary response; HEAD and refusals start nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.response import HTTPResponse

from ssesync import EventStream, Relay, relay_request
from ssesync.testing import CHUNKED, FIN, HOLD, LAST_CHUNK, FakeSSEServer, chunk, head
from tests.unit.client.raw_server import TIMEOUT, gzip_pieces

Upstream = Callable[..., FakeSSEServer]
Gateway = Callable[..., str]
EVENT = b"data: x\n\n"
JSON = b'{"error":{"message":"no","type":"t"}}'


def whole(body: bytes, *headers: str, **options: Any) -> list[bytes]:
    return [head(f"Content-Length: {len(body)}", *headers, **options) + body]


def relaying(server: FakeSSEServer, session: requests.Session) -> Callable[[Any], Relay]:
    return lambda request: Relay(relay_request(request, server.url, session=session, timeout=(10, None)))


def get(url: str, method: str = "GET") -> requests.Response:
    with requests.Session() as client:
        client.trust_env = False
        return client.request(method, url, timeout=TIMEOUT)


@pytest.mark.parametrize("status", ["400 Bad Request", "401 Unauthorized", "429 Too Many", "500 Oh", "529 Overloaded"])
def test_an_error_of_the_upstream_is_answered_with_its_status_and_body(
    status: str, skin: str, upstream: Upstream, session: requests.Session, gateway: Gateway
) -> None:
    script = whole(JSON, "Retry-After: 7", 'WWW-Authenticate: Bearer realm="x"', "Set-Cookie: a=b", "X-Secret: 1",
                   status=status, content_type="application/json")  # fmt: skip
    answer = get(gateway(relaying(upstream(script), session), skin))
    assert (f"{answer.status_code} {answer.reason}" == status) or answer.status_code == int(status[:3])
    assert answer.headers["Content-Type"] == "application/json"
    assert (answer.headers["Retry-After"], answer.headers["WWW-Authenticate"]) == ("7", 'Bearer realm="x"')
    assert answer.content == JSON
    assert not {"Set-Cookie", "X-Secret", "X-Accel-Buffering"} & set(answer.headers)


def test_an_error_that_calls_itself_an_event_stream_is_an_error(
    skin: str, upstream: Upstream, session: requests.Session, gateway: Gateway
) -> None:
    answer = get(gateway(relaying(upstream(whole(EVENT, status="502 Bad Gateway")), session), skin))
    assert (answer.status_code, answer.content) == (502, EVENT)


@pytest.mark.parametrize("content_type", ["application/json", "text/html; charset=latin-1", None])
def test_another_media_type_is_answered_as_it_is(
    content_type: str | None, skin: str, upstream: Upstream, session: requests.Session, gateway: Gateway
) -> None:
    script = whole(b'{"a": 1}', content_type=content_type)
    answer = get(gateway(relaying(upstream(script), session), skin))
    assert (answer.status_code, answer.content) == (200, b'{"a": 1}')
    assert answer.headers.get("Content-Type") == content_type


def test_a_compressed_answer_is_passed_on_readable(
    skin: str, upstream: Upstream, session: requests.Session, gateway: Gateway
) -> None:
    body = b"".join(gzip_pieces([JSON]))
    script = whole(body, "Content-Encoding: gzip", status="403 Forbidden", content_type="application/json")
    answer = get(gateway(relaying(upstream(script), session), skin))
    assert (answer.status_code, answer.content) == (403, JSON)


@pytest.mark.parametrize("endless", [False, True])
def test_of_an_error_no_more_than_64_kb_are_passed_on(
    endless: bool, skin: str, upstream: Upstream, session: requests.Session, gateway: Gateway
) -> None:
    first = [head(CHUNKED, status="500 Oh", content_type="text/plain"), *[chunk(b"e" * 9_000)] * 10]
    server = upstream([*first, HOLD] if endless else [*first, LAST_CHUNK])
    answer = get(gateway(relaying(server, session), skin))
    assert (answer.status_code, answer.content) == (500, b"e" * 65536)


@pytest.mark.parametrize(("size", "status"), [(65_536, 200), (65_537, 502), (1_000_000, 502)])
def test_a_good_answer_is_passed_on_whole_or_not_at_all(
    size: int, status: int, skin: str, upstream: Upstream, session: requests.Session, gateway: Gateway
) -> None:
    server = upstream(whole(b"j" * size, content_type="application/json"))
    answer = get(gateway(relaying(server, session), skin))
    assert answer.status_code == status
    assert answer.content == b"j" * size if status == 200 else b"its answer is too large" in answer.content


def test_a_good_answer_that_breaks_off_is_not_passed_on(
    skin: str, upstream: Upstream, session: requests.Session, gateway: Gateway
) -> None:
    server = upstream([head("Content-Length: 100", content_type="application/json") + b'{"a":', FIN])
    assert get(gateway(relaying(server, session), skin)).status_code == 502


def test_204_is_passed_on(skin: str, upstream: Upstream, session: requests.Session, gateway: Gateway) -> None:
    server = upstream([head(status="204 No Content", content_type=None)])
    answer = get(gateway(relaying(server, session), skin))
    assert (answer.status_code, answer.content) == (204, b"")
    assert "Content-Type" not in answer.headers


def test_head_closes_the_upstream_and_starts_no_producer(
    skin: str, upstream: Upstream, session: requests.Session, gateway: Gateway
) -> None:
    def make(request: Any) -> Relay:
        # By GET, as an upstream that knows no HEAD wants it.
        return Relay(relay_request(request, server.url, session=session, method="GET"))

    server = upstream([head(CHUNKED), chunk(EVENT), HOLD])
    closes: list[str] = []
    answer = get(gateway(make, skin, name="head-of-relay", on_close=lambda reason, _: closes.append(reason)), "HEAD")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert server.client_left.acquire(timeout=TIMEOUT)
    assert not [thread for thread in threading.enumerate() if "head-of-relay" in thread.name]
    assert closes == []


def test_head_is_sent_to_the_upstream_as_head(
    skin: str, upstream: Upstream, session: requests.Session, gateway: Gateway
) -> None:
    server = upstream([head(content_type="application/json", status="401 Unauthorized")])
    answer = get(gateway(relaying(server, session), skin), "HEAD")
    assert (answer.status_code, answer.content) == (401, b"")
    assert [request.method for request in server.requests] == ["HEAD"]


def test_a_client_that_is_refused_over_a_limit_closes_the_upstream(
    skin: str, upstream: Upstream, session: requests.Session, gateway: Gateway
) -> None:
    server = upstream([head(CHUNKED), chunk(EVENT), HOLD])
    url = gateway(relaying(server, session), skin, max_streams=1, max_detached=1)
    with requests.Session() as client:
        client.trust_env = False
        with client.get(url, stream=True, timeout=TIMEOUT) as first:
            body = first.iter_content(1)  # closes the connection when it is dropped
            assert next(body)
            assert get(url).status_code == 503
            assert server.client_left.acquire(timeout=TIMEOUT)
            assert not server.client_left.acquire(blocking=False)
    assert server.client_left.acquire(timeout=TIMEOUT)


def test_a_client_that_has_it_all_closes_the_upstream(
    skin: str, upstream: Upstream, session: requests.Session, gateway: Gateway
) -> None:
    server = upstream([head(CHUNKED), chunk(EVENT), HOLD])
    assert get(gateway(relaying(server, session), skin, finished=lambda _: True)).status_code == 204
    assert server.client_left.acquire(timeout=TIMEOUT)


def test_no_answer_keeps_a_connection_of_the_pool(upstream: Upstream, gateway: Gateway) -> None:
    kinds: dict[str, list[Any]] = {
        "json": whole(b"{}", content_type="application/json"),
        "large": whole(b"x" * 100_000, content_type="text/plain"),
        "held": [head(CHUNKED, status="500 Oh", content_type="text/plain"), chunk(b"e" * 70_000), HOLD],
        "empty": [head(status="204 No Content", content_type=None)],
        "events": [head(CHUNKED), chunk(EVENT), LAST_CHUNK],
        "open": [head(CHUNKED), chunk(EVENT), HOLD],
    }
    server = upstream(lambda request: kinds[request.target.partition("?")[2]])
    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", HTTPAdapter(pool_maxsize=2, pool_block=True))
        url = gateway(relaying(server, session))
        for _ in range(3):
            for kind in kinds:
                if kind != "open":
                    get(f"{url}?{kind}")
                get(f"{url}?{kind}", "HEAD")


def test_a_relay_that_nobody_serves_closes_its_upstream(
    upstream: Upstream, ask: Callable[..., requests.Response]
) -> None:
    server = upstream([head(CHUNKED), chunk(EVENT), HOLD])
    stream = EventStream(Relay(ask(server)))
    stream.close()
    assert server.client_left.acquire(timeout=TIMEOUT)


BROTLI = bytes.fromhex("8b0580646174613a2068656c6c6f0a0a03")


@pytest.mark.parametrize(
    ("coding", "status", "content_type", "answered"),
    [
        ("Content-Encoding: br", "200 OK", "text/event-stream", 502),
        ("Content-Encoding: br", "200 OK", "application/json", 502),
        ("Content-Encoding: br", "429 Too Many", "application/json", 429),
        ("Transfer-Encoding: gzip, chunked", "200 OK", "text/event-stream", 502),
    ],
)
def test_bytes_in_a_coding_that_can_not_be_decoded_are_never_passed_on(
    coding: str, status: str, content_type: str, answered: int, skin: str, upstream: Upstream,
    session: requests.Session, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(HTTPResponse, "CONTENT_DECODERS", ["gzip", "x-gzip", "deflate"])
    framing = [] if "chunked" in coding else [CHUNKED]
    script = [head(coding, "Retry-After: 7", *framing, status=status, content_type=content_type)]
    server = upstream([*script, chunk(BROTLI), LAST_CHUNK])
    answer = get(gateway(relaying(server, session), skin))
    assert answer.status_code == answered
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.headers["Retry-After"] == "7"
    assert b"can't be decoded" in answer.content
    assert BROTLI not in answer.content
    lines = [record.getMessage() for record in caplog.records if record.name == "ssesync"]
    assert len(lines) == 1
    assert "127.0.0.1" in lines[0]
