"""The benchmark of fan-out counts rightly, and runs."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import fanout_servers, fanout_tools
from benchmarks.fanout import summary, table
from benchmarks.fanout_servers import FLOOR, Arena, Load, faults

from .test_inputs import ROOT

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
WAIT = 30
ALL_RIGHT = dict.fromkeys(("missing", "disorder", "stray", "corrupt", "ended"), 0)


def data(number: int, *, sent: int = 77) -> str:
    return f"{number} {sent} ".ljust(200, "x")


def event(number: int, *, sent: int = 77) -> bytes:
    return f"data: {data(number, sent=sent)}\n\n".encode()


def chunk(block: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(block), block)


def events(*numbers: int) -> bytes:
    return b"".join(chunk(event(number)) for number in numbers)


def compiler_or_skip() -> None:
    for program in ("fanout_client", "fanout_floor"):
        if reason := fanout_tools.compiled(program)[1]:
            if os.environ.get("CI") == "true":
                pytest.fail(f"there must be {reason}")
            pytest.skip(f"there is no {reason} (Debian: gcc)")


@pytest.fixture(params=["c", "python"])
def language(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both load clients and both floors, of which the second are for machines without a compiler."""
    if request.param == "c":
        compiler_or_skip()
    else:
        monkeypatch.setattr(fanout_servers, "compiled", lambda name: (None, "a C compiler"))
    return str(request.param)


class Scripted:
    """A server that does as the test says, with the load client connected to it."""

    def __init__(self, clients: int, head: bytes = HEAD) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(WAIT)
        self.load = Load(self.listener.getsockname()[1], clients)
        self.connections = []
        for _ in range(clients):
            connection, _ = self.listener.accept()
            self.connections.append(connection)
            connection.settimeout(WAIT)
            request_head = b""
            while not request_head.endswith(b"\r\n\r\n"):
                request_head += connection.recv(4096)
            assert request_head.startswith(b"GET /events HTTP/1.1\r\n")
            connection.sendall(head)

    def hear(self) -> dict[str, Any]:
        return self.load.answer(WAIT)

    def expect(self, first: int, count: int, seconds: float = WAIT) -> None:
        self.load.say(f"expect {first} {count} {seconds}")
        assert self.hear() == {"armed": True}

    def close(self) -> None:
        self.load.end()
        for each in (*self.connections, self.listener):
            each.close()


@contextlib.contextmanager
def scripted(clients: int = 2, head: bytes = HEAD) -> Iterator[Scripted]:
    server = Scripted(clients, head)
    try:
        yield server
    finally:
        server.close()


def outcome(found: dict[str, Any]) -> dict[str, int]:
    return {name: found[name] for name in ALL_RIGHT}


