"""Redirects: followed by the rules of requests, each connection anew from the source's own URL."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import requests

from ssesync import StatusError
from ssesync.testing import Answer, FakeSSEServer

from .following import Log, data_of, in_turn, source_of

CODES = [301, 302, 303, 307, 308]

# From the status and the method to the method that follows, and whether the body does.
METHODS = {
    (301, "GET"): ("GET", False),
    (302, "GET"): ("GET", False),
    (303, "GET"): ("GET", False),
    (307, "GET"): ("GET", False),
    (308, "GET"): ("GET", False),
    (301, "POST"): ("GET", False),
    (302, "POST"): ("GET", False),
    (303, "POST"): ("GET", False),
    (307, "POST"): ("POST", True),
    (308, "POST"): ("POST", True),
    (301, "PUT"): ("PUT", False),
    (302, "PUT"): ("GET", False),
    (303, "PUT"): ("GET", False),
    (307, "PUT"): ("PUT", True),
    (308, "PUT"): ("PUT", True),
    (303, "REPORT"): ("GET", False),
    (307, "REPORT"): ("REPORT", True),
}


@pytest.mark.parametrize(("status", "method"), METHODS)
def test_a_redirect_is_followed_with_the_method_and_body_that_requests_sends(
    status: int, method: str, server: FakeSSEServer
) -> None:
    server.answer(status, location="/elsewhere?x=1")
    server.answer().event("one", id=1)
    body = b"" if method == "GET" else b"what I want"
    source = source_of(server, method=method, data=body or None, last_event_id="7", headers={"Authorization": "a"})
    assert source.read().data == "one"  # type: ignore[union-attr]
    source.close()
    first, second = server.requests
    expected, kept = METHODS[status, method]
    assert (first.method, first.target, first.body) == (method, "/", body)
    assert (second.method, second.target, second.body) == (expected, "/elsewhere?x=1", body if kept else b"")
    for request in (first, second):
        assert request.last_event_id == "7"
        assert request.headers["accept"] == "text/event-stream"
        assert request.headers["authorization"] == "a"


@pytest.mark.parametrize("status", CODES)
@pytest.mark.parametrize("location", [None, ""], ids=["missing", "empty"])
def test_a_redirect_to_nowhere_is_an_error(status: int, location: str | None, server: FakeSSEServer) -> None:
    server.answer(status, location=location, body="gone fishing")
    with pytest.raises(StatusError, match=rf"status {status} without a Location") as raised:
        data_of(source_of(server))
    assert raised.value.body == b"gone fishing"
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", CODES)
def test_a_redirect_that_is_not_to_be_followed_is_an_error(status: int, server: FakeSSEServer) -> None:
    server.answer(status, location="/elsewhere")
    with pytest.raises(StatusError, match="'/elsewhere', which was not followed"):
        data_of(source_of(server, allow_redirects=False))


@pytest.mark.parametrize("status", [300, 304, 305, 306])
def test_no_other_status_redirects(status: int, server: FakeSSEServer) -> None:
    server.answer(status, location="/elsewhere")
    with pytest.raises(StatusError):
        data_of(source_of(server))
    assert len(server.requests) == 1


def test_redirects_may_follow_one_another(server: FakeSSEServer) -> None:
    for status in CODES:
        server.answer(status, location=f"/{status}", body="x" * 1000)
    server.answer().event("one")
    assert data_of(source_of(server)) == ["one"]
    assert [request.path for request in server.requests] == ["/", "/301", "/302", "/303", "/307", "/308", "/"]


def test_a_circle_of_redirects_is_final(server: FakeSSEServer) -> None:
    server.answer(302, location="/", times=None)
    log = Log()
    with pytest.raises(requests.TooManyRedirects):
        data_of(source_of(server, **log.hooks))
    assert log.names == ["TooManyRedirects"]
    assert len(server.requests) == 31


def test_every_connection_begins_at_the_first_url(server: FakeSSEServer) -> None:
    for number in range(3):
        server.answer(307, location=f"/{number}")
        server.answer().event(str(number), id=number)
    assert data_of(source_of(server)) == ["0", "1", "2"]
    requested = [(request.path, request.last_event_id) for request in server.requests]
    assert requested == [("/", ""), ("/0", ""), ("/", "0"), ("/1", "0"), ("/", "1"), ("/2", "1"), ("/", "2")]


@pytest.mark.parametrize("status", [500, 204, 404])
def test_what_a_redirect_leads_to_is_what_counts(status: int, server: FakeSSEServer) -> None:
    server.answer(301, location="/there")
    server.answer(status)
    server.answer().event("one")
    if status == 404:
        with pytest.raises(StatusError, match="404"):
            data_of(source_of(server))
    else:
        assert data_of(source_of(server)) == (["one"] if status == 500 else [])


def test_a_redirect_to_a_port_where_nobody_listens_is_tried_again(server: FakeSSEServer) -> None:
    with FakeSSEServer() as gone:
        location = gone.url
    server.answer(302, location=location)
    server.answer().event("one")
    log = Log()
    assert data_of(source_of(server, **log.hooks)) == ["one"]
    assert log.names == ["ConnectFailed", "StreamEnded"]


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/", "mailto:me@example.org"])
def test_a_redirect_to_what_is_no_http_is_final(location: str, server: FakeSSEServer) -> None:
    server.answer(302, location=location)
    with pytest.raises(ValueError):
        data_of(source_of(server))
    assert len(server.requests) == 1


SECRETS = {"Authorization": "Bearer secret"}


def test_another_host_does_not_get_the_authorization(serve: Callable[..., FakeSSEServer]) -> None:
    there = serve(in_turn(Answer().event("one", id=1), Answer().event("two", id=2)))
    away = f"http://localhost:{there.port}/"
    here = serve(in_turn(*[Answer(307, location=away)] * 2))
    assert data_of(source_of(here, headers=SECRETS)) == ["one", "two"]
    assert ["authorization" in request.headers for request in here.requests] == [True, True, True]
    assert ["authorization" in request.headers for request in there.requests] == [False, False]
    assert [request.last_event_id for request in there.requests] == ["", "1"]


def test_another_port_does_not_get_the_authorization_either(serve: Callable[..., FakeSSEServer]) -> None:
    there = serve(in_turn(Answer().event("one")))
    here = serve(in_turn(Answer(302, location=there.url)))
    source = source_of(here, auth=("me", "secret"), params={"q": "1"})
    assert data_of(source) == ["one"]
    assert "authorization" in here.requests[0].headers
    assert "authorization" not in there.requests[0].headers


def test_the_same_host_does(server: FakeSSEServer) -> None:
    server.answer(302, location="/there")
    server.answer().event("one")
    assert data_of(source_of(server, headers=SECRETS)) == ["one"]
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer secret"] * 3


def test_a_cookie_that_comes_with_a_redirect_is_sent_from_then_on(server: FakeSSEServer) -> None:
    server.answer(302, location="/there", headers={"Set-Cookie": "session=abc; Path=/"})
    server.answer().event("one")
    assert data_of(source_of(server)) == ["one"]
    assert [request.headers.get("cookie") for request in server.requests] == [None, "session=abc", "session=abc"]
