"""Crowds: as many clients at once as a deploy or a broken network brings back, and more than the process has room for.

Each is answered, no worker ends, no stream is cut, and an ordinary view is answered meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import Kind, eventually

from .crowd import GTHREAD, SYNC, UWSGI, WERKZEUG, WITHOUT_HOOKS, Crowd, Server, limited

Start = Callable[[Kind], Server]
#: Connections that say nothing, on top of all.
IDLE = 900
#: Seconds that a busy machine may take for the largest crowd: some 5 on a quiet one.
LONGEST = 240

pytestmark = pytest.mark.timeout(900)


class Asking:
    """An ordinary view that is asked for while a crowd is there."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.answer = ""
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        with self._server.connect() as wire:
            wire.socket.settimeout(LONGEST)
            self.answer = wire.get("/plain", Connection="close").read().decode()

    def is_answered(self) -> bool:
        self._thread.join(LONGEST)
        return self.answer == "plain"


def is_served(server: Server) -> bool:
    with server.connect() as wire:
        return wire.get("/plain", Connection="close").status == 200


@pytest.mark.parametrize("files", [256, pytest.param(1024, marks=pytest.mark.matrix), 2048])
@pytest.mark.parametrize("kind", [GTHREAD, SYNC], ids=lambda kind: kind.name)
def test_everybody_is_answered_and_no_stream_is_cut(start: Start, kind: Kind, files: int) -> None:
    server = start(limited(kind, files))
    pid = server.pid()
    with contextlib.ExitStack() as stack:
        crowd = stack.enter_context(Crowd(server, files + 100))
        asking = Asking(server)
        assert crowd.wait(crowd.is_answered), (len(crowd.admitted), len(crowd.refused), len(crowd.received))
        assert asking.is_answered()
        admitted, refused = len(crowd.admitted), len(crowd.refused)
        # At least half of all descriptors, and three quarters where there are more than a few, are for streams.
        assert admitted >= files // 2
        assert admitted >= files * 3 // 4 or files < 512
        waits = [re.fullmatch(rb".*retry: ([0-9]+)\n.*", crowd.body(each), re.DOTALL) for each in crowd.refused]
        assert all(wait and 3000 <= int(wait[1]) <= 120_000 for wait in waits)
        state = server.state()
        assert (state["pid"], state["tiers"], state["closed"]) == (pid, {"detached": admitted, "served": 0}, {})
        assert state["refused"] == refused > 0

        # Beside a process that is full, others that only connect: they take no thread.
        for _ in range(IDLE):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        assert Asking(server).is_answered()
        server.fetch("/publish?text=hello")
        assert crowd.all_get("hello")
        assert not crowd.cut

        # Where somebody leaves, somebody else gets in, and forgets the long time that it may have been told.
        crowd.leave(5)
        assert eventually(lambda: server.state()["tiers"]["detached"] == admitted - 5)
        late = stack.enter_context(Crowd(server, 5))
        assert late.wait(lambda: len(late.admitted) == 5)
        assert all(b"retry: 3000\n" in late.body(each) for each in late.admitted)
        assert server.pid() == pid
    assert "Too many open files" not in server.log()


@pytest.mark.parametrize("kind", [WERKZEUG, UWSGI], ids=lambda kind: kind.name)
def test_so_it_is_on_servers_of_which_the_connections_are_not_known(start: Start, kind: Kind) -> None:
    server = start(limited(kind, 256, OPTIONS=json.dumps({"detach": True})))
    pid = server.pid()
    with Crowd(server, 290) as crowd:
        asking = Asking(server)
        assert crowd.wait(crowd.is_answered)
        assert asking.is_answered()
        # Each of its connections has a thread and a descriptor at once, so for some there is none left to be detached
        # with. They are told so behind the head.
        held = int(server.state()["tiers"]["detached"])
        assert crowd.wait(lambda: len(crowd.admitted) - len(crowd.cut) == held)
        for late in crowd.cut:
            assert re.search(rb"retry: [0-9]{4,6}\n", crowd.body(late))
            del crowd.admitted[late]
        assert 100 <= held < 256
        assert len(crowd.refused) > 0
        server.fetch("/publish?text=hello")
        assert crowd.all_get("hello")
        assert not crowd.cut
        assert server.pid() == pid


def test_so_it_is_without_the_hooks_once_there_was_a_stream(start: Start) -> None:
    server = start(limited(WITHOUT_HOOKS, 256))
    pid = server.pid()
    with Crowd(server, 1) as first:
        assert first.wait(first.is_answered)
        with Crowd(server, 400) as crowd:
            assert crowd.wait(crowd.is_answered)
            server.fetch("/publish?text=hello")
            assert crowd.all_get("hello")
            assert first.all_get("hello")
            assert server.pid() == pid


@pytest.mark.parametrize("kind", [GTHREAD, SYNC], ids=lambda kind: kind.name)
def test_an_application_that_leaks_all_descriptors_takes_no_stream_with_it(
    start: Start, kind: Kind, tmp_path: Path
) -> None:
    server = start(limited(kind, 256))
    pid, until = server.pid(), tmp_path / "until"
    with Crowd(server, 50) as crowd:
        assert crowd.wait(lambda: len(crowd.admitted) == 50)
        assert int(server.fetch(f"/leak?until={until}")) > 100
        with Crowd(server, 20) as browsers, Crowd(server, 20, "*/*") as others:
            assert browsers.wait(browsers.is_answered)
            assert others.wait(others.is_answered)
            for crowd_of, status, field in ((browsers, b"200", b"\nretry: "), (others, b"503", b"\nRetry-After: ")):
                assert len(crowd_of.refused) == 20
                for answer in crowd_of.received.values():
                    assert answer.startswith(b"HTTP/1.1 " + status)
                    assert field in answer
        assert "can open no more files" in server.log()
        until.touch()
        assert eventually(lambda: is_served(server))
        assert server.pid() == pid
        assert server.state()["refused"] >= 40
        server.fetch("/publish?text=hello")
        assert crowd.all_get("hello")
        assert not crowd.ended


def test_max_detached_can_not_promise_more_than_there_are_descriptors(start: Start) -> None:
    server = start(limited(GTHREAD, 256, OPTIONS=json.dumps({"max_detached": 5000})))
    with Crowd(server, 300) as crowd:
        assert crowd.wait(crowd.is_answered)
        assert 128 <= len(crowd.admitted) < 256
        assert server.state()["tiers"]["served"] == 0
    assert "max_detached=5000, and there are descriptors for 128" in server.log()
