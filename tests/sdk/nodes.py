"""Runs the clients that are JavaScript: scripts in tests/sdk/node, with the packages that ``make test`` installs there.

A script prints one JSON object a line; what it is sent is one JSON object a line on its standard input.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import queue
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "node"
PACKAGES = FOLDER / "node_modules"
#: The oldest Node that all the packages run on: Debian 12's.
OLDEST = 18
TIMEOUT = 90.0


@functools.cache
def node_missing() -> str | None:
    """Why no script can run here.

    :return: the reason; None where Node and the packages are here.
    """
    node = shutil.which("node")
    if node is None:
        return "there is no node; Debian has it in the package nodejs"
    version = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=TIMEOUT).stdout.strip()
    found = re.match(r"v(\d+)\.", version)
    if found is None or int(found[1]) < OLDEST:
        return f"the packages need Node {OLDEST} or newer, and {node} is {version or 'broken'}"
    # npm writes this file last.
    if not (PACKAGES / ".package-lock.json").is_file():
        return "the packages of tests/sdk/node are not installed; make test does it, by npm"
    return None


def need_node() -> None:
    """Skip the test where no script can run. Under CI=true it fails, as nothing would be tested."""
    reason = node_missing()
    if reason is not None and os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(reason, pytrace=False)
    if reason is not None:
        pytest.skip(reason)


def version_of(package: str) -> str:
    """The version of an installed package."""
    return str(json.loads((PACKAGES / package / "package.json").read_text("utf-8"))["version"])


def parsed(line: str) -> dict[str, Any]:
    """A line of a script's output. What is no object is kept as it is: it fails the test that reads it."""
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"not an object": line}


class NodeProcess:
    """A script that runs. Its lines are read by a thread of its own, so that each read has a deadline."""

    def __init__(self, process: subprocess.Popen[str], errors: Path) -> None:
        self.process = process
        self._errors = errors
        self._lines: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._unread: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read_lines, name="reads node", daemon=True)
        self._reader.start()

    def _read_lines(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(parsed(line))
        self._lines.put(None)

    def _next(self, within: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=within)
        except queue.Empty:
            raise AssertionError(f"no line within {within:g} s; stderr: {self.errors()}") from None
        if line is None:
            self._lines.put(None)  # for the reads to come
            raise AssertionError(f"the script has ended; stderr: {self.errors()}")
        return line

    def read(
        self, wanted: Callable[[dict[str, Any]], bool] = lambda _: True, within: float = TIMEOUT
    ) -> dict[str, Any]:
        """Wait for a line, and keep the others for later reads.

        :param wanted: tells whether a line is the one; by default each is.
        :param within: the most seconds between two lines.
        :return: the line's object.
        """
        for index, line in enumerate(self._unread):
            if wanted(line):
                return self._unread.pop(index)
        while not wanted(line := self._next(within)):
            self._unread.append(line)
        return line

    def send(self, message: Mapping[str, Any]) -> None:
        """Write an object to the script's standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def errors(self) -> str:
        """What the script has written to its standard error."""
        return self._errors.read_text("utf-8", "replace")

    def close(self) -> None:
        """End the script, if it has not ended."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


@contextlib.contextmanager
def run_node(script: str, *arguments: str, env: Mapping[str, str] | None = None) -> Iterator[NodeProcess]:
    """Run a script of tests/sdk/node, and end it with the block. Skips the test where none can run.

    :param script: its name, such as ``"sources.mjs"``.
    :param arguments: for the script.
    :param env: variables beside those of this process.
    :return: the process, as a context manager.
    """
    need_node()
    # A proxy of the environment is not for a server of this machine.
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with tempfile.TemporaryDirectory() as folder:
        errors = Path(folder) / "errors"
        with errors.open("w") as stderr:
            process = subprocess.Popen(
                ["node", script, *arguments],
                cwd=FOLDER,
                env={**environment, **(env or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                encoding="utf-8",
            )
        started = NodeProcess(process, errors)
        try:
            yield started
        finally:
            started.close()
