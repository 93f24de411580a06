"""The clients of the benchmark of deploys count rightly, and its chart has a panel for each way."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.deploys_chart import draw

from .test_inputs import ROOT

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
WAIT = 30


def event(number: int, *, sent: int = 77, event_id: str = "", channel: str = "c") -> bytes:
    return f"id: {event_id or number}\ndata: {channel} {number} {sent} xxx\n\n".encode()


def chunk(block: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(block), block)


class Driven:
    """The clients, and the connections that they make to this process."""

    def __init__(self, *kinds: str) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(WAIT)
        port = self._listener.getsockname()[1]
        command = [sys.executable, "-m", "benchmarks.deploys_client", str(port), *kinds, "--channels", "c"]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
        )

    def accept(self, head: bytes = HEAD) -> tuple[socket.socket, str]:
        """The next connection, answered with a head, and its request."""
        connection, _ = self._listener.accept()
        connection.settimeout(WAIT)
        request = b""
        while b"\r\n\r\n" not in request:
            request += connection.recv(4096)
        connection.sendall(head)
        return connection, request.decode()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def ask(self, command: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        self._process.communicate(timeout=WAIT)
        self._listener.close()


@contextlib.contextmanager
def driven(*kinds: str) -> Iterator[Driven]:
    clients = Driven(*kinds)
    try:
        yield clients
    finally:
        clients.close()


def counted(report: dict[str, Any], *names: str) -> dict[str, int]:
    return {name: report.get(name, 0) for name in names}


def test_events_count_once_and_in_order_however_they_are_cut() -> None:
    with driven("normal=2") as clients:
        connections = [clients.accept()[0] for _ in range(2)]
        assert clients.answer()["connected"] == 2
        stream = chunk(b"retry: 50\n\n" + event(1)) + chunk(event(2) + event(3)) + chunk(event(4))
        connections[0].sendall(stream)
        for at in range(len(stream)):
            connections[1].sendall(stream[at : at + 1])
        report = clients.ask("reach 4 20")
        assert counted(report, "received", "missing", "repeated", "corrupt", "behind") == {
            "received": 8, "missing": 0, "repeated": 0, "corrupt": 0, "behind": 0,
        }  # fmt: skip
        for connection in connections:
            connection.sendall(chunk(event(6)) + chunk(event(6)) + chunk(event(7)))
        report = clients.ask("reach 7 20")
        assert counted(report, "received", "missing", "repeated") == {"received": 4, "missing": 2, "repeated": 2}
        assert sum(clients.ask("arrivals").values()) >= 8
        for connection in connections:
            connection.close()


@pytest.mark.parametrize(
    "sent", [event(5, sent=78), event(5, event_id="x"), event(5, channel="d"), b"data: c five 77 x\n\n"]
)
def test_what_is_not_the_same_for_all_is_corrupt(sent: bytes) -> None:
    with driven("normal=2") as clients:
        connections = [clients.accept()[0] for _ in range(2)]
        clients.answer()
        for connection, block in zip(connections, [event(5), sent], strict=True):
            connection.sendall(chunk(block) + chunk(event(6)))
        report = clients.ask("reach 6 20")
        assert counted(report, "behind", "corrupt") == {"behind": 0, "corrupt": 1}
        for connection in connections:
            connection.close()


def test_each_way_of_ending_a_stream_is_counted_and_the_client_comes_back_with_its_id() -> None:
    with driven("normal=1") as clients:
        connection, request = clients.accept()
        assert "Last-Event-ID" not in request
        clients.answer()
        ends = {"ended": LAST, "fin": b"", "reset": b"", "turned away": LAST}
        for number, (how, last) in enumerate(ends.items(), 1):
            if how != "turned away":
                connection.sendall(chunk(b"retry: 20\n\n" + event(number)))
                assert clients.ask(f"reach {number} 20")["behind"] == 0
            if how == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(last)
            connection.close()
            connection, request = clients.accept()
            assert f"Last-Event-ID: {min(number, 3)}\r\n" in request
            report = clients.ask("report")
            assert counted(report, *ends) == {name: int(name == how) for name in ends}
        connection.close()


def test_requests_without_an_answer_are_counted_and_sent_again() -> None:
    with driven("normal=1", "plain=1") as clients:
        counts: dict[str, int] = {}
        heads = {"stream": [b"HTTP/1.1 503 No\r\n\r\n", b"", HEAD], "plain": [b"", b"HTTP/1.1 200 OK\r\n\r\nplain"]}
        kept = []
        while any(heads.values()):
            connection, request = clients.accept(b"")
            kind = "plain" if "/plain" in request else "stream"
            if heads[kind]:
                connection.sendall(head := heads[kind].pop(0))
                if head is HEAD:
                    kept.append(connection)
                    continue
            connection.close()
        clients.answer()
        counts = clients.ask("report")
        assert counted(counts, "opened", "plain", "answered 503", "no answer, fin") == {
            "opened": 1, "plain": 1, "answered 503": 1, "no answer, fin": 1,
        }  # fmt: skip
        assert counts["plain answered nothing"] >= 1
        for connection in kept:
            connection.close()


def test_the_chart_has_a_panel_for_each_way() -> None:
    deploy = {"counts": [10, 0, 30], "before": 1, "seconds": 0.1, "ends": 7}
    image = draw(
        {"about": "a <machine>", "clients": 5000, "rate": 20.0,
         "deploys": {"nothing": deploy, "keeper": {**deploy, "ends": 0}}}
    )  # fmt: skip
    texts = [each.text or "" for each in ElementTree.fromstring(image).iter("{http://www.w3.org/2000/svg}text")]
    assert any("7 streams ended" in text for text in texts)
    assert any("no stream ended" in text for text in texts)
    assert any("5,000 clients" in text for text in texts)
