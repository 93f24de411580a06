"""The development servers' reloaders: an open stream holds none of them up, with draining asked for or not."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from ssesync import ConnectionLost, Reader
from tests.redis_server import lasting_port

TIMEOUT = 90.0
ROOT = Path(__file__).resolve().parents[3]

FLASK = """
from flask import Flask
from ssesync import drain_on_signal
from ssesync_flask import event_writer

app = Flask(__name__)
drain_on_signal()

@app.get("/")
@event_writer
def view(w):
    w.write("VERSION")
    w.cancelled.wait(60)
"""

DJANGO = """
import sys
from django.conf import settings
from django.urls import path

settings.configure(
    DEBUG=True, SECRET_KEY="for tests only", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__,
    INSTALLED_APPS=["ssesync_django"], WSGI_APPLICATION=None, USE_TZ=True,
)

def view(request, w):
    w.write("VERSION")
    w.cancelled.wait(60)

def make_urls():
    from ssesync import drain_on_signal
    from ssesync_django import event_writer

    drain_on_signal()
    return [path("", event_writer(view))]

urlpatterns = []

if __name__ == "__main__":
    import django
    from django.core.management import execute_from_command_line

    sys.modules["project"] = sys.modules["__main__"]
    settings.ROOT_URLCONF = "project"
    django.setup()
    urlpatterns.extend(make_urls())
    execute_from_command_line(sys.argv)
"""


def opened(url: str) -> Reader:
    """A reader of the stream, as soon as the server answers."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.ConnectionError):
            return Reader(requests.get(url, stream=True, timeout=TIMEOUT))
        time.sleep(0.1)
    raise AssertionError("the server did not answer")


def version_at(url: str) -> str | None:
    """The version of the process that answers: the one that is about to be replaced may accept one more connection,
    and end while it answers."""
    with contextlib.suppress(ConnectionLost), opened(url) as reader:
        event = reader.read()
        return event and event.data
    return None


@contextlib.contextmanager
def touched_again_and_again(file: Path) -> Iterator[None]:
    """A reloader compares with what it saw first, which may be this change already: the server answers before that."""
    done = threading.Event()

    def touch() -> None:
        for second in range(1, int(TIMEOUT)):
            if done.wait(1):
                return
            os.utime(file, (time.time(), time.time() + second))

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        (FLASK, ["-m", "flask", "--app", "project", "run", "--reload", "--port", "{port}"]),
        (DJANGO, ["project.py", "runserver", "127.0.0.1:{port}"]),
    ],
    ids=["flask", "django"],
)
def test_an_open_stream_does_not_hold_the_reloader_up(text: str, arguments: list[str], tmp_path: Path) -> None:
    project = tmp_path / "project.py"
    project.write_text(text.replace("VERSION", "old"), "utf-8")
    port = lasting_port()
    command = [sys.executable, *(argument.format(port=port) for argument in arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}/"
        with opened(url) as reader:
            event = reader.read()
            assert event is not None
            assert event.data == "old"
            project.write_text(text.replace("VERSION", "new"), "utf-8")
            with touched_again_and_again(project), contextlib.suppress(ConnectionLost):
                # An end or a cut, whatever the reloader leaves time for; silence would be an IdleTimeout.
                last = reader.read()
                assert last is None or last.type == "error"
        deadline = time.monotonic() + TIMEOUT
        while version_at(url) != "new":
            assert time.monotonic() < deadline
    except BaseException:
        print((tmp_path / "log").read_text("utf-8"))
        raise
    finally:
        # The reloader and the server that it watches.
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
