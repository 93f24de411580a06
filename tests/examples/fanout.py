"""The fan-out example: its upstream, its gateway and its crowd as ``run.py`` starts them."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psutil
import requests

from ssesync import EventSource

from .started import EXAMPLES, environment

RUN = [sys.executable, str(EXAMPLES / "fanout_gateway" / "run.py")]
TIMEOUT = 90.0


@dataclass
class Running:
    """The three."""

    process: subprocess.Popen[str]
    #: Where the page is, without a slash at the end.
    url: str
    #: What they have said so far.
    output: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        with requests.Session() as session:
            session.trust_env = False
            figures: dict[str, Any] = session.get(f"{self.url}/figures", timeout=TIMEOUT).json()
            return figures

    def arbiter(self) -> psutil.Process:
        """The gateway's."""
        port = int(self.url.rpartition(":")[2])
        for process in psutil.Process(self.process.pid).children():
            if "gateway:create_app()" in process.cmdline():
                assert any(each.laddr.port == port for each in process.net_connections("tcp"))
                return process
        raise AssertionError("the gateway does not run")

    def line_with(self, words: str) -> str:
        """The next line in which these stand."""
        assert self.process.stdout is not None
        while True:
            line = self.process.stdout.readline()
            assert line, self.output
            self.output.append(line)
            if words in line:
                return line

    @contextlib.contextmanager
    def reading(self, **options: Any) -> Iterator[EventSource]:
        with requests.Session() as session:
            session.trust_env = False
            options = {"idle_timeout": TIMEOUT, **options}
            with EventSource(f"{self.url}/events", session=session, **options) as source:
                yield source


@contextlib.contextmanager
def running(crowd: int, **variables: str) -> Iterator[Running]:
    with subprocess.Popen(
        RUN,
        env=environment(CROWD=str(crowd), PRICES_PACE="20", PYTHONUNBUFFERED="1", **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        system = Running(process, "")
        try:
            found = re.search(r"http://127\.0\.0\.1:\d+", system.line_with("  gateway  "))
            assert found
            system.url = found[0]
            if crowd:
                system.line_with(f"{crowd} readers are connected")
            yield system
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            _, complaints = process.communicate(timeout=200)
    assert (process.returncode, complaints) == (0, "")
