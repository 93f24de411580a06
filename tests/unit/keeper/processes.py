"""Processes that the tests of this folder start."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[3]


def opened() -> Counter[str]:
    """The files of this process's descriptors, without those of databases, which a broker opens when it needs them."""
    found: Counter[str] = Counter()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it is the one of this folder
            found[str(link.readlink())] += 1
    return Counter({file: count for file, count in found.items() if ".db" not in file and not file.startswith("/proc")})


def added(before: Counter[str]) -> int:
    """How many descriptors were added. Those of an earlier test may still be closed meanwhile: they don't count."""
    return sum((opened() - before).values())


def closed(before: Counter[str]) -> int:
    """How many descriptors were closed, those of an earlier test included."""
    return sum((before - opened()).values())


def run(program: str, *arguments: str, **options: Any) -> str:
    """Run a program in a process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    found = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, **options)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@contextlib.contextmanager
def started(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a program, which is killed in the end. It reads lines and prints some."""
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    with subprocess.Popen(
        command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    """The next line that a program has printed; "" at its end."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def give(process: subprocess.Popen[str], text: str = "") -> None:
    """Give a program a line."""
    assert process.stdin is not None
    process.stdin.write(text + "\n")
