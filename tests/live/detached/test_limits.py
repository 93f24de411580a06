"""How many may be detached, whose they are, and what a process's own defaults do to them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.servers import eventually

from .kinds import GTHREAD, KINDS, Kind, Server, gunicorn
from .strict import Answer

SILENT = {"keep_alive": 60}
ON_SOME = pytest.mark.parametrize("server", ["gthread", "sync_unix", "werkzeug", "runserver"], indirect=True)


def refused(answer: Answer) -> None:
    """Fail unless this is the answer to one too many."""
    assert answer.status == 503
    assert 1 <= int(answer.header("retry-after") or 0) <= 60
    answer.end(b"too many event streams\n")


@ON_SOME
def test_beyond_max_detached_a_client_is_refused_with_a_reconnection_time(server: Server):
    options = SILENT | {"max_detached": 2}
    refusals = server.state()["refused"]
    with contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(server.subscribe("flask", options=options).opens()) for _ in range(2))
        assert {stream["tier"] for stream in server.state()["streams"]} == {"detached"}
        for _ in range(2):
            with server.subscribe("flask", options=options) as third:
                refused(third.answer)
        assert server.state()["refused"] == refusals + 2
        first.delivers("first")
        second.delivers("second")
        first.wire.fin()
        assert first.closes()
        stack.enter_context(server.subscribe("flask", options=options).opens())
    assert server.log().count("max_detached=2") == 1


@pytest.mark.parametrize("server", ["gthread", "werkzeug", "runserver"], indirect=True)
def test_the_limit_of_a_key_is_for_all_its_streams_on_threads_or_not(server: Server):
    options = SILENT | {"max_streams_per_key": 2}
    with contextlib.ExitStack() as stack:
        for detach in ("auto", False):
            stream = server.subscribe("django", options=options | {"detach": detach}, key="one")
            stack.enter_context(stream).opens()
        assert sorted(stream["tier"] for stream in server.state()["streams"]) == ["detached", "served"]
        for detach in ("auto", False):
            with server.subscribe("django", options=options | {"detach": detach}, key="one") as another:
                refused(another.answer)
        with server.subscribe("django", options=options, key="other") as another:
            another.opens()


def test_streams_on_threads_and_detached_ones_take_no_places_from_each_other(use: Callable[[str], Server]):
    """Four threads, of which one is left for ordinary requests."""
    server = use("gthread")
    with contextlib.ExitStack() as stack:
        for detach in [False, True] * 3:
            stack.enter_context(server.subscribe("flask", options=SILENT | {"detach": detach}).opens())
        with server.subscribe("flask", options=SILENT | {"detach": False}) as one_more:
            refused(one_more.answer)
        with server.subscribe("flask", options=SILENT) as one_more:
            one_more.opens().delivers("first")
        server.ping()


def test_by_itself_the_limit_is_below_that_of_open_files(start: Callable[[Kind], Server]):
    """Some are kept for all else that a process opens, which so goes on working."""
    files = 160
    plain = gunicorn(*GTHREAD)
    kind = Kind("few files", lambda *where: ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *plain(*where)])
    server = start(kind)
    with contextlib.ExitStack() as stack:
        count = 0
        while True:
            stream = stack.enter_context(server.subscribe("flask", name=f"s{count}", channel="all", options=SILENT))
            if stream.answer.status != 200:
                break
            stream.opens()
            count += 1
            assert count < files
        refused(stream.answer)
        assert files // 4 <= count <= files - 64
        assert f"holds {count} detached event streams" in server.log()
        assert "ulimit -n" in server.log()
        server.ping("django")
        assert len(server.state()["streams"]) == count
    server.settle()


@pytest.mark.parametrize("name", ["gthread", "sync", "werkzeug"])
def test_a_default_timeout_for_sockets_is_none_for_streams(start: Callable[[Kind], Server], name: str):
    """socket.setdefaulttimeout() makes every new socket object one that gives up, and so does not block."""
    server = start(replace(KINDS[name], environment={"TESTS_TIMEOUT": "0.2"}))
    data = "x" * 900_000
    with server.subscribe("flask", options=SILENT, wire=server.wire(receive_buffer=4_096)) as stream:
        stream.opens().answer.silent(0.5)
        assert stream.described()["tier"] == "detached"
        stream.delivers("first")
        [event_id] = stream.publish(data)
        stream.answer.wait(0.5)
        stream.answer.expect(f"id: {event_id}\ndata: {data}\n\n".encode())
    server.settle()
    with server.subscribe(
        "flask", options=SILENT, through="split", wire=server.wire(receive_buffer=4_096)
    ) as stream:  # fmt: skip
        stream.opens()
        assert eventually(lambda: stream.described()["tier"] == "served")
        [event_id] = stream.publish(data)
        stream.answer.wait(0.5)
        stream.answer.expect(f"id: {event_id}\ndata: {data}\n\n".encode())
        stream.delivers("next")
    server.settle()
