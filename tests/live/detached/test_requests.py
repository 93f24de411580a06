"""Requests of all kinds: with bodies, behind others on a connection, before others, with cookies and origins."""

from __future__ import annotations

import pytest

from tests.servers import eventually

from .kinds import DETACHING, KINDS, MAKES, OPENING, PLACES, Server, event
from .strict import RETRY, compose

SILENT = {"keep_alive": 60, "detach": True}
ON_EACH = pytest.mark.parametrize("server", MAKES, indirect=True)
#: One of each make.
ON_SOME = pytest.mark.parametrize(
    "server", ["gthread", "sync_unix", "werkzeug", "runserver", "cheroot", "uwsgi"], indirect=True
)
BODY = b"b" * 50_000
#: Names that would begin a line of a log, give a terminal orders, or reorder what is shown.
FORGED = ("%0AERROR%20forged", "%0d%0aERROR%20forged", "%1b[2Jred", "%e2%80%a8ERROR%20forged%c2%85x%e2%80%ae")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("read", ["read", "unread"])
@ON_EACH
def test_a_post_may_subscribe_with_a_body_that_the_view_reads_or_not(server: Server, place: str, read: str):
    query = {"reads": "1"} if read == "read" else {}
    # By itself the end of a POST that its producer did not end is no orderly one.
    options = {**SILENT, "resumable": True}
    with server.subscribe(place, method="POST", body=BODY, options=options, **query) as stream:
        stream.opens()
        # cheroot reads what is left of a body before it sends the head.
        stays = server.kind.name == "cheroot" and read == "unread"
        assert stream.described()["tier"] == ("served" if stays else "detached")
        if read == "read":
            assert stream.facts()["body"] == [len(BODY)]
        stream.delivers("first", "second")
        stream.revoke()
        stream.answer.end()


@pytest.mark.parametrize("server", ["gthread", "sync_unix", "werkzeug", "runserver", "uwsgi"], indirect=True)
def test_a_body_may_arrive_when_the_stream_has_begun(server: Server):
    """Nobody reads it, and it is not taken for the client's leaving. cheroot waits for all of it before it answers."""
    with server.subscribe(
        "flask", method="POST", body=BODY[:10], options=SILENT, headers={"Content_Length": "40"}
    ) as stream:
        stream.opens()
        for _ in range(3):
            stream.wire.send(BODY[:10])
            stream.delivers("and on it goes")
        assert stream.described()["tier"] == "detached"
        stream.wire.fin()
        assert stream.closes() == ["client_gone", stream.name, 3]


@pytest.mark.parametrize("server", ["gthread", "sync"], indirect=True)
def test_a_client_that_waits_for_the_word_to_send_its_body_gets_it(server: Server):
    headers = {"Expect": "100-continue", "Content_Length": "10"}
    with server.subscribe("flask", method="POST", body=b"", headers=headers, options=SILENT, reads="1") as stream:
        assert stream.wire.answer().status == 100
        stream.wire.send(BODY[:10])
        stream.opens()
        assert stream.facts()["body"] == [10]
        assert stream.described()["tier"] == "detached"
        stream.delivers("first")


@pytest.mark.parametrize("server", [name for name in MAKES if KINDS[name].reusable], indirect=True)
def test_a_stream_may_follow_ordinary_requests_on_their_connection(server: Server):
    wire = server.wire()
    for place in PLACES * 2:
        answer = wire.get(f"/{place}/ping")
        answer.end(b"pong")
        assert answer.keeps_alive
    with server.subscribe("flask", wire=wire, options=SILENT) as stream:
        stream.opens()
        assert stream.described()["tier"] == "detached"
        stream.delivers("first", "second")
        stream.revoke()
        stream.answer.end()
        assert not stream.answer.keeps_alive


@pytest.mark.parametrize(("place", "body"), [("flask", b""), ("django", BODY[:100])], ids=["GET", "POST"])
@ON_EACH
def test_pipelined_requests_after_a_detached_one_are_not_processed(server: Server, place: str, body: bytes):
    """Its answer says ``Connection: close`` (RFC 9112, section 9.6), whatever the server has read already."""
    name = f"pipelined{place}{server.kind.name}{len(body)}"
    with server.subscribe("bare", f"{name}x", options=SILENT) as witness:
        witness.opens()
        opened = server.state()["opened"]
        # cheroot reads what is left of a body before it sends the head, and does not detach then.
        target = f"/{place}/events/{name}?options=%7B%22detach%22%3Atrue%7D&reads=1"
        first = compose(target, method="POST", body=body) if body else compose(target)
        publishes = compose(f"/bare/publish?channel={name}x", method="POST", body=b'["forged"]')
        wire = server.wire()
        wire.send(first + publishes + compose(f"/{place}/events/{name}y") + compose(f"/{place}/ping"))
        with wire:
            answer = wire.answer()
            answer.expect(OPENING)
            assert [stream["tier"] for stream in server.state()["streams"]] == ["detached"] * 2
            for number in range(3):
                server.ping(PLACES[number % 2])
                [event_id] = server.publish(place, name, str(number))
                answer.expect(event(event_id, str(number)))
            answer.silent()
            witness.delivers("no other request has published here")
            assert server.state()["opened"] == opened + 1
            if not body:  # a POST that its producer did not end is cut off
                server.ask("revoke", place=place, key=name)
                answer.end()


