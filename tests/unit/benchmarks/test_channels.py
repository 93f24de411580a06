"""The benchmark of channels counts rightly, and runs."""

from __future__ import annotations

import selectors
import socket
import subprocess
import sys
from array import array
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.channels import _wrong
from benchmarks.crowd import Subscriber

from .test_inputs import ROOT

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n"


def stream(*numbers: int) -> bytes:
    """Comments, events with fields before and after, one write each but for two that share one, cut in the middle."""
    events = [f"id: a-{number}\ndata: {number} 123 xxx\n\n".encode() for number in numbers]
    whole = b": hello\n\n" + b"".join(events)
    cut = len(whole) // 2
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (whole[:cut], whole[cut:]))


def read_on(subscriber: Subscriber, selector: selectors.BaseSelector, crowd: Any) -> None:
    while selector.select(20):
        subscriber.read(crowd)


def received(answer: bytes, size: int) -> Any:
    crowd: Any = SimpleNamespace(late=array("d"), received=0, disorder=0, last=0)
    with socket.create_server(("127.0.0.1", 0)) as listener, selectors.DefaultSelector() as selector:
        subscriber = Subscriber(listener.getsockname()[1])
        connection, _ = listener.accept()
        selector.register(subscriber.socket, selectors.EVENT_READ)
        with subscriber.socket, connection:
            for at in range(0, len(answer), size):
                connection.sendall(answer[at : at + size])
                if selector.select(20):
                    subscriber.read(crowd)
            connection.shutdown(socket.SHUT_WR)
            with pytest.raises(ConnectionError, match="ended"):
                read_on(subscriber, selector, crowd)
    crowd.warm = subscriber.warm
    return crowd


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_client_of_the_benchmark_finds_every_event_however_the_bytes_are_cut(size: int) -> None:
    crowd = received(HEAD + stream(*range(-2, 30)), size)
    assert (crowd.warm, crowd.received, crowd.disorder) == (True, 30, 0)
    assert len(crowd.late) == 30


def test_what_is_lost_doubled_or_late_is_counted() -> None:
    crowd = received(HEAD + stream(0, 1, 3, 3, 2, 4), 100_000)
    assert (crowd.received, crowd.disorder) == (4, 2)
    assert _wrong({"missing": 5 - crowd.received, "disorder": crowd.disorder}) == 3


def test_an_answer_that_is_no_stream_is_refused() -> None:
    with pytest.raises(ConnectionError, match="no stream"):
        received(b"HTTP/1.1 503 Service Unavailable\r\n\r\nno", 100_000)


def test_the_benchmark_runs_in_quick_mode_and_prints_its_tables() -> None:
    run: Any = subprocess.run(
        [sys.executable, "-m", "benchmarks.channels", "--quick", "--only", "ssesync, memory"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert any(line.startswith("  memory, 5 ") for line in lines)
    assert any(line.startswith("  SQLite, 5 ") for line in lines)
    assert any(line.startswith("  ssesync, memory, gthread ") for line in lines)
