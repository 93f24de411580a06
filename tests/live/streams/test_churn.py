"""However often clients come and go, nothing of them stays."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.servers import Kind, Server, Wire, eventually

from .kinds import FIRST, OPENING, gunicorn, path

GTHREAD = Kind("gthread", gunicorn("--worker-class", "gthread", "--threads", "16"))
GEVENT = Kind("gevent", gunicorn("--worker-class", "gevent"))
SECONDS = 8.0


def settled(server: Server, before: dict[str, Any]) -> dict[str, Any]:
    """What the process holds when all that is to go has gone; the pool's threads may have become more."""
    state: dict[str, Any] = {}

    def gone() -> bool:
        state.update(server.state())
        return not state["streams"] and excess(state, before) == [] and state["descriptors"] <= before["descriptors"]

    eventually(gone)
    return state


def excess(state: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """The threads that were not there before; the server's own are counted elsewhere, those of the executor are few."""
    more = list(state["threads"])
    for name in before["threads"]:
        if name in more:
            more.remove(name)
    return [name for name in more if not name.startswith(("ThreadPoolExecutor", "ssesync-reactor", "ssesync-caller"))]


def test_200_clients_that_connect_and_drop_leave_no_thread_and_no_descriptor(serve: Callable[..., Server]):
    server = serve(GTHREAD)
    options = {"keep_alive": 60, "max_streams": None}

    def cycle(number: int) -> None:
        wire, response = server.open(path(do="idle", options=options))
        response.expect(OPENING + FIRST)
        (wire.fin, wire.rst)[number % 2]()

    # So that the pool has all of its threads, and the process its reactor.
    for number in range(20):
        cycle(number)
    assert eventually(lambda: not server.state()["streams"])
    before = server.state()
    for number in range(200):
        cycle(number)
    after = settled(server, before)
    assert after["descriptors"] <= before["descriptors"]
    assert excess(after, before) == []
    assert after["tasks"] <= before["tasks"] + 16 - sum(name.startswith("ThreadPool") for name in before["threads"])
    assert after["opened"] == 220
    assert after["closed"] == {"client_gone": 220}


class Client(threading.Thread):
    """Opens streams and leaves them in every way there is, until the time is over."""

    def __init__(self, server: Server, seed: int, over: threading.Event) -> None:
        super().__init__(name=f"client {seed}")
        self._server = server
        self._dice = random.Random(seed)
        self._over = over
        self.cycles = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._over.is_set():
                self._cycle()
                self.cycles += 1
        except BaseException as error:
            self.error = error

    def _cycle(self) -> None:
        place = self._dice.choice(["/stream", "/stream", "/flask/stream"])
        options = {"keep_alive": 0.05, "max_streams": None, "send_timeout": 0.5, "first_event_timeout": 0}
        if self._dice.random() < 0.2:
            options["max_lifetime"] = 0.3
        target = path(place, do="chaos", seed=self._dice.randrange(10**6), options=options)
        wire = self._server.connect(receive_buffer=self._dice.choice([None, 4_096]))
        with wire:
            if self._dice.random() < 0.1:
                # Gone before there is an answer.
                wire.socket.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                self._leave(wire)
                return
            # 500 where the producer failed before the answer had begun.
            assert wire.get(target, Connection="close").status in (200, 500)
            what = self._dice.random()
            if what < 0.3:
                self._read(wire, pause=0)
            elif what < 0.6:
                self._read(wire, pause=0.01)
            else:
                # Some of them read nothing for longer than send_timeout.
                self._over.wait(self._dice.choice([0, 0.01, 0.2, 2.0]))
            self._leave(wire)

    def _read(self, wire: Wire, pause: float) -> None:
        for _ in range(self._dice.randrange(50)):
            try:
                if not wire.receive():
                    return
            except ConnectionResetError:
                return  # cut off as stalled
            if pause:
                self._over.wait(pause)

    def _leave(self, wire: Wire) -> None:
        what = self._dice.random()
        if what < 0.4:
            wire.rst()
        elif what < 0.6:
            try:
                wire.half_close()
                while wire.receive():
                    pass
            except OSError:
                pass  # cut off already
        else:
            wire.fin()


@pytest.mark.parametrize("kind", [GTHREAD, GEVENT], ids=lambda kind: kind.name)
def test_random_ends_leak_no_resources_and_every_stream_is_counted(serve: Callable[..., Server], kind: Kind):
    # The kernel would otherwise take all that these streams send.
    server = serve(kind, send_buffer=16_384)
    for _ in range(16):
        wire, response = server.open(path(do="idle", options={"max_streams": None}))
        response.expect(OPENING + FIRST)
        wire.fin()
    server.fetch(path("/flask/stream", do="chaos", seed=1))
    assert eventually(lambda: not server.state()["streams"])
    before = server.state()
    over = threading.Event()
    clients = [Client(server, seed, over) for seed in range(12)]
    for client in clients:
        client.start()
    over.wait(SECONDS)
    over.set()
    for client in clients:
        client.join()
        assert client.error is None, repr(client.error)
    after = settled(server, before)
    cycles = sum(client.cycles for client in clients)
    assert cycles > 50
    assert after["streams"] == []
    assert after["opened"] == sum(after["closed"].values())
    # Those who left before the answer may not have come to be a stream.
    assert 0.7 * cycles <= after["opened"] - before["opened"] <= cycles
    assert after["refused"] == 0
    assert {"client_gone", "done", "error"} <= set(after["closed"])
    assert set(after["closed"]) <= {"client_gone", "done", "error", "lifetime", "stalled"}
    assert after["contexts"] == before["contexts"] == 0
    assert after["descriptors"] <= before["descriptors"]
    assert excess(after, before) == []
