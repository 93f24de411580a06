"""The example's job: a run, which is started and stopped by POST and followed by GET."""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from ssesync import Event

from .started import Server, get, gunicorn, read


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("flask_live")
    with gunicorn("flask_live", folder, LIVE_SSESYNC_BROKER=f"sqlite:///{folder}/jobs.db") as server:
        yield server


def start(server: Server) -> str:
    answer = requests.post(f"{server.url}jobs", timeout=20)
    assert answer.status_code == 202
    return f"{server.url}jobs/{answer.json()['name']}"


def whole(url: str, last_event_id: str = "") -> list[Event]:
    with read(url, last_event_id) as reader:
        return list(reader)


def test_each_follower_gets_the_whole_job_and_its_end(server: Server) -> None:
    url = start(server)
    events, again = whole(url), whole(url)
    assert again == events
    assert [event.type for event in events] == ["progress"] * 100 + ["end"]
    assert [event.json()["percent"] for event in events[:-1]] == list(range(1, 101))
    assert events[-1].json() == {"state": "done", "events": 100}
    files = sorted(Path(os.__file__).parent.glob("*.py"))
    last = hashlib.sha256(files[-1].read_bytes()).hexdigest()
    assert events[-2].json() == {"percent": 100, "file": files[-1].name, "sha256": last}
    with get(url, str(events[-1].id)) as response:
        assert response.status_code == 204


def test_a_follower_that_leaves_comes_back_to_what_it_has_missed(server: Server) -> None:
    url = start(server)
    events: list[Event] = []
    for count in (1, 41, 101):
        with read(url, str(events[-1].id) if events else "") as reader:
            events += itertools.islice(reader, count)
    assert [(event.id, event.data) for event in events] == [(event.id, event.data) for event in whole(url)]


def test_a_job_can_be_stopped(server: Server, tmp_path: Path) -> None:
    log = f"sqlite:///{tmp_path}/jobs.db"
    with gunicorn("flask_live", tmp_path, LIVE_PAUSE="0.1", LIVE_SSESYNC_BROKER=log) as slow:
        url = start(slow)
        with read(url) as reader:
            first = reader.read()
            assert requests.post(f"{url}/stop", timeout=20).json() == {"stopped": True}
            *_, end = reader
        assert first is not None
        assert end.json()["state"] == "stopped"
        assert requests.post(f"{url}/stop", timeout=20).json() == {"stopped": False}


def test_followers_learn_that_the_jobs_process_was_killed(tmp_path: Path) -> None:
    log = f"sqlite:///{tmp_path}/jobs.db"
    with gunicorn("flask_live", tmp_path, LIVE_PAUSE="0.1", LIVE_SSESYNC_BROKER=log) as slow:
        url = start(slow)
        with read(url) as reader:
            events = [reader.read()]
            assert events[0] is not None
            (worker,) = psutil.Process(slow.process.pid).children()
            os.kill(worker.pid, signal.SIGKILL)
        *_, end = whole(url, str(events[0].id))
        assert end.json()["state"] == "interrupted"


def test_an_unknown_job_is_answered_404(server: Server) -> None:
    with get(f"{server.url}jobs/job-none") as response:
        assert response.status_code == 404
