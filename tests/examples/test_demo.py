"""The terminal demo, as `make demo` calls it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from .servers import EXAMPLES, QUICK, environment, listens, read

DEMO = [sys.executable, str(EXAMPLES / "flask_live" / "demo.py")]


def run(**variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(DEMO, env=environment(**QUICK, **variables), capture_output=True, text=True, timeout=50)


@pytest.fixture
def demo() -> Iterator[subprocess.Popen[str]]:
    """The demo without an end, in a process group of its own as in a terminal."""
    process = subprocess.Popen(
        DEMO,
        env=environment(**QUICK),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        yield process
        process.kill()


def port_in(text: str) -> int:
    found = re.search(r"http://127\.0\.0\.1:(\d+)/", text)
    assert found, text
    return int(found[1])


def test_the_demo_ends_by_itself_after_as_many_events_as_asked_for() -> None:
    done = run(EVENTS="3")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    assert [line.split()[0] for line in lines] == ["Open", "host", "sample", "sample"]
    assert not listens(port_in(done.stdout))


def test_what_is_no_terminal_is_not_sent_colours() -> None:
    assert "\x1b" not in run(EVENTS="2").stdout


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_demo_takes_its_server_with_it_without_a_word(demo: subprocess.Popen[str], end: signal.Signals) -> None:
    assert demo.stdout is not None
    assert demo.stderr is not None
    said = ""
    while "sample" not in said:
        line = demo.stdout.readline()
        assert line, demo.stderr.read()
        said += line
    port = port_in(said)
    with read(f"http://127.0.0.1:{port}/stats") as reader:
        sample = next(event for event in reader if event.type == "sample")
    servers = [process["pid"] for process in sample.json()["server"]]
    assert len(servers) == 2
    os.killpg(demo.pid, end)
    said, complaints = demo.communicate(timeout=30)
    assert (demo.returncode, complaints) == (0, "")
    assert said.endswith("Ended.\n")
    assert not [pid for pid in servers if psutil.pid_exists(pid)]
    assert not listens(port)


def test_a_port_that_is_taken_is_said_to_be() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(PORT=str(port))
    assert done.returncode == 1
    assert done.stderr.startswith(f"can't listen on port {port}: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["PORT", "EVENTS"])
def test_a_number_that_is_none_is_named(name: str) -> None:
    done = run(**{name: "many"})
    assert (done.returncode, done.stderr) == (1, f"{name} takes a number, got 'many'\n")


def test_a_server_that_does_not_start_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "psutil.py").write_text("raise ImportError('no statistics here')\n")
    environ = environment(**QUICK)
    environ["PYTHONPATH"] = os.pathsep.join([str(tmp_path), environ["PYTHONPATH"]])
    done = subprocess.run(DEMO, env=environ, capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert "no statistics here" in done.stderr
    assert "The stream can't be read" in done.stderr
