"""What becomes of a subscription on each server, and that its bytes are the same in any case."""

from __future__ import annotations

import pytest

from .kinds import DETACHING, KINDS, PLACES, Server
from .strict import RETRY

EVERYWHERE = pytest.mark.parametrize("server", KINDS, indirect=True)
PLACE = pytest.mark.parametrize("place", PLACES)


@PLACE
@EVERYWHERE
def test_a_stream_is_exactly_its_head_its_opening_its_events_and_its_end(server: Server, place: str):
    with server.subscribe(place) as stream:
        stream.opens()
        assert stream.answer.framing == server.kind.framing[0]
        assert stream.answer.version == server.kind.version[0]
        assert stream.described()["tier"] == server.kind.tier
        stream.delivers("first", "second", {"number": 3}, "x" * 100_000, "ü")
        stream.answer.silent(0.05)
        stream.revoke()
        stream.answer.end()
        assert stream.closes() == ["revoked", stream.name, 5]


@EVERYWHERE
def test_a_client_of_http_1_0_gets_the_same_without_chunks(server: Server):
    with server.subscribe("flask", version="1.0") as stream:
        stream.opens()
        assert stream.answer.framing == server.kind.framing[1]
        assert stream.answer.version == server.kind.version[1]
        assert stream.described()["tier"] == server.kind.tier
        stream.delivers("first", "x" * 100_000)
        stream.revoke()
        stream.answer.end()


@pytest.mark.parametrize("server", [name for name in KINDS if name not in DETACHING], indirect=True)
def test_elsewhere_an_option_detaches_where_that_is_possible(server: Server):
    with server.subscribe("flask", options={"detach": True}) as stream:
        stream.opens()
        assert stream.answer.framing == server.kind.framing[0]
        assert stream.described()["tier"] == server.kind.opted
        stream.delivers("first", "x" * 100_000)
        stream.revoke()
        stream.answer.end()


@pytest.mark.parametrize("server", DETACHING, indirect=True)
def test_and_an_option_keeps_all_on_threads(server: Server):
    with server.subscribe("flask", options={"detach": False}) as stream:
        stream.opens()
        assert stream.described()["tier"] == "served"
        stream.delivers("first", "x" * 100_000)
        stream.revoke()
        stream.answer.end()


@pytest.mark.parametrize("server", DETACHING, indirect=True)
def test_the_head_of_a_detached_answer_is_that_of_a_served_one_but_for_the_connection(server: Server):
    heads = []
    for detach in (True, False):
        with server.subscribe("django", options={"detach": detach}, cors="1") as stream:
            stream.opens()
            # A cookie's value has the time in it.
            headers = [(name, value.partition("=")[0]) for name, value in stream.answer.headers]
            heads.append([pair for pair in headers if pair[0] not in ("date", "connection")])
            if detach and server.kind.version[0] == "HTTP/1.1":
                assert stream.answer.header("connection") == "close"
    assert heads[0] == heads[1]


@EVERYWHERE
def test_head_is_answered_at_once_and_opens_no_stream(server: Server):
    opened = server.state()["opened"]
    with server.subscribe("flask", method="HEAD") as stream:
        answer = stream.answer
        assert (answer.status, answer.framing) == (200, "none")
        assert answer.header("content-type") == "text/event-stream; charset=utf-8"
        if server.kind.after_head and answer.header("transfer-encoding"):
            while len(stream.wire.received) < len(server.kind.after_head) and stream.wire.more():
                pass
        stream.wire.fin()
    server.ping()
    assert server.state()["opened"] == opened


@EVERYWHERE
def test_what_a_view_produces_is_detached_as_well(server: Server):
    """Its code goes on in a thread of its own."""
    with server.wire() as wire:
        wire.request("/flask/produced")
        wire.answer().expect(b":ok\ndata: one\n\n")
        [stream] = server.state()["streams"]
        assert stream["tier"] == server.kind.tier


@pytest.mark.parametrize("server", ["sync_unix", "werkzeug", "runserver", "wsgiref", "uwsgi"], indirect=True)
def test_a_lifetime_ends_with_a_reconnection_time(server: Server):
    with server.subscribe("django", options={"max_lifetime": 0.2, "detach": True}) as stream:
        stream.opens()
        stream.answer.end(RETRY)
        assert stream.closes() == ["lifetime", stream.name, 0]
