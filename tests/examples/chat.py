"""The chat example, which can be killed and started again on the same port."""

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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import requests

from ssesync import Backoff, EventSource

from .started import EXAMPLES, environment, listens

HERE = EXAMPLES / "flask_chat"
TIMEOUT = 90.0


class Chat:
    """The chat under gunicorn, as its own configuration file has it: two processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._process: subprocess.Popen[bytes] | None = None
        self.sessions: list[requests.Session] = []

    def start(self) -> None:
        command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{self.port}", "app:create_app()"]
        with (self.folder / "stderr").open("ab") as stderr:
            self._process = subprocess.Popen(
                command,
                cwd=HERE,
                env=self.environment(),
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            )
        end = time.monotonic() + TIMEOUT
        while not (listens(self.port) and len(self.workers()) == 2):
            assert self._process.poll() is None, self.stderr
            assert time.monotonic() < end, self.stderr
            time.sleep(0.02)

    def environment(self) -> dict[str, str]:
        # The example's own settings, with clients that come back sooner.
        settings = json.dumps({"retry": 100, "same_origin_only": True})
        return environment(CHAT_FOLDER=str(self.folder / "chat"), CHAT_SSESYNC=settings)

    def workers(self) -> list[int]:
        assert self._process is not None
        return [child.pid for child in psutil.Process(self._process.pid).children()]

    def kill(self) -> None:
        """Kill all processes at once, as a power cut does."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        for session in self.sessions:
            session.close()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(15)
            finally:
                if self._process.poll() is None:
                    self.kill()

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    def say(self, room: str, text: str) -> None:
        """By the script, which needs no server."""
        command = [sys.executable, str(HERE / "say.py"), room, text]
        subprocess.run(command, env=self.environment(), check=True, timeout=TIMEOUT)

    def person(self, name: str) -> Person:
        return Person(self, name)


class Person:
    """A user of the chat, through HTTP."""

    def __init__(self, chat: Chat, name: str | None) -> None:
        self._chat = chat
        self.session = requests.Session()
        self.session.trust_env = False
        chat.sessions.append(self.session)
        if name is not None:
            assert self.ask("POST", "me", name=name).status_code == 200

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, **body: Any) -> requests.Response:
        return self.session.request(
            method, f"{self._chat.url}api/{path}", headers=headers, json=body or None, timeout=TIMEOUT
        )

    def say(self, room: str, text: str) -> None:
        answer = self.ask("POST", f"rooms/{room}/messages", id=f"{random.getrandbits(64):x}", text=text)
        assert answer.status_code == 201, answer.text

    def look(self, room: str) -> Any:
        answer = self.ask("GET", f"rooms/{room}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    @contextlib.contextmanager
    def following(self, room: str, last_event_id: str = "") -> Iterator[EventSource]:
        source = EventSource(
            f"{self._chat.url}api/rooms/{room}/events",
            session=self.session,
            last_event_id=last_event_id or self.look(room)["lastEventId"],
            backoff=Backoff(initial=0.2, max_delay=1, max_elapsed=TIMEOUT),
            idle_timeout=TIMEOUT,
        )
        with source:
            yield source


def next_of(source: EventSource, kind: str) -> Any:
    """The data of the next event of a type."""
    while (event := source.read()) is not None:
        if event.type == kind:
            return event.json()
    raise AssertionError("the stream ended")


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Chat]:
    chat = Chat(folder)
    try:
        chat.start()
        yield chat
    finally:
        chat.stop()
    assert "Traceback" not in chat.stderr, chat.stderr


def _free_port() -> int:
    # Not one of the ephemeral ports: it must still be free when the server restarts.
    for _ in range(100):
        port = random.randint(20_000, 30_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")
