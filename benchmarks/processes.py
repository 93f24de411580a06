"""Processes of a benchmark: a server under test, what is talked to line by line; each ended by its id."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, TypeVar

#: Seconds within which a server listens.
START = 60.0

_Work = TypeVar("_Work", bound="AtWork")


class Process:
    """A process that is talked to line by line."""

    def __init__(self, command: list[str], environ: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environ or {})}
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._lines.put(line.strip())
        self._lines.put("")

    def say(self, line: str) -> None:
        """Send a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self, timeout: float) -> str | None:
        """The next line, ``None`` if none comes in time."""
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            return None
        if not line:
            raise RuntimeError(f"{self.process.args} has ended")
        return line

    def must_hear(self, timeout: float) -> str:
        """The next line."""
        line = self.hear(timeout)
        if line is None:
            raise RuntimeError(f"{self.process.args} says nothing")
        return line

    def end(self) -> None:
        """Close its standard input, and see to it that it ends."""
        with contextlib.suppress(OSError):
            if self.process.stdin is not None:
                self.process.stdin.close()
        stop(self.process)


def stop(process: subprocess.Popen[Any]) -> None:
    """End a process."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.terminate()
        process.wait(10)
        return
    for child in tree_of(process.pid)[1:]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, 9)
    process.kill()
    process.wait(10)


def free_port() -> int:
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[Any]) -> None:
    """Wait until a server listens on the port."""
    deadline = time.monotonic() + START
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args} does not listen")


def tree_of(pid: int) -> list[int]:
    """A process and its children."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += tree_of(int(child))
    return found


class AtWork:
    """A server under test, and the last of what it has complained of."""

    def __init__(self, name: str, command: list[str], environ: dict[str, str]) -> None:
        self._name = name
        self._errors: list[bytes] = []
        self.server = subprocess.Popen(
            command, env={**os.environ, **environ}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        self._drainer = threading.Thread(target=self._drain, daemon=True)
        self._drainer.start()

    def _drain(self) -> None:
        assert self.server.stderr is not None
        with self.server.stderr as lines:
            for line in lines:
                self._errors = [*self._errors[-20:], line]

    def _begin(self) -> None:
        """Until all is ready to be measured."""
        raise NotImplementedError

    def __enter__(self: _Work) -> _Work:
        try:
            self._begin()
        except BaseException as error:
            self.__exit__()
            said = b"".join(self._errors).decode(errors="replace")
            raise RuntimeError(f"{self._name}: {error}\n{said}") from error
        return self

    def __exit__(self, *exc_info: object) -> None:
        stop(self.server)
        self._drainer.join(START)
