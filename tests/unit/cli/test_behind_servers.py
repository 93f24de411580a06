"""Both commands against what people run: an example under gunicorn, nginx in front, https."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
import trustme

from ssesync import Event
from ssesync.testing import FakeSSEServer, Pause, RecordedRequest, head
from tests.examples.started import gunicorn
from tests.live.streams.nginx import nginx_with
from tests.redis_server import lasting_port

from .runs import doctor, run


@contextlib.contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[str]:
    """nginx as it comes, buffering, in front of a server."""
    port = lasting_port()
    server = f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{upstream}; }} }}"
    with nginx_with(folder, server):
        yield f"http://127.0.0.1:{port}/"


def steady(request: RecordedRequest) -> Iterator[Any]:
    """Events of 500 bytes, 50 a second. The way decides what nginx is told.

    As to HTTP/1.0, which nginx asks for unless told otherwise: chunks of its upstream it passes on one by one.
    """
    yield head(*(["X-Accel-Buffering: no"] if request.path == "/well" else []), version="1.0")
    number = int(request.last_event_id or 0)
    while True:
        number += 1
        yield Event("x" * 500, id=number)
        yield Pause(0.02)


def test_an_nginx_that_buffers_is_found_and_one_that_does_not_is_well(tmp_path: Path):
    with FakeSSEServer(steady) as server, nginx(tmp_path, server.port) as url:
        _, findings, status = doctor(f"{url}ill", "--seconds", "4")
        assert status == 1
        assert findings["Buffering"][0] == "problem"
        assert "the bytes stopped in the middle of an event" in findings["Buffering"][1]
        assert findings["X-Accel-Buffering"][0] == "unknown"

        _, findings, status = doctor(f"{url}well", "--seconds", "3")
        assert findings["Buffering"][0] == "ok", findings
        assert status == 0, findings


def test_an_example_under_gunicorn_is_followed_and_is_well(tmp_path: Path):
    with gunicorn("flask_live", tmp_path, LIVE_SSESYNC_BROKER=f"sqlite:///{tmp_path}/jobs.db") as example:
        url = f"{example.url}stats"
        done = run("tail", url, "--json", "-n", "3")
        assert [json.loads(line)["type"] for line in done.stdout.splitlines()] == ["host", "sample", "sample"]
        job = requests.post(f"{example.url}jobs", timeout=90).json()["name"]
        done = run("tail", f"{example.url}jobs/{job}", "--comments")
        assert done.returncode == 0
        assert done.stdout.splitlines()[-1].endswith('{"state":"done","events":100}')
        assert "204: the server has no more events" in done.stderr
        _, findings, status = doctor(url, "--seconds", "4")
        assert status == 0, findings
        assert findings["Second stream"][0] == "ok"


def test_certificates_are_checked_unless_insecure_is_given(tmp_path: Path):
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    trusted = ["--cacert", str(tmp_path / "ca.pem")]
    with FakeSSEServer(tls=context) as server:
        server.answer(times=None).event("x")
        for command in ("tail", "doctor"):
            done = run(command, server.url)
            assert done.returncode == 3
            assert "certificate" in done.stdout + done.stderr
        for options in (["-k"], trusted):
            assert run("tail", server.url, "-n", "1", *options).returncode == 0
        _, findings, status = doctor(server.url, *trusted, "--seconds", "20")
        assert (status, findings["HTTP/2"]) == (0, ("advice", "not offered"))