@pytest.mark.parametrize("server", [name for name in MAKES if name in DETACHING], indirect=True)
@pytest.mark.parametrize("place", PLACES)
def test_the_cookie_that_comes_with_a_stream_holds_the_session(server: Server, place: str):
    cookie, name = "", {"flask": "session", "django": "sessionid"}[place]
    for visit in (1, 2):
        with server.subscribe(place, headers={"Cookie": cookie} if cookie else {}) as stream:
            stream.opens()
            assert stream.described()["tier"] == "detached"
            assert list(stream.answer.cookies) == [name]
            cookie = f"{name}={stream.answer.cookies[name]}"
        with server.wire() as wire:
            answer = wire.get(f"/{place}/visits", Cookie=cookie, Connection="close")
            answer.end(str(visit).encode())


@pytest.mark.parametrize("server", ["gthread", "sync_unix", "werkzeug", "runserver"], indirect=True)
@pytest.mark.parametrize("place", PLACES)
def test_pages_of_other_origins_may_read_it_if_the_options_or_the_framework_allow_it(server: Server, place: str):
    origin = {"Origin": "https://app.example"}
    options = {"cors_origins": ["https://app.example"], "cors_credentials": True}
    with server.subscribe(place, options=options, headers=origin) as stream:
        stream.opens()
        assert stream.described()["tier"] == "detached"
        assert stream.answer.all("access-control-allow-origin") == ["https://app.example"]
        assert stream.answer.all("access-control-allow-credentials") == ["true"]
        assert "origin" in (stream.answer.header("vary") or "").lower()
    with server.subscribe(place, headers=origin, cors="1") as stream:
        stream.opens()
        assert stream.answer.all("access-control-allow-origin") == ["https://example.org"]


@pytest.mark.parametrize("server", ["gthread", "sync", "runserver", "werkzeug"], indirect=True)
def test_conditions_and_encodings_in_the_request_change_nothing(server: Server):
    headers = {
        "If_None_Match": '"x"', "If_Modified_Since": "Sun, 22 Nov 2026 12:00:00 GMT", "Range": "bytes=0-3",
        "Accept_Encoding": "gzip, deflate, br", "TE": "trailers",
    }  # fmt: skip
    with server.subscribe("django", headers=headers) as stream:
        stream.opens()
        assert stream.answer.header("etag") is None
        assert stream.answer.header("content-encoding") in (None, "identity")
        assert stream.described()["tier"] == "detached"
        stream.delivers("x" * 1_000)


@pytest.mark.parametrize("server", ["gthread", "sync", "runserver", "cheroot"], indirect=True)
def test_a_refusal_is_an_ordinary_answer(server: Server):
    opened = server.state()["opened"]
    headers = {"Origin": "https://other.example", "Sec_Fetch_Site": "cross-site"}
    with server.subscribe("django", options={"same_origin_only": True}, headers=headers) as stream:
        assert stream.answer.status == 403
        if stream.answer.keeps_alive:
            stream.answer.end(b"not for pages of other origins\n")
            stream.wire.get("/django/ping", Connection="close").end(b"pong")
        else:
            stream.answer.end(b"not for pages of other origins\n")
    assert server.state()["opened"] == opened


@pytest.mark.parametrize("server", ["gthread", "sync", "werkzeug"], indirect=True)
def test_an_http_1_0_client_that_requests_keep_alive_gets_connection_close(server: Server):
    with server.subscribe("flask", version="1.0", headers={"Connection": "keep-alive"}) as stream:
        stream.opens()
        assert stream.described()["tier"] == "detached"
        assert stream.answer.all("connection") == ["close"]
        assert stream.answer.header("keep-alive") is None
        stream.delivers("first")
        stream.revoke()
        stream.answer.end()


@pytest.mark.parametrize("server", ["gthread", "werkzeug"], indirect=True)
def test_an_end_reaches_a_client_that_has_sent_bytes_which_nobody_read(server: Server):
    """Closing a socket with unread bytes resets the connection, and with that the last of what was sent can be lost."""
    with server.subscribe("flask", options=SILENT | {"max_lifetime": 2.5}) as stream:
        stream.opens()
        stream.wire.send(b"GET / HTTP/1.1\r\n")
        stream.delivers("x" * 60_000)
        stream.answer.end(RETRY)


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("server", ["gthread", "sync_unix", "werkzeug", "runserver"], indirect=True)
def test_a_request_writes_no_line_of_its_own_into_the_log(server: Server, detach: bool):
    """The path of a request is its stream's name, which log lines have, and the name of its producer's thread."""
    for path in FORGED:
        with server.subscribe("flask", f"{path}{detach}", options={"detach": detach}, channel="plain") as stream:
            stream.opens()
            server.ask("revoke", place="flask", key=stream.described()["name"].rpartition("/")[2])
            stream.answer.rest()
    assert eventually(lambda: server.log().count(f"{detach} reason=revoked") >= len(FORGED))
    lines = server.log().split("\n")
    ours = [line for line in lines if "event stream closed" in line]
    assert not [line for line in lines if line.lstrip().startswith("ERROR forged")]
    assert not [line for line in ours if not line.isprintable()]
    assert any("stream=/events/\\x1b[2Jred" in line for line in ours)