def test_every_event_counts_however_a_server_writes_and_cuts_it(language: str) -> None:
    other = [f"id: {n}\r\nevent: message\r\ndata:{data(n)}\r\n\r\n: ping\r\n\r\n".encode() for n in range(4)]
    streams = [b":ok\n\n" + b"".join(map(event, range(4))), b"retry: 5\r\n\r\n" + b"".join(other)]
    with scripted(2) as server:
        assert server.hear()["connected"] == 2
        for size in (1, 7, 400, 100_000):
            server.expect(0, 4)
            for connection, stream in zip(server.connections, streams, strict=True):
                framed = b"".join(chunk(stream[at : at + size]) for at in range(0, len(stream), size))
                for at in range(0, len(framed), size * 3):
                    connection.sendall(framed[at : at + size * 3])
            found = server.hear()
            assert (found["received"], outcome(found), faults(found)) == (8, ALL_RIGHT, "")
            assert found["sent"] == 77
            assert 0 < found["first"] <= found["last"]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param(events(0, 1, 3), {"missing": 1}, id="lost"),
        pytest.param(events(0, 1, 1, 2), {"missing": 1, "disorder": 1}, id="twice"),
        pytest.param(events(0, 2, 1, 3), {"missing": 1, "disorder": 1}, id="out of order"),
        pytest.param(events(0, 1, 2) + chunk(event(3, sent=78)), {"missing": 1, "corrupt": 1}, id="other bytes"),
        pytest.param(events(0, 1, 2) + chunk(event(3)[:-3] + b"\n\n"), {"missing": 1, "corrupt": 1}, id="shorter"),
        pytest.param(events(0, 1, 2) + chunk(b"nothing\n\n"), {"missing": 1, "corrupt": 1}, id="no event"),
        pytest.param(events(0, 1, 99, 2), {"missing": 1, "stray": 1}, id="not expected"),
    ],
)
def test_lost_and_wrong_events_of_one_client_are_reported(language: str, sent: bytes, expected: dict[str, int]) -> None:
    with scripted(2) as server:
        server.hear()
        server.expect(0, 4)
        server.connections[0].sendall(events(0, 1, 2, 3))
        server.connections[1].sendall(sent)
        # An answer comes at once where all streams have ended.
        for connection in server.connections:
            connection.sendall(b"0\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
        found = server.hear()
        assert outcome(found) == ALL_RIGHT | {"ended": 2} | expected
        assert faults(found)


def test_missing_events_are_reported_after_the_timeout(language: str) -> None:
    with scripted(1) as server:
        server.hear()
        server.expect(0, 1, 0.3)
        assert outcome(server.hear()) == ALL_RIGHT | {"missing": 1}


def test_events_after_the_expected_ones_are_reported_with_the_next_answer(language: str) -> None:
    with scripted(1) as server:
        server.hear()
        server.expect(0, 2)
        server.connections[0].sendall(events(0, 1, 1))
        first = server.hear()
        server.expect(2, 0, 0.2)
        second = server.hear()
        assert first["missing"] == 0
        # The third may have come with the second, or by itself.
        assert {first["disorder"] + first["stray"], second["stray"]} == {0, 1}


@pytest.mark.parametrize(
    ("head", "stream"),
    [
        pytest.param(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", b"", id="refused"),
        pytest.param(HEAD.replace(b"Transfer-Encoding: chunked\r\n", b""), b"", id="not chunked"),
        pytest.param(HEAD, b"zz\r\n", id="no size"),
        pytest.param(HEAD, b"4\r\n:ok\nmore", id="more than the size"),
    ],
)
def test_an_answer_that_cannot_be_counted_is_an_error(language: str, head: bytes, stream: bytes) -> None:
    with scripted(1, head) as server:
        if stream:
            server.hear()
            server.connections[0].sendall(stream)
        assert "error" in server.hear()


def test_the_floor_brings_every_event_to_every_client(language: str) -> None:
    with Arena(FLOOR, 3) as arena:
        for count in (1, 10):
            found = arena.measure(count)
            assert found["faults"] == ""
            assert found["late"] >= found["spread"] >= 0
        arena.spin(True)
        arena.spin(False)
        assert arena.strays(0.1) == ""


def measured(late: float, *, faults: str = "") -> dict[str, Any]:
    figures = {"spread": late / 2, "late": late, "rate": 1e3 / late, "cpu": 1.0, "client_cpu": 1.0, "bytes": 214.0}
    return {**figures, "faults": faults}


def meeting(own: list[float], floor: list[float], **others: Any) -> dict[str, Any]:
    size = {"rss": 2.0, "largest": 1.0, "pss": 1.5, "peak": 3.0}
    found = {"connects": 5.0, "connect_cpu": 1.0, "idle": size, "full": size, "after": size, "strays": ""}
    for kind in ("one", "burst"):
        found |= {kind: list(map(measured, own)), f"floor_{kind}": list(map(measured, floor))}
    return found | others


def test_ratios_are_those_of_single_turns() -> None:
    # The machine was busy in the last turn of both.
    result = summary([meeting([12.0, 13.0], [10.0, 10.0]), meeting([120.0], [100.0])])
    assert result["faults"] == ""
    assert result["rounds"] == 2
    assert result["one_late"] == 13.0
    assert result["one_late_ratio"] == pytest.approx(1.2)
    assert result["one_late_best_ratio"] == pytest.approx(1.2)
    assert result["one_late_range"] == [12.0, 120.0]


@pytest.mark.parametrize(
    "others",
    [
        {"strays": "1 stray"},
        {"burst": [measured(1.0, faults="1 missing")]},
        {"one": [measured(1.0, faults="1 corrupt")]},
    ],
)
def test_what_loses_or_doubles_an_event_has_no_figures(others: dict[str, Any]) -> None:
    result = summary([meeting([12.0], [10.0]), meeting([12.0], [10.0], **others)])
    assert set(result) == {"faults", "rounds"}
    shown = table(10, {"careless": result})
    assert result["faults"] in shown
    assert "12.0" not in shown


def test_the_benchmark_runs_prints_its_table_and_draws_its_chart(tmp_path: Path) -> None:
    compiler_or_skip()
    figures, chart = tmp_path / "figures.json", tmp_path / "chart.svg"
    command = [sys.executable, "-m", "benchmarks.fanout", "--clients", "5", "1000000000", "--rounds", "1", "--quick"]
    command += ["--only", "once an event", "detached, gthread", "--json", str(figures), "--chart", str(chart)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "left out: 1,000,000,000 clients" in run.stdout
    names = ["send loop", "send loop, once an event", "ssesync detached, gthread"]
    rows = json.loads(figures.read_text())["rows"]
    assert [row["name"] for row in rows] == names
    assert all(row["clients"] == 5 and not row["faults"] and row["one_late"] > 0 for row in rows)
    assert all(f"  {name} " in run.stdout for name in names)
    drawn = [element.text for element in ElementTree.fromstring(chart.read_text()).iter() if element.text]
    assert set(names) <= set(drawn)
