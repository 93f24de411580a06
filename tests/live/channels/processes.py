"""What runs as processes of their own: gunicorn, which can be killed and started again on its port, and publishers."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.redis_server import lasting_port
from tests.servers import HOOKS, ROOT, children_of, place_of

#: Seconds until what should happen makes the test fail.
TIMEOUT = 90.0


def await_that(condition: Callable[[], object], what: str, within: float = TIMEOUT) -> None:
    """Wait for something, and fail if it does not happen."""
    deadline, pause = time.monotonic() + within, 0.01
    while not condition():
        assert time.monotonic() < deadline, f"this did not happen: {what}"
        time.sleep(pause)
        pause = min(0.05, 1.2 * pause)  # what takes long is often costly to look at


class Gunicorn:
    """A gunicorn of several workers, with the hooks of the library, on a port that it keeps."""

    #: The folder that it is started in.
    cwd = ROOT

    def __init__(
        self,
        folder: Path,
        broker: str,
        *options: str,
        app: str = "flask_app.events",
        environment: dict[str, str] | None = None,
        **sockopts: int,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.broker = broker
        self.refused = folder / "refused"
        self.refused.mkdir(exist_ok=True)
        self._options = options
        self._app = app
        self._environment = environment or {}
        self._sockopts = sockopts
        self.port = lasting_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> Gunicorn:
        with contextlib.ExitStack() as stack:
            command = [
                sys.executable, "-m", "gunicorn", "--config", str(ROOT / HOOKS), "--threads", "32",
                *self._options,
            ]  # fmt: skip
            bind, descriptors = f"127.0.0.1:{self.port}", []
            if self._sockopts:
                listener = stack.enter_context(socket.create_server(("127.0.0.1", self.port), backlog=128))
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._sockopts["send_buffer"])
                descriptors = [listener.fileno()]
                bind = f"fd://{listener.fileno()}"
            log = stack.enter_context((self.folder / "log").open("ab"))
            self.process = subprocess.Popen(
                [*command, "--bind", bind, place_of(self._app)],
                cwd=self.cwd,
                env=os.environ
                | {
                    "PYTHONPATH": str(ROOT),
                    "PYTHONUNBUFFERED": "1",
                    "TESTS_BROKER": self.broker,
                    "TESTS_REFUSED": str(self.refused),
                    # Clients come back as soon as they may.
                    "OPTIONS": json.dumps({"retry": 100, "patience": 1.0}),
                    **self._environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=descriptors,
            )
        await_that(self._answers, f"gunicorn answers:\n{self.log()}")
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        with contextlib.suppress(OSError):
            return self.fetch("/plain") == b"plain"
        return False

    def url(self, path: str = "/events") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def fetch(self, path: str, *, post: bool = False) -> bytes:
        request = urllib.request.Request(self.url(path), data=b"" if post else None)
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            data: bytes = response.read()
            return data

    def state(self) -> dict[str, Any]:
        """What the worker that answers holds."""
        state: dict[str, Any] = json.loads(self.fetch("/state"))
        return state

    def workers(self) -> list[int]:
        return children_of(self.pid)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def begin_to_stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        process = self.process
        if process is None:
            return
        if process.poll() is None:
            self.begin_to_stop()
            try:
                process.wait(90)
            except subprocess.TimeoutExpired:
                self.crash()
        process.wait()

    def crash(self) -> None:
        """End all of its processes at once."""
        assert self.process is not None
        processes = [psutil.Process(self.pid), *psutil.Process(self.pid).children()]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes[1:], 20)
        self.process.wait()


class Publisher:
    """A process that publishes, and what it says was published: ``(id, data)`` in order."""

    def __init__(self, folder: Path, broker: str, *arguments: str) -> None:
        self._output = folder / f"published-{random.getrandbits(64):x}"
        with self._output.open("wb") as output, (folder / "publisher.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.live.channels.publisher", broker, *arguments],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=log,
            )

    @property
    def published(self) -> list[tuple[str, str]]:
        lines = self._output.read_text().splitlines()
        return [(event_id, data) for event_id, _, data in (line.partition(" ") for line in lines)]

    def wait_for(self, count: int) -> None:
        """Wait until it has published so many."""

        def has_them() -> bool:
            assert self.process.poll() in (None, 0), "the publisher failed"
            return self._output.read_bytes().count(b"\n") >= count

        await_that(has_them, f"{count} events are published")

    def finish(self) -> list[tuple[str, str]]:
        """Let it publish the last one to each channel."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(TIMEOUT) == 0
        return self.published

    def kill(self) -> list[tuple[str, str]]:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.published
