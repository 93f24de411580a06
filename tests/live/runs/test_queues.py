"""The page on jobs: its programs with real workers of Celery and RQ, and a Redis."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from ssesync import Reader, open_broker
from tests.docs.blocks import ROOT, blocks_of
from tests.later import ImportedLater
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    import rq
else:
    rq = ImportedLater("rq")

TIMEOUT = 90.0
PERCENT = list(range(0, 101, 10))


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """The page's programs, each in the file that its first line names."""
    page = "docs/guide/jobs.md"
    for block in blocks_of((ROOT / page).read_text("utf-8"), page):
        first = block.source.partition("\n")[0]
        if first.startswith("# ") and first.endswith(".py"):
            (tmp_path / first[2:]).write_text(block.source, "utf-8")
    return tmp_path


@contextlib.contextmanager
def started(folder: Path, *command: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A Python program in the folder."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}, **options,
        )  # type: ignore[call-overload]  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(TIMEOUT)
        finally:
            process.kill()
            process.wait()


def test_a_page_follows_a_task_of_celery_from_before_its_worker_has_started(
    programs: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERY_URL", redis_server.url)
    monkeypatch.setenv("EVENTS_URL", f"sqlite:///{programs}/events.db")
    with socket.create_server(("127.0.0.1", 0)) as listener, requests.Session() as session:
        session.trust_env = False
        web = ["gunicorn", "--bind", f"fd://{listener.fileno()}", "--threads", "4", "web:app"]
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/imports"
        with started(programs, *web, pass_fds=[listener.fileno()]):
            listener.close()
            run = session.post(url, timeout=TIMEOUT).json()["run"]
            with session.get(f"{url}/{run}", stream=True, timeout=TIMEOUT) as response:
                reader = Reader(response)
                with started(programs, "celery", "--app", "tasks", "worker", "--concurrency", "1"):
                    events = [(event.type, json.loads(str(event.data))) for event in reader]
            assert events[:-1] == [("progress", {"percent": each}) for each in PERCENT]
            assert (events[-1][0], events[-1][1]["state"]) == ("end", "done")
            # The job is over before this page comes.
            with session.get(f"{url}/{run}", stream=True, timeout=TIMEOUT) as response:
                assert [event.type for event in Reader(response)] == ["progress"] * 11 + ["end"]


def test_a_function_in_a_queue_of_rq_is_a_run(
    programs: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from redis import Redis

    monkeypatch.setenv("EVENTS_URL", f"sqlite:///{programs}/events.db")
    with open_broker(os.environ["EVENTS_URL"]) as broker, Redis.from_url(redis_server.url) as connection:
        broker.queue_run("import:1", subject="ada")
        rq.Queue(connection=connection).enqueue("jobs.import_rows", "import:1")
        with started(programs, "rq.cli", "worker", "--burst", "--url", redis_server.url) as worker:
            assert worker.wait(TIMEOUT) == 0
        run = broker.get_run("import:1", subject="ada")
        assert run.state == "done", (programs / "log").read_text()
