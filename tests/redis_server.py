"""A real redis-server for tests: on a free port, in a directory of its own, ended by its process."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest


def lasting_port() -> int:
    """A port that is free, and that the system does not give to others while its server is down: neither to a server
    that asks for any port, nor to the near end of a connection, which may even be one to that very port."""
    while True:
        # A node of a Redis cluster needs one 10,000 higher as well.
        port = random.randrange(10_000, 22_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


#: Options of a server whose log outlives it: without fsync, which is for crashes of the machine.
KEEPING = ("--save", "", "--appendonly", "yes", "--appendfsync", "no")
#: Options of a server that keeps nothing but what it is told to save.
FORGETFUL = ("--save", "", "--appendonly", "no")


class RedisServer:
    """It runs inside a ``with`` block, or from :meth:`start` to :meth:`kill`, any number of times."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.port = lasting_port()
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        if shutil.which("redis-server") is None:
            if os.environ.get("CI") == "true":
                pytest.fail("redis-server is not installed")
            pytest.skip("redis-server is not installed (Debian: redis-server)")
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen([*command, *self.options], stdout=log, stderr=log)
        deadline = time.monotonic() + 90
        while not self._answers():
            assert self.process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=90) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(90)
            self.process = None
