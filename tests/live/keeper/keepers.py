"""Keepers as processes of their own, and the gunicorn whose clients they hold."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from ssesync.keeper.status import ask_status
from tests.live.channels.processes import Gunicorn, await_that
from tests.servers import ROOT


class Workers(Gunicorn):
    """A gunicorn whose workers' clients a keeper may hold."""

    def __init__(self, folder: Path, broker: str, *options: str, **environment: str) -> None:
        super().__init__(folder, broker, *options, app="kept", environment=environment)

    def held(self) -> int:
        """How many streams the worker that answers has."""
        return len(self.state()["streams"])


class KeeperProcess:
    """A keeper, on a socket in its folder."""

    def __init__(
        self,
        folder: Path,
        broker: str,
        *options: str,
        limit: int | None = None,
        versions: tuple[int, int] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # Short, as a unix socket's path may have 107 bytes.
        self.path = str(folder / "run" / "k.sock")
        self._folder = folder
        self._broker = broker
        self._options = options
        self._limit = limit
        self._module = ["ssesync"] if versions is None else ["tests.live.keeper.versions", *map(str, versions)]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> KeeperProcess:
        command = [sys.executable, "-m", *self._module, "keeper", "--bind", self.path, *self._options]
        if self._limit is not None:
            command = ["prlimit", f"--nofile={self._limit}:{self._limit}", *command]
        before = self.log().count("READY")
        with (self._folder / "keeper.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT), "SSESYNC_BROKER": self._broker},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

        def is_ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            return self.log().count("READY") > before

        await_that(is_ready, "the keeper is ready")
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def log(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self._folder / "keeper.log").read_text(errors="replace")
        return ""

    def status(self) -> dict[str, Any]:
        return ask_status(self.path)

    def held(self) -> int:
        """How many streams it has."""
        return len(self.status()["streams"])

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Let it end its clients. The result: its exit code."""
        process = self.process
        assert process is not None
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(90)
            except subprocess.TimeoutExpired:
                process.kill()
        return process.wait()
