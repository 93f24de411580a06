"""The command line: in this process, as a process of its own with pipes, and on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from ssesync.cli import main

ROOT = Path(__file__).resolve().parents[3]
#: Longer than anything takes that goes well, shorter than the suite's limit for a test.
TIMEOUT = 90.0
# Older releases mix the two outputs unless told not to; newer ones can't.
RUNNER = CliRunner(**({"mix_stderr": False} if "mix_stderr" in signature(CliRunner).parameters else {}))
_TAKES_THE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "ssesync", *sys.argv[1:]])
"""


def environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    return {**kept, "PYTHONPATH": os.pathsep.join([str(ROOT), *_path()]), "TERM": "xterm-256color", **variables}


def _path() -> list[str]:
    return [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]


def start(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """The command, with pipes."""
    options.setdefault("env", environment())
    return subprocess.Popen(
        [sys.executable, "-m", "ssesync", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    """The command, to its end, in this process: a new one takes longer than all that it does."""
    result = RUNNER.invoke(main, arguments, input=stdin, prog_name="python -m ssesync")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


def doctor(url: str, *arguments: str) -> tuple[dict[str, Any], dict[str, tuple[str, str]], int]:
    """What the doctor reports, its findings as level and text by their names, and the exit status."""
    done = run("doctor", url, "--json", *arguments)
    assert done.returncode in (0, 1, 3), done.stderr
    report = json.loads(done.stdout)
    return report, {each["check"]: (each["level"], each["seen"]) for each in report["findings"]}, done.returncode


class Terminal:
    """The command on a pseudo-terminal of its own, which is all that it reads from and writes to."""

    def __init__(self, *arguments: str, columns: int = 80, **variables: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self._slave = slave
        self.modes = termios.tcgetattr(slave)
        self.seen = b""
        self.process = subprocess.Popen(
            [sys.executable, "-c", _TAKES_THE_TERMINAL, *arguments],
            cwd=ROOT,
            env=environment(**variables),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )

    def until(self, text: str) -> bytes:
        """Read until the text is there; all that was written so far."""
        end = time.monotonic() + TIMEOUT
        while text not in self.text:
            assert time.monotonic() < end, f"{text!r} did not come, but {self.text!r}"
            self._read(0.5)
        return self.seen

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def ends(self) -> int:
        """The exit status, when all was read."""
        end = time.monotonic() + TIMEOUT
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it did not end; {self.text!r}"
            self._read(0.05)
        while self._read(0.05):
            pass
        return self.process.returncode

    @property
    def text(self) -> str:
        """What was written, without the terminal's own orders."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.seen.decode("utf-8", "replace")).replace("\r\n", "\n")

    def modes_now(self) -> list[Any]:
        return termios.tcgetattr(self._slave)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        self.seen += os.read(self._master, 65536)
        return True

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)


@contextlib.contextmanager
def terminal(*arguments: str, **options: Any) -> Iterator[Terminal]:
    running = Terminal(*arguments, **options)
    try:
        yield running
    finally:
        running.close()
