"""A client of someone else as a process of its own, which reports what its user would be given.

A client's command gets a task as its last argument, a JSON object (:class:`Task`), and prints a JSON object for each
thing that happens, a line each:

- ``{"kind": "event", "type": …, "data": …, "id": …}``. A client of a protocol reports each text as the data of one.
- ``{"kind": "reconnect"}``, where it tells its user that it reconnects.
- ``{"kind": "end"}``: it tells its user that all is there, or that it has stopped for good. It prints nothing more.
- ``{"kind": "error", "message": …}``: it raises. It prints nothing more.

A process of its own, as most of them can't be stopped while they wait, and leave sockets to the garbage collector.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.servers import ROOT

from .odd import Seen

TIMEOUT = 90.0


@dataclass(frozen=True)
class Task:
    """What a client reads.

    :param base: the server.
    :param path: what a client of plain streams reads. Those of a protocol have their own.
    :param method: of the request: ``POST`` with the JSON body ``{"model": …, "count": …}`` where the client does not
        reconnect, else ``GET``.
    :param model: which answer a client of a protocol asks for (tests/apps/flask_app/sdk.py).
    :param count: how many words.
    :param options: for the header ``X-Options``, as JSON.
    :param types: the events' types, for clients that are asked for each type.
    """

    base: str
    path: str
    method: str = "POST"
    model: str = "m"
    count: int = 20
    options: dict[str, Any] = field(default_factory=dict)
    types: tuple[str, ...] = ("message", "update", "end", "error", "reset")

    @property
    def url(self) -> str:
        return self.base + self.path

    def json(self) -> str:
        return json.dumps({**asdict(self), "url": self.url})

    @classmethod
    def from_json(cls, text: str) -> Task:
        return cls(**{name: value for name, value in json.loads(text).items() if name != "url"})


class ClientProcess:
    """A running client, and what it has reported.

    :param name: of the client, for messages.
    :param command: its command, without the task.
    :param errors: a file for what it writes to stderr.
    """

    def __init__(self, name: str, command: Sequence[str], task: Task, errors: Path) -> None:
        self.name = name
        self._errors = errors
        self._changed = threading.Condition()
        self._reports: list[dict[str, Any]] = []
        self._over = False
        environment = {**os.environ, "NO_PROXY": "*", "no_proxy": "*", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling the SDKs takes longer than importing them
        with errors.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, task.json()],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self._reports.append(json.loads(line))
                self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()

    @property
    def reports(self) -> list[dict[str, Any]]:
        with self._changed:
            return list(self._reports)

    def seen(self, connections: int | None = None) -> list[Seen]:
        """The events.

        :param connections: those of so many connections, as far as the client tells of its reconnections.
        """
        found = []
        for each in self.reports:
            if each["kind"] == "event":
                found.append(Seen(each["type"] or "message", each["data"], each.get("id") or ""))
            elif each["kind"] == "reconnect" and connections is not None:
                connections -= 1
                if not connections:
                    break
        return found

    def ending(self) -> dict[str, Any] | None:
        """The last report, where nothing comes behind it."""
        last = (self.reports or [None])[-1]
        return last if last is not None and last["kind"] in ("end", "error") else None

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Wait until a condition of the reports holds. After the last one, or too long a time, it is a failure."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition() or self._over, TIMEOUT) or not condition():
                last = [str(each)[:200] for each in self._reports[-5:]]
                how = "ended" if self._over else "waits"
                raise AssertionError(f"{self.name} {how} after {last}: {self._errors.read_text()[-3000:]}")

    def close(self) -> None:
        """End the process, if it has not ended."""
        self.process.kill()
        self.process.wait()
        self._thread.join(TIMEOUT)
        assert self.process.stdout is not None
        self.process.stdout.close()
