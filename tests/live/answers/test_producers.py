"""Producers whose streams have left their server: more of them than it has threads, and what the server does beside."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.http_client import Response
from tests.servers import Server, eventually

from .conftest import KINDS, Start, requested

ON_EACH = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.matrix] if name == "werkzeug" else []) for name in KINDS]
)
MANY = 200


def answers(server: Server, target: str) -> bool:
    """Whether there is a response other than a refusal."""
    with server.connect() as wire:
        return wire.get(target, Connection="close").status == 200


def first_event(response: Response, data: bytes) -> None:
    response.expect(b":ok\n" + data)


@ON_EACH
def test_two_hundred_clients_have_their_first_event_and_an_ordinary_view_answers(start: Start, name: str) -> None:
    server = start(name)
    with requested(server, "/ticks", MANY) as responses:
        for response in responses:
            first_event(response, b'data: {"number":0}\n\n')
        assert server.fetch("/plain") == "plain"
        state = server.state()
        assert state["tiers"] == {"detached": MANY, "served": 0}
        assert state["producers"]["running"] == MANY
        for response in responses:
            response.expect(b'data: {"number":1}\n\n')
    assert eventually(lambda: server.state()["tiers"]["detached"] == 0)
    assert server.state()["closed"] == {"client_gone": MANY}
    # Each is in a sleep of a second.
    assert eventually(lambda: server.state()["producers"]["running"] == 0)
    assert "WARNING ssesync" not in server.log()


@ON_EACH
def test_short_streams_leak_no_resources(start: Start, name: str) -> None:
    server = start(name)
    expected = b":ok\n" + b"".join(b'data: {"number":%d}\n\n' % number for number in range(3))
    with requested(server, "/few", 20) as responses:
        assert all(response.read() == expected for response in responses)
    before = server.state()
    for _ in range(8):
        with requested(server, "/few", 25) as responses:
            for response in responses:
                assert response.read() == expected
                assert response.end == ("last chunk" if response.chunked else "eof")
    assert eventually(lambda: server.state()["producers"]["running"] == 0)
    assert eventually(lambda: server.state()["descriptors"] <= before["descriptors"])
    after = server.state()
    assert after["threads"] <= before["threads"] + 4  # of the executor
    assert after["closed"] == {"done": 220}


@pytest.mark.parametrize("name", ["gthread", "sync"])
def test_a_busy_producer_keeps_the_pace_of_its_client_and_others_are_served(start: Start, name: str) -> None:
    server = start(name)
    with requested(server, "/busy?size=10000&count=2000") as [busy], requested(server, "/ticks", 10) as responses:
        for response in responses:
            first_event(response, b'data: {"number":0}\n\n')
        assert busy.read() == b":ok\n" + 2000 * (b"data: " + b"x" * 10_000 + b"\n\n")
        for response in responses:
            response.expect(b'data: {"number":1}\n\n')


def test_a_callers_writer(start: Start) -> None:
    with requested(start("sync"), "/bare", 3) as responses:
        for response in responses:
            events = b"".join(b"id: %d\ndata: %d\n\n" % (number, number) for number in range(5))
            assert response.read() == b":ok\n" + events + b"event: done\ndata: \n\n"


def test_the_second_time_a_view_that_raises_late_gets_its_status(start: Start) -> None:
    server = start("gthread")
    with requested(server, "/missing") as [response]:
        assert response.status == 200
        assert b"event: error" in response.read_broken()
    with requested(server, "/missing") as [response]:
        assert response.status == 404


def test_by_hand_a_view_that_raises_late_gets_its_status_the_first_time(start: Start) -> None:
    with requested(start("gthread", first_event_timeout=5), "/missing") as [response]:
        assert response.status == 404


@pytest.mark.parametrize("name", ["gthread", "sync"])
def test_a_producer_in_a_call_counts_when_its_client_has_left_and_holds_up_no_exit(start: Start, name: str) -> None:
    server = start(name, max_producers=3)
    for _ in range(3):
        with requested(server, "/stuck") as [response]:
            first_event(response, b"data: one\n\n")
    assert eventually(lambda: len(server.state()["producers"]["ended"]) == 3)
    assert [each["name"] for each in server.state()["producers"]["ended"]] == 3 * ["/stuck"]
    with requested(server, "/stuck") as [response]:
        assert response.status == 503
    assert server.logs("max_producers=3 allows no more; the streams of 3 have ended, but a call has not returned yet")
    begun = time.monotonic()
    server.signal(signal.SIGTERM)
    assert server.leaves()
    assert time.monotonic() - begun < 20  # gunicorn waits for 30 s


def test_what_a_response_releases_waits_for_its_producer(start: Start) -> None:
    server = start("gthread")
    with requested(server, "/noted") as [response]:
        first_event(response, b"data: /noted\n\n")
        assert server.state()["notes"] == ["teardown of the view"]
        server.fetch("/go")
        assert response.read() == b""
    expected = [
        "teardown of the view",
        "the producer's end",
        "teardown of the producer",
        "on_close done",
        "call_on_close",
    ]
    assert eventually(lambda: sorted(server.state()["notes"]) == sorted(expected))
    notes = server.state()["notes"]
    assert notes.index("on_close done") < notes.index("call_on_close")


def test_forks_and_programs_while_streams_run(start: Start) -> None:
    server = start("gthread")
    with requested(server, "/waits", 20) as waiting, requested(server, "/forks", 5) as forking:
        for response in waiting:
            first_event(response, b"data: one\n\n")
        for response in forking:
            assert response.read() == b":ok\ndata: one\n\ndata: 0\n\ndata: program\ndata: \n\n"
            assert response.end == "last chunk"
        server.fetch("/go")
        for response in waiting:
            assert response.read() == b"data: two\n\n"
            assert response.end == "last chunk"


@pytest.mark.parametrize("name", ["gthread", "sync"])
def test_without_descriptors_no_client_is_left_hanging(start: Start, name: str, tmp_path: Path) -> None:
    """Those that are there go on; those that come are served by a thread, refused, or accepted when there are some."""
    server, until = start(name), tmp_path / "until"
    with requested(server, "/waits", 30) as waiting:
        for response in waiting:
            first_event(response, b"data: one\n\n")
        assert int(server.fetch(f"/leak?until={until}")) > 0
        with server.connect() as late:
            late.socket.sendall(b"GET /few HTTP/1.1\r\nHost: test\r\n\r\n")
            time.sleep(0.5)
            until.touch()
            response = Response(late, "GET")
            assert response.status in (200, 503)
            response.read()
        assert eventually(lambda: answers(server, "/go"))
        for response in waiting:
            assert response.read() == b"data: two\n\n"
    assert server.fetch("/plain") == "plain"


def test_two_hundred_producers_share_a_pool_of_fifteen_connections(start: Start) -> None:
    server = start("gthread")
    with requested(server, "/queries", MANY) as responses:
        for response in responses:
            assert response.read() == b":ok\n" + 3 * b"data: 42\n\n"
    assert "database" not in server.log()


def test_a_pool_that_is_used_up_is_named_with_the_right_limit(start: Start) -> None:
    server = start("gthread", environment={"POOL": "0.5"})
    with requested(server, "/holds", 20) as responses:
        for response in responses:
            response.expect(b":ok\n")
        assert server.logs("set max_producers=15, the size of SQLAlchemy's pool")
        server.fetch("/go")


def test_with_the_right_limit_clients_are_refused_instead(start: Start) -> None:
    server = start("gthread", environment={"POOL": "0.5"}, max_producers=15)
    with requested(server, "/holds", 20) as responses:
        assert sorted(response.status for response in responses) == 15 * [200] + 5 * [503]
        server.fetch("/go")
    assert "database" not in server.log()
