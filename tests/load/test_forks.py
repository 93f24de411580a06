"""A process that forks while it holds streams: its children hold none of them, and none open."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from tests.apps.line import Line
from tests.live.frameworks.switchboard import Switchboard
from tests.servers import Kind

from .crowd import Crowd
from .lasting import GTHREAD_KIND, SYNC_KIND, WERKZEUG_KIND, Lasting, check_detached

Serve = Callable[..., Lasting]
Gather = Callable[..., Crowd]


def fork(server: Lasting, switchboard: Switchboard, how: str, ports: set[int]) -> tuple[Line, int]:
    """A child of the worker, which has none of the connections that come to these ports."""
    child = int(server.fetch(f"/fork?how={how}&line={switchboard.port}"))
    line = switchboard.answer()
    reply = line.hear()
    assert reply is not None
    assert reply["pid"] == child
    assert not ports & set(reply["peers"])
    return line, child


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        pytest.param(GTHREAD_KIND, "fork", id="gthread-fork"),
        pytest.param(SYNC_KIND, "multiprocessing", id="sync-multiprocessing"),
        pytest.param(WERKZEUG_KIND, "fork", id="werkzeug-fork"),
    ],
)
def test_a_forked_child_neither_writes_to_the_clients_nor_keeps_their_connections(
    kind: Kind, how: str, serve: Serve, crowd_of: Gather, switchboard: Switchboard
):
    server = serve(kind)
    crowd = crowd_of(server)
    crowd.gather(20, "/events?channel=all&key=ada", returns=False)
    crowd.gather(20, "/events?channel=all&key=bob", returns=False)
    ada, bob = crowd.clients[:20], crowd.clients[20:]
    check_detached(server, 40)
    line, child = fork(server, switchboard, how, {client.port for client in crowd.clients})
    with line:
        for order in ["drain", "exit handlers"]:
            line.say(do=order)
            reply = line.hear()
            assert reply is not None
            assert reply["done"]
            # Whatever the child did, the streams are its parent's.
            server.fetch(f"/publish?channel=all&first={'de'.index(order[0])}")
        crowd.until_all(lambda client: len(client.events) == 2, "the events came")
        assert all(client.data == ["all 0", "all 1"] for client in crowd.clients)
        check_detached(server, 40)
        # While the child lives, their ends come.
        server.fetch("/revoke?key=ada")
        crowd.until_all(lambda client: client.ends, "the streams ended", ada)
        assert all(client.ends[0].how in ("last chunk", "eof") for client in ada)
        check_detached(server, 20)
        [worker] = server.workers() if kind.name != "werkzeug" else [server.process.pid]
        os.kill(worker, signal.SIGKILL)
        crowd.until_all(lambda client: client.ends, "the connections ended", bob)
        os.kill(child, 0)


def test_streams_that_a_worker_detaches_after_its_child_are_its_own(
    serve: Serve, crowd_of: Gather, switchboard: Switchboard
):
    server = serve(GTHREAD_KIND)
    crowd = crowd_of(server)
    before = crowd.gather(10, "/events?channel=all&key=ada", returns=False)
    line, _ = fork(server, switchboard, "fork", {client.port for client in before})
    with line:
        after = crowd.gather(10, "/events?channel=all&key=ada", returns=False)
        check_detached(server, 20)
        server.fetch("/publish?channel=all&first=0")
        crowd.until_all(lambda client: client.data == ["all 0"], "the event came")
        server.signal(signal.SIGHUP)
        crowd.until_all(lambda client: client.ends, "the streams ended")
        assert all(client.ends[0].clean for client in before + after)
