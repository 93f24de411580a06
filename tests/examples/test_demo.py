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

from .started import EXAMPLES, QUICK, ROOT, environment, listens

DEMO = [sys.executable, str(EXAMPLES / "flask_chat" / "demo.py")]


def run(demo: list[str] = DEMO, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(demo, env=environment(**QUICK, **variables), capture_output=True, text=True, timeout=200)


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


def test_it_is_the_chat_that_make_demo_starts() -> None:
    assert "example_projects/flask_chat/demo.py\n" in (ROOT / "Makefile").read_text()


def test_the_demo_ends_by_itself_after_the_given_number_of_events() -> None:
    done = run(EVENTS="8")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    assert lines[0].split()[0] == "Open"
    assert lines[1].split() == ["here", "terminal"]
    # More events than the guide has messages: then it sends the time.
    assert [line.split()[1] for line in lines[2:]] == ["Guide"] * 7
    assert "\x1b" not in done.stdout  # it is no terminal
    assert not listens(port_in(done.stdout))


def test_its_files_are_gone_when_it_ends_and_those_in_a_folder_of_ones_own_stay(tmp_path: Path) -> None:
    temporary, folder = tmp_path / "temporary", tmp_path / "folder"
    temporary.mkdir()
    assert run(EVENTS="2", TMPDIR=str(temporary)).returncode == 0
    assert list(temporary.iterdir()) == []
    assert run(EVENTS="2", CHAT_FOLDER=str(folder)).returncode == 0
    assert {"chat.db", "events.db"} <= {path.name for path in folder.iterdir()}


def test_the_live_example_has_a_demo_of_its_own() -> None:
    done = run([sys.executable, str(EXAMPLES / "flask_live" / "demo.py")], EVENTS="3")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    assert [line.split()[0] for line in lines] == ["Open", "host", "sample", "sample"]
    assert not listens(port_in(done.stdout))


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_demo_takes_its_server_with_it_without_a_word(demo: subprocess.Popen[str], end: signal.Signals) -> None:
    assert demo.stdout is not None
    assert demo.stderr is not None
    output = ""
    while "the last message of the tour" not in output:
        line = demo.stdout.readline()
        assert line, demo.stderr.read()
        output += line
    port = port_in(output)
    servers = [process.pid for process in psutil.Process(demo.pid).children(recursive=True)]
    assert len(servers) == 3
    os.killpg(demo.pid, end)
    output, complaints = demo.communicate(timeout=200)
    assert (demo.returncode, complaints) == (0, "")
    assert output.endswith("Ended.\n")
    assert not [pid for pid in servers if psutil.pid_exists(pid)]
    assert not listens(port)


def test_a_port_that_is_in_use_is_reported() -> None:
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


def test_a_server_that_does_not_start_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run(CHAT_FOLDER=str(tmp_path / "file"))
    assert done.returncode == 1
    assert "FileExistsError" in done.stderr
    assert "The stream can't be read" in done.stderr
