"""The gateway example: its three servers as ``run.py`` starts them."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import requests

from .started import EXAMPLES, environment

RUN = [sys.executable, str(EXAMPLES / "llm_gateway" / "run.py")]
TIMEOUT = 90.0


@dataclass
class Running:
    """The three servers, and the counters of the model."""

    process: subprocess.Popen[str]
    #: The model's, the inner and the outer gateway's.
    urls: tuple[str, str, str]

    @property
    def url(self) -> str:
        """Where the page is, without a slash at the end."""
        return self.urls[2]

    def counters(self) -> dict[str, int]:
        with requests.Session() as session:
            session.trust_env = False
            counters: dict[str, int] = session.get(f"{self.url}/counters", timeout=TIMEOUT).json()
            return counters

    def wait_for(self, holds: Callable[[dict[str, int]], Any]) -> dict[str, int]:
        """The counters as soon as they are so."""
        end = time.monotonic() + TIMEOUT
        while not holds(counters := self.counters()):
            assert time.monotonic() < end, counters
            time.sleep(0.02)
        return counters

    def wait_until_at_rest(self) -> int:
        """The number of tokens produced when no answer is running, after which no token is made."""
        return self.wait_for(lambda counters: counters["running"] == 0)["produced"]


@contextlib.contextmanager
def running(*, quiet: bool = True, **variables: str) -> Iterator[Running]:
    with subprocess.Popen(
        RUN,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        output = ""
        try:
            while "in a browser" not in output:
                line = process.stdout.readline()
                assert line, process.stderr.read() if process.stderr else output
                output += line
            model, inner, outer = re.findall(r"^  (?:model|gateway) +(http://127\.0\.0\.1:\d+)$", output, re.MULTILINE)
            yield Running(process, (model, inner, outer))
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            output, complaints = process.communicate(timeout=200)
    assert process.returncode == 0
    assert not (quiet and complaints), complaints
