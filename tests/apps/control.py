"""A door into the serving process beside its server, whose only thread may sit in a stream: JSON over a unix socket.

One request a connection: ``{"do": name, ...}``, answered by the function of that name with the other values.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.http_client import TIMEOUT


class Door:
    """The process's side."""

    def __init__(self, path: Path, functions: dict[str, Callable[..., Any]]) -> None:
        self._path = path
        self._functions = functions
        self._lock = threading.Lock()
        self._pid = 0

    def open(self) -> None:
        """Begin to listen, if this process does not yet: the one that forked it may."""
        with self._lock:
            if self._pid != os.getpid():
                self._pid = os.getpid()
                self._path.unlink(missing_ok=True)
                listener = socket.socket(socket.AF_UNIX)
                listener.setblocking(True)  # whatever the default
                listener.bind(str(self._path))
                listener.listen(16)
                threading.Thread(target=self._serve, args=(listener,), name="tests-door", daemon=True).start()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.settimeout(TIMEOUT)
                order = json.loads(connection.makefile().readline())
                try:
                    answer = self._functions[order.pop("do")](**order)
                except Exception as error:
                    answer = {"error": repr(error)}
                connection.sendall(json.dumps(answer).encode() + b"\n")


def ask(path: Path, do: str, **values: Any) -> Any:
    """The test's side.

    :raises OSError: nobody listens there.
    """
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(TIMEOUT)
        door.connect(str(path))
        door.sendall(json.dumps({"do": do, **values}).encode() + b"\n")
        answer = json.loads(door.makefile().readline())
    assert not (isinstance(answer, dict) and "error" in answer), answer
    return answer
