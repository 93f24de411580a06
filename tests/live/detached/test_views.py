"""What a framework sees: its request ends when the stream is detached, on_close comes when the stream ends."""

from __future__ import annotations

import re

import pytest

from tests.servers import eventually

from .kinds import DETACHING, MAKES, PLACES, Server

SILENT = {"keep_alive": 60, "detach": True}
ON_EACH = pytest.mark.parametrize("server", MAKES, indirect=True)
ON_SOME = pytest.mark.parametrize("server", ["gthread", "sync_unix", "werkzeug", "runserver"], indirect=True)
#: Where each framework says that it is done with a request.
ENDS = {"flask": ["teardown", "answered"], "django": ["request_finished"]}


@pytest.mark.parametrize("place", PLACES)
@ON_EACH
def test_the_request_ends_at_the_hand_over_and_the_stream_at_its_own_end(server: Server, place: str):
    with server.subscribe(place, options=SILENT) as stream:
        stream.opens()
        for end in ENDS[place]:
            assert eventually(lambda: end in stream.facts()), end  # noqa: B023
        stream.delivers("first")
        facts = stream.facts()
        assert "on_close" not in facts
        for end in ENDS[place]:
            assert len(facts[end]) == 1
            assert not facts[end][0].startswith("ssesync"), "on a thread of the library's"
        stream.wire.fin()
        assert stream.closes() == ["client_gone", stream.name, 1]
    server.ping(place)
    facts = stream.facts()
    assert [len(facts[end]) for end in [*ENDS[place], "on_close", "view"]] == [1] * (len(ENDS[place]) + 2)


@ON_EACH
def test_no_database_connection_is_held_by_a_stream_whose_view_used_one(server: Server):
    """With CONN_MAX_AGE=None, so that nothing but the stream closes it."""
    base = server.ask("connections")
    streams = [server.subscribe("django", options=SILENT, database="1").opens() for _ in range(6)]
    try:
        for stream in streams:
            [used] = stream.facts()["connections"]
            assert used["connections"] >= 1
        assert eventually(lambda: server.ask("connections")["connections"] <= base["connections"])
        assert {stream["tier"] for stream in server.state()["streams"]} == {"detached"}
        streams[0].delivers("first")
    finally:
        for stream in streams:
            stream.wire.fin()


@pytest.mark.parametrize("place", [*PLACES, "bare"])
@ON_SOME
def test_on_close_may_fail_and_is_logged(server: Server, place: str):
    with server.subscribe(place, options=SILENT) as other:
        other.opens()
        with server.subscribe(place, options=SILENT, fail="1") as stream:
            stream.opens()
            stream.wire.fin()
            assert stream.closes()[:2] == ["client_gone", stream.name]
            assert server.logs(f"on_close of the event stream {stream_name(stream.target)} failed")
        other.delivers("still there")


def stream_name(target: str) -> str:
    return "/" + target.partition("?")[0].split("/", 2)[2]


@pytest.mark.parametrize("place", [*PLACES, "bare"])
@ON_SOME
def test_the_log_has_one_line_of_the_streams_end(server: Server, place: str):
    with server.subscribe(place, options=SILENT) as stream:
        stream.opens().delivers("first", "second")
        stream.revoke()
        stream.answer.end()
    line = f"INFO ssesync: event stream closed: stream={stream_name(stream.target)} reason=revoked events=2 bytes="
    assert server.logs(line)
    server.ping()
    log = server.log()
    assert log.count(line) == 1
    size = len(stream.wire.received)
    match = re.search(re.escape(line) + r"(\d+) keep_alives=0 seconds=\d", log)
    assert match is not None
    assert 2 * len("data: first\n\n") < int(match[1]) < size


@pytest.mark.parametrize("server", [name for name in MAKES if name in DETACHING and "alone" not in name], indirect=True)
def test_the_servers_own_log_has_one_line_of_the_request(server: Server):
    with server.subscribe("flask", options=SILENT) as stream:
        stream.opens()
        assert server.logs(f"GET /flask/events/{stream.name}?"), "it comes at the hand-over"
        stream.delivers("first")
    server.ping()
    [line] = [line for line in server.log().splitlines() if f"/events/{stream.name}?" in line]
    assert ' HTTP/1.1" 200' in line


@ON_SOME
def test_what_the_view_begins_with_comes_before_what_was_missed_and_what_is_live(server: Server):
    for place in PLACES:
        name = f"first{place}{server.kind.name}"
        ids = server.publish(place, name, "seen", "missed")
        with server.subscribe(
            place, name, options=SILENT, first='["a",{"b":1}]', headers={"Last_Event_ID": ids[0]}
        ) as stream:
            stream.opens().answer.expect(b'data: a\n\ndata: {"b":1}\n\n')
            stream.answer.expect(f"id: {ids[1]}\ndata: missed\n\n".encode())
            stream.delivers("live")
            assert stream.described()["tier"] == "detached"


@ON_SOME
def test_a_stream_is_described_and_counted_like_any_other(server: Server):
    before = server.state()
    with server.subscribe("flask", options=SILENT) as stream:
        stream.opens().delivers("first", "second")
        description = stream.described()
        assert description["name"] == f"/events/{stream.name}"
        assert (description["events"], description["pending_events"], description["pending_bytes"]) == (2, 0, 0)
        assert description["senses_disconnect"] is True
        assert description["bytes"] > 0
        assert 0 <= description["last_write"] <= description["age"]
        stream.revoke()
        stream.answer.end()
    assert stream.closes()
    after = server.state()
    assert after["opened"] == before["opened"] + 1
    assert after["closed"].get("revoked", 0) == before["closed"].get("revoked", 0) + 1
    assert after["events"] == before["events"] + 2
    assert after["bytes"] == before["bytes"] + description["bytes"]


@pytest.mark.parametrize(
    ("server", "place"),
    [("gthread", "flask"), ("gthread", "django"), ("gthread", "bare"), ("werkzeug", "flask")],
    indirect=["server"],
)
def test_a_stream_that_is_full_of_its_own_is_as_it_was_made(server: Server, place: str):
    """An opening with padding and a reconnection time, events of the view's, keep-alives, an end in time."""
    options = {"padding": 3000, "retry": 70, "keep_alive": 0.1, "max_lifetime": 2.5}
    with server.subscribe(place, options=options, first='["state",1]') as stream:
        stream.opens(b":%s\nretry: 70\n" % (b" " * 3000))
        if place != "bare":
            stream.answer.expect(b"data: state\n\ndata: 1\n\n")
        stream.answer.expect(b":keep-alive\n")
        stream.answer.end(re.compile(rb"(:keep-alive\n)*retry: \d+\n"))
        assert stream.closes()[0] == "lifetime"
