"""Starts the example projects the way their readers do, on 127.0.0.1."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from ssesync import Reader, add_accept_mime, set_last_event_id
from tests.redis_server import lasting_port

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "example_projects"
APPLICATIONS = {
    "flask_live": "app:create_app()",
    "django_live": "wsgi",
    "llm_gateway": "gateway:create_app()",
    "fanout_gateway": "gateway:create_app()",
}
# An example should be quick in a test. Its own pace is for people.
QUICK = {"LIVE_INTERVAL": "0.05", "LIVE_PAUSE": "0.002", "CHAT_PACE": "0.05"}


def environment(**variables: str) -> dict[str, str]:
    """This process's environment, without what the tests put there for their own Django."""
    kept = {
        name: value for name, value in os.environ.items() if name not in ("DJANGO_SETTINGS_MODULE", "PORT", "EVENTS")
    }
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **variables}


@dataclass
class Server:
    """An example that is being served."""

    example: str
    url: str
    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    def answers(self, path: str) -> list[int]:
        """The statuses that ``path`` was answered with so far, as the server's access log has them."""
        lines = (self.folder / "access").read_text().splitlines()
        return [int(status) for asked, status in (line.split() for line in lines) if asked == path]


@contextlib.contextmanager
def gunicorn(example: str, folder: Path, **variables: str) -> Iterator[Server]:
    """The example under gunicorn with threads."""
    # Who connects before gunicorn is up waits in the socket's queue.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", "gunicorn", "--worker-class", "gthread", "--threads", "16"]
        command += ["--config", write_config(folder), "--chdir", str(EXAMPLES / example)]
        command += ["--bind", f"fd://{listener.fileno()}", APPLICATIONS[example]]
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with run(command, example, url, folder, pass_fds=[listener.fileno()], **variables) as server:
            listener.close()
            yield server


def write_config(folder: Path) -> str:
    """What has no option in the oldest gunicorn: an unknown name in a file is passed over."""
    config = folder / "gunicorn.conf.py"
    access = str(folder / "access")
    (folder / "access").touch()
    config.write_text(
        f"accesslog = {access!r}\naccess_log_format = '%(U)s %(s)s'\n"
        "graceful_timeout = 1\ncontrol_socket_disable = True\n"
    )
    return str(config)


@contextlib.contextmanager
def runserver(example: str, folder: Path, **variables: str) -> Iterator[Server]:
    """The Django example under Django's own server."""
    port = lasting_port()
    command = [sys.executable, str(EXAMPLES / example / "manage.py"), "runserver", "--noreload", f"127.0.0.1:{port}"]
    with run(command, example, f"http://127.0.0.1:{port}/", folder, **variables) as server:
        until = time.monotonic() + 30
        while not listens(port):
            assert server.process.poll() is None, server.stderr
            assert time.monotonic() < until, server.stderr
            time.sleep(0.05)
        yield server


@contextlib.contextmanager
def run(
    command: list[str],
    example: str,
    url: str,
    folder: Path,
    *,
    pass_fds: list[int] | None = None,
    may_fail: bool = False,
    **variables: str,
) -> Iterator[Server]:
    """Start an example and stop it. Its log must have no traceback, unless the tests make a producer fail."""
    with (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            command, env=environment(**{**QUICK, **variables}), pass_fds=pass_fds or [], stdout=stderr, stderr=stderr
        )
    server = Server(example, url, process, folder)
    try:
        yield server
    finally:
        process.terminate()
        try:
            process.wait(15)
        finally:
            process.kill()
            process.wait()
    assert may_fail or "Traceback" not in server.stderr, server.stderr


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


@contextlib.contextmanager
def get(url: str, last_event_id: str = "", *, method: str = "GET", **options: Any) -> Iterator[requests.Response]:
    """A request whose body is read as it comes."""
    with requests.Session() as session:
        session.trust_env = False
        add_accept_mime(session.headers)
        set_last_event_id(session.headers, last_event_id)
        with session.request(method, url, stream=True, timeout=(20, 20), **options) as response:
            yield response


@contextlib.contextmanager
def read(url: str, last_event_id: str = "") -> Iterator[Reader]:
    with get(url, last_event_id) as response, Reader(response) as reader:
        yield reader
