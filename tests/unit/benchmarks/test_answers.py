"""The benchmark of answers counts rightly, and runs."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import fanout_tools
from benchmarks.answers import draw, header, line
from benchmarks.answers_servers import SCENARIOS, Load, faults, is_late, percentile
from benchmarks.answers_upstream import SIZE, chunk

from .test_inputs import ROOT

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
WAIT = 30


@pytest.fixture(autouse=True)
def compiler() -> None:
    if reason := fanout_tools.compiled("answers_client")[1]:
        if os.environ.get("CI") == "true":
            pytest.fail(f"there must be {reason}")
        pytest.skip(f"there is no {reason} (Debian: gcc)")


class Scripted:
    """A server that does as the test says, with the load client's connections."""

    def __init__(self, clients: int, limit: float) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(WAIT)
        self.load = Load(self._listener.getsockname()[1], "/stream?rate=3", clients, 0.0, limit)
        self.connections = [self._accept() for _ in range(clients)]

    def _accept(self) -> socket.socket:
        connection, _ = self._listener.accept()
        connection.settimeout(WAIT)
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += connection.recv(4096)
        assert request.startswith(b"GET /stream?rate=3 HTTP/1.1\r\n")
        return connection

    def send(self, *streams: bytes) -> None:
        for connection, stream in zip(self.connections, streams, strict=True):
            connection.sendall(stream)

    def close(self) -> None:
        self.load.end()
        for each in (*self.connections, self._listener):
            each.close()


@contextlib.contextmanager
def scripted(clients: int, limit: float = WAIT) -> Iterator[Scripted]:
    server = Scripted(clients, limit)
    try:
        yield server
    finally:
        server.close()


def framed(stream: bytes, size: int) -> bytes:
    """The stream in chunks of a size."""
    pieces = (stream[at : at + size] for at in range(0, len(stream), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def event(number: int, end: str = "\n") -> bytes:
    return f": a comment{end}data: {number} {time.monotonic_ns()} xxx{end}{end}".encode()


def test_events_count_however_they_are_cut() -> None:
    cuts = [(size, end) for size in (1, 7, 1000) for end in ("\n", "\r\n")]
    with scripted(6) as server:
        server.send(*(HEAD + framed(event(0, end), size) for size, end in cuts))
        first = server.load.first_events()
        assert (first["clients"], first["begun"], first["refused"]) == (6, 6, 0)
        assert 0 < first["p50"] <= first["p99"] == first["most"]
        server.load.begin(1.0)
        server.send(*(framed(event(1, end) + event(2, end), size) for size, end in cuts))
        found = server.load.counted(1.0)
        assert found["events"] == 12
        assert found["seconds"] >= 1.0
        assert 0 < found["p50"] <= found["p99"] == found["most"]
        assert faults(first, [found]) == ""


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        pytest.param(event(2), "1 skipped", id="lost"),
        pytest.param(event(0), "1 skipped", id="twice"),
        pytest.param(b"data: nothing of ours\n\n", "1 corrupt", id="other data"),
        pytest.param(b"event: error\n", "1 corrupt", id="an error event"),
    ],
)
def test_what_a_stream_loses_is_a_fault(sent: bytes, kind: str) -> None:
    with scripted(1) as server:
        server.send(HEAD + framed(event(0), 1000))
        first = server.load.first_events()
        server.send(framed(sent, 1000))
        assert faults(first, [server.load.measure(0.1)]) == kind


@pytest.mark.parametrize("end", [b"0\r\n\r\n", b""])
def test_an_end_is_a_fault(end: bytes) -> None:
    with scripted(1) as server:
        server.send(HEAD + framed(event(0), 1000) + end)
        server.connections[0].close()
        first = server.load.first_events()
        assert faults(first, [server.load.measure(0.1)]) == "1 ended"


def test_a_client_that_is_refused_or_not_served_is_a_fault() -> None:
    with scripted(3, 0.3) as server:
        refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
        server.send(HEAD + framed(event(0), 1000), refusal, HEAD)
        first = server.load.first_events()
        assert faults(first, []) == "1 refused (HTTP/1.1 503 Service Unavailable), 1 without a first event"


def test_a_chunk_of_the_upstream_has_its_size() -> None:
    size, data, end = chunk(12345).split(b"\r\n")
    assert (int(size, 16), len(data), end) == (SIZE, SIZE, b"")
    assert data.startswith(b"data: 12345 ")
    assert data.endswith(b"x\n\n")


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentile([], 50) is None
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([3.0, 1.0, 2.0], 99) == 3.0
    assert percentile([float(number) for number in range(1, 101)], 99) == 99.0


def row(**others: Any) -> dict[str, Any]:
    figures = ("first_p50", "first_p99", "first_most", "cpu", "delay_p50", "delay_p99", "rss", "pss", "plain_p50")
    found: dict[str, Any] = {name: float(number) for number, name in enumerate(figures, 1)}
    return found | {"name": "a server", "faults": "", "late": False, "plain_p99": 7.0, "lag_p99": None} | others


def test_a_row_with_faults_has_no_figures() -> None:
    assert line(row(faults="1 ended")).split() == ["a", "server", "1", "ended"]
    assert " ".join(line(row(cpu=1234.5)).split()) == "a server 1 2 3 1,234 5.0 6.0 7.0 8.0 9.0 7.0"
    assert line(row(late=True)).endswith("LATE")
    assert "1,000 relays, 10 chunks a second" in header(SCENARIOS["plain"], 1000)


def test_too_few_events_are_late() -> None:
    assert not is_late({"events": 95.0}, 10, 10)
    assert is_late({"events": 89.0}, 10, 10)


def test_the_chart_has_the_rows_of_the_most_clients() -> None:
    rows = [row(name=name, clients=clients, scenario="relays") for name in ("one", "two") for clients in (1, 2)]
    rows += [row(name="broken", clients=2, scenario="relays", faults="1 ended")]
    drawn = draw({"rows": rows, "about": ["a machine"]}, "relays")
    texts = [element.text for element in ElementTree.fromstring(drawn).iter() if element.text]
    assert {"2 relays, one process", "one", "two"} <= set(texts)
    assert "broken" not in texts


@pytest.mark.slow
def test_the_benchmark_runs_and_prints_its_tables(tmp_path: Path) -> None:
    figures, chart = tmp_path / "figures.json", tmp_path / "chart.svg"
    command = [sys.executable, "-m", "benchmarks.answers", "--clients", "3", "1000000000", "--seconds", "0.5"]
    command += ["--kinds", "quick", "tls", "--only", "detached, sync", "--json", str(figures), "--chart", str(chart)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "left out: 1,000,000,000 clients" in run.stdout
    rows = json.loads(figures.read_text())["rows"]
    assert [(each["name"], each["clients"], each["faults"]) for each in rows] == [("ssesync detached, sync", 3, "")] * 2
    assert all(each["events"] > 0 and each["first_p99"] > 0 for each in rows)
    assert "ssesync detached, sync" in chart.read_text()
