"""The notice board under gunicorn, as its own configuration file has it: two processes."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import requests

from ssesync import Event, Reader
from tests.logs import without_paths

from .started import EXAMPLES, environment, listens

HERE = EXAMPLES / "django_board"
TIMEOUT = 90.0


class Board:
    """Connections that are made while no server runs wait in the listening socket's queue, as this process owns it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/"
        self.sessions: list[requests.Session] = []
        self._process: subprocess.Popen[bytes] | None = None
        self.manage("migrate", "-v0")

    def manage(self, *args: str, status: int = 0, stdin: str = "") -> str:
        """Run a management command in a process. Returns its output."""
        done = subprocess.run(
            [sys.executable, "manage.py", *args],
            cwd=HERE,
            env=self.environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == status, done.stderr
        return done.stdout if status == 0 else done.stderr

    def environment(self) -> dict[str, str]:
        return environment(BOARD_FOLDER=str(self.folder / "data"))

    def start(self) -> None:
        self._start("gunicorn", "--bind", f"fd://{self.listener.fileno()}", "wsgi", pass_fds=[self.listener.fileno()])

    def start_runserver(self) -> None:
        """Django's own server, which takes no socket: in the place of gunicorn, for good."""
        port = self.listener.getsockname()[1]
        self.listener.close()
        self._start("django", "runserver", "--noreload", "--settings=settings", f"127.0.0.1:{port}", pass_fds=[])
        until = time.monotonic() + TIMEOUT
        while not listens(port):
            assert time.monotonic() < until, (self.folder / "stderr").read_text()
            time.sleep(0.05)

    def _start(self, *command: str, pass_fds: list[int]) -> None:
        with (self.folder / "stderr").open("ab") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=HERE,
                env=self.environment(),
                stdout=stderr,
                stderr=stderr,
                pass_fds=pass_fds,
            )

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(15)
            finally:
                self._process.kill()
                self._process.wait()

    def close(self) -> None:
        for session in self.sessions:
            session.close()
        self.stop()
        self.listener.close()
        stderr = (self.folder / "stderr").read_text()
        # Django writes a traceback of every 403 too.
        assert "Internal Server Error" not in stderr, stderr
        assert "ssesync" not in without_paths(stderr), stderr

    def user(self, name: str | None) -> User:
        return User(self, name)


class User:
    """A user of the board, through HTTP."""

    def __init__(self, board: Board, name: str | None) -> None:
        self.url = board.url
        self.session = requests.Session()
        self.session.trust_env = False
        board.sessions.append(self.session)
        self.token = ""
        if name is not None:
            self.look("login")
            answer = self.post("login", username=name, password="demo")
            assert (answer.status_code, answer.url) == (200, self.url)
            self.look("")

    def look(self, path: str) -> str:
        answer = self.session.get(self.url + path, timeout=TIMEOUT)
        assert answer.status_code == 200, answer.text[:500]
        (self.token,) = set(re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', answer.text))
        return answer.text

    def status(self, path: str) -> int:
        with self.session.get(self.url + path, timeout=TIMEOUT, stream=True, allow_redirects=False) as answer:
            return answer.status_code

    def post(self, path: str, **data: str) -> requests.Response:
        return self.session.post(self.url + path, {"csrfmiddlewaretoken": self.token, **data}, timeout=TIMEOUT)

    @contextlib.contextmanager
    def following(self) -> Iterator[Reader]:
        with self.session.get(f"{self.url}events", stream=True, timeout=TIMEOUT) as answer, Reader(answer) as reader:
            assert answer.status_code == 200, answer.text[:500]
            yield reader


def next_of(reader: Reader, *kinds: str) -> Event:
    event = reader.read()
    assert event is not None, "the stream ended"
    assert event.type in kinds, event
    return event


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Board]:
    board = Board(folder)
    try:
        board.start()
        yield board
    finally:
        board.close()
