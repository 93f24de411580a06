"""Gateways on four threads: more relays than threads, and each end of one among them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.http_client import Connection, Response
from tests.live.frameworks.kinds import Kind, Server
from tests.servers import GTHREAD, SYNC, eventually, gunicorn
from tests.unit.detached.upstreams import FIN, HOLD, TIMEOUT, RawUpstream

RELAYS = 200
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
REFUSED = b"HTTP/1.1 429 Too Many\r\nContent-Type: text/plain\r\nRetry-After: 7\r\nContent-Length: 5\r\n\r\nlater"
EVENT = b"9\r\ndata: x\n\n\r\n"


def gateway(upstream: str, *worker: str, **more: str) -> Kind:
    given = {"CHAIN_ROLE": "flask", "CHAIN_UPSTREAM": upstream.rstrip("/"), **more}
    variables = [word for name, value in given.items() for word in ("--env", f"{name}={value}")]
    return Kind("gateway", gunicorn(*worker, *variables, app="chain"), apps=("chain",))


def begun(server: Server, path: str = "/many") -> tuple[Connection, Response]:
    """A client that has the head of its answer."""
    connection = Connection(server.port)
    response = connection.get(path)
    assert response.status == 200
    return connection, response


def until(response: Response, text: bytes) -> bytes:
    received = b""
    while text not in received:
        assert (piece := response.piece()), received  # noqa: RUF018
        received += piece
    return received


def own(server: Server) -> dict[str, Any]:
    with Connection(server.port) as connection:
        held: dict[str, Any] = json.loads(connection.get("/own").read())
        return held


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(upstream: str, *worker: str, **variables: str) -> Server:
            folder = tmp_path / str(len(list(tmp_path.iterdir())))
            folder.mkdir()
            server = Server(gateway(upstream, *worker, **variables), folder)
            stack.callback(server.stop)
            return server

        yield start


@pytest.mark.parametrize("worker", [GTHREAD, SYNC], ids=["gthread", "sync"])
def test_more_clients_than_threads_have_their_first_event_and_take_no_thread(
    worker: tuple[str, ...], start: Callable[..., Server]
) -> None:
    with RawUpstream(lambda: [HEAD + EVENT, HOLD]) as upstream:
        server = start(upstream.url, *worker)
        before = own(server)
        clients = [begun(server) for _ in range(RELAYS)]
        for _, response in clients:
            until(response, b"data: x\n\n")
        held = own(server)
        assert [stream["tier"] for stream in held["streams"]["streams"]] == RELAYS * ["detached"]
        assert held["threads"] < before["threads"] + 10
        assert held["descriptors"] <= before["descriptors"] + 2 * RELAYS + 10
        for connection, _ in clients:
            connection.close()
        for _ in clients:
            assert upstream.left.acquire(timeout=TIMEOUT)
        assert eventually(lambda: not own(server)["streams"]["streams"])
        assert own(server)["descriptors"] <= before["descriptors"] + 10


def test_through_two_gateways_a_client_that_leaves_ends_the_upstream(start: Callable[..., Server]) -> None:
    with RawUpstream(lambda: [HEAD + EVENT, HOLD]) as upstream:
        inner = start(upstream.url, *GTHREAD)
        outer = start(f"http://127.0.0.1:{inner.port}", *GTHREAD)
        clients = [begun(outer) for _ in range(50)]
        for _, response in clients:
            until(response, b"data: x\n\n")
        assert not upstream.left.acquire(blocking=False)
        for connection, _ in clients:
            connection.close()
        for _ in clients:
            assert upstream.left.acquire(timeout=TIMEOUT)
        for server in (inner, outer):
            assert eventually(lambda server=server: not own(server)["streams"]["streams"])
            assert own(server)["streams"]["closed"] == {"client_gone": 50}
            assert "Traceback" not in server.log()


def test_of_upstreams_that_break_off_clients_see_no_whole_answer(start: Callable[..., Server]) -> None:
    go = threading.Event()
    with RawUpstream(lambda: [HEAD + EVENT, lambda: go.wait(TIMEOUT), b"9\r\ndata", FIN]) as upstream:
        server = start(upstream.url, *GTHREAD)
        clients = [begun(server) for _ in range(20)]
        for _, response in clients:
            until(response, b"data: x\n\n")
        go.set()
        for connection, response in clients:
            assert b"event: error\n" in response.read_broken()
            connection.close()
        assert eventually(lambda: own(server)["streams"]["closed"] == {"error": 20})


def test_a_gateway_that_stops_ends_its_relays_and_their_upstreams(start: Callable[..., Server]) -> None:
    with RawUpstream(lambda: [HEAD + b"f\r\nid: 1\ndata: x\n\n\r\n", HOLD]) as upstream:
        server = start(upstream.url, *GTHREAD)
        clients = [begun(server) for _ in range(20)]
        for _, response in clients:
            until(response, b"data: x\n\n")
        server.stop()
        for connection, response in clients:
            assert response.read().startswith(b"retry: ")  # they have an ID to come back with
            connection.close()
        for _ in clients:
            assert upstream.left.acquire(timeout=TIMEOUT)


def test_upstreams_that_take_their_time_hold_no_thread_and_a_refusal_arrives(start: Callable[..., Server]) -> None:
    go, answers = threading.Event(), iter([[HEAD + EVENT, HOLD]] * 60 + [[REFUSED]])
    with RawUpstream(lambda: [lambda: go.wait(TIMEOUT), *next(answers)]) as upstream:
        server = start(upstream.url, *GTHREAD, CHAIN_ASKS_LATER="1")
        connections = [Connection(server.port) for _ in range(60)]
        for connection in connections:
            connection.socket.sendall(b"GET /many HTTP/1.1\r\nHost: x\r\n\r\n")
        assert eventually(lambda: len(own(server)["streams"]["streams"]) == 60)  # and its threads answer
        assert {stream["tier"] for stream in own(server)["streams"]["streams"]} == {"detached"}
        go.set()
        for connection in connections:
            response = Response(connection, "GET")
            assert response.status == 200
            until(response, b"data: x\n\n")
        with Connection(server.port) as connection:
            refused = connection.get("/many")
            assert (refused.status, refused.header("retry-after")) == (429, "7")
            assert refused.read() == b"later"
        for connection in connections:
            connection.close()
        for _ in connections:
            assert upstream.left.acquire(timeout=TIMEOUT)
        assert "Traceback" not in server.log()
