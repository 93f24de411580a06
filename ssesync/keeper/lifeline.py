"""How a process learns of the end of another one: each has an end of a socket pair, and keeps it open until it exits.

It works where the number of a process does not: between the containers of a pod, and without a race.
"""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

__all__ = ["Lifeline"]


class Lifeline:
    """One end of a socket pair whose other end another process has. That process may send one report before it closes
    its end.

    :param handle: the end.
    """

    def __init__(self, handle: socket.socket) -> None:
        self._handle = handle
        self._report: dict[str, Any] | None = None

    @classmethod
    def pair(cls) -> tuple[Lifeline, socket.socket]:
        """Make both ends.

        :return: this process's, and the other's.
        """
        own, other = socket.socketpair()
        return cls(own), other

    def wait(self, seconds: float | None) -> dict[str, Any] | None:
        """Wait for the other process's report, or its end.

        :param seconds: how long; ``None``: without a limit.
        :return: the report. It is empty if the process has ended without one; ``None``: neither has happened yet.
        """
        if self._report is None:
            self._handle.settimeout(seconds)
            try:
                received = self._handle.recv(4096)
            except (TimeoutError, BlockingIOError):
                return None
            except OSError:
                received = b""
            try:
                self._report = dict(json.loads(received or b"{}"))
            except ValueError:
                self._report = {}
        return self._report

    @property
    def is_over(self) -> bool:
        """Whether :meth:`wait` has returned a report."""
        return self._report is not None

    def report(self, **values: Any) -> None:
        """Send the other process the report, and close this end."""
        with contextlib.suppress(OSError):
            self._handle.sendall(json.dumps(values).encode())
        self._handle.close()

    def close(self) -> None:
        """Close this end. Any number of times."""
        self._handle.close()
