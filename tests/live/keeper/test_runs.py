"""Answers in progress while the application is deployed: the old worker finishes them, no follower is dropped."""

from __future__ import annotations

import concurrent.futures
import time
from pathlib import Path

import psutil
import pytest
import requests

from benchmarks.deploys_servers import Deployment, Plan, is_running
from ssesync import Event, Reader
from tests.servers import TIMEOUT, place_of

#: Runs, their events, and seconds between two.
RUNS, EVENTS, PAUSE = 6, 80, 0.05


def follow(port: int, name: str) -> tuple[str, list[Event]]:
    """The worker that has accepted the client, and what came over this one connection."""
    headers = {"Accept": "text/event-stream", "Connection": "close"}
    with requests.get(
        f"http://127.0.0.1:{port}/runs/{name}", headers=headers, stream=True, timeout=TIMEOUT
    ) as response:
        assert response.status_code == 200, response.text
        return response.headers["X-Worker"], list(Reader(response))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["siblings", "keeper"])
def test_the_old_worker_finishes_its_runs_and_no_follower_is_dropped(way: str, tmp_path: Path) -> None:
    (starts := tmp_path / "starts").touch()
    url = f"sqlite:///{tmp_path}/runs.db"
    environment = {"BROKER": url, "STARTS": str(starts)}
    plan = Plan(url, way, app=place_of("flask_app.runs"), environment=environment)
    with Deployment(plan, tmp_path) as deployment, concurrent.futures.ThreadPoolExecutor(2 * RUNS) as pool:
        names = [f"run-{number}" for number in range(RUNS)]
        for name in names:
            path = f"/runs/{name}?count={EVENTS}&pause={PAUSE}"
            assert requests.post(f"http://127.0.0.1:{deployment.port}{path}", timeout=TIMEOUT).ok
        answers = [pool.submit(follow, deployment.port, name) for name in names * 2]
        time.sleep(0.5)
        old = deployment.workers()
        deployment.hup()
        for name, answer in zip(names * 2, answers, strict=True):
            worker, events = answer.result(TIMEOUT)
            assert int(worker) in old
            assert [event.data for event in events] == [
                *(f"{name}:{number}" for number in range(EVENTS)), f'{{"state":"done","events":{EVENTS}}}',
            ]  # fmt: skip
        assert sorted(line.split()[0] for line in starts.read_text().splitlines()) == names
        psutil.wait_procs([psutil.Process(pid) for pid in old if is_running(pid)], TIMEOUT)
        assert not [pid for pid in old if is_running(pid)]
