"""Runs on several workers while workers are killed, terminated and frozen, and clients drop their connections.

``python -m tests.live.runs.chaos --broker sqlite --seconds 1800`` goes on for so long and prints what happened. At the
end the transcript of each client is compared with the log: equal, with one final event, and no producer began twice.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from ssesync import Reader, ReadError, open_broker
from tests.redis_server import KEEPING, RedisServer
from tests.servers import Kind, Server, children_of, gunicorn, running

WORKERS = 3
#: Seconds that a client waits for the next byte: a frozen worker sends none, and another one must end its runs first.
TIMEOUT = 15


@dataclass
class Transcript:
    """What one client has received of one run."""

    ids: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    ends: list[dict[str, Any]] = field(default_factory=list)
    #: The last answer's status: 204 after the end, 404 if the run was never added.
    status: int = 0
    resets: int = 0


class Chaos:
    """The load, and what disturbs it.

    :param server: a gunicorn with several workers.
    :param seed: of the random choices.
    :param pauses: seconds between two of them, the shortest and the longest.
    """

    def __init__(self, server: Server, seed: int, pauses: tuple[float, float]) -> None:
        self._server = server
        self._pauses = pauses
        self._url = f"http://127.0.0.1:{server.port}"
        self._random = random.Random(seed)
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.transcripts: dict[str, list[Transcript]] = collections.defaultdict(list)
        self.counts: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []

    def run(self, seconds: float, runs: int) -> None:
        """Keep so many runs going for so long, and let those that go on then end."""
        deadline = time.monotonic() + seconds
        starters = [threading.Thread(target=self._start_runs, args=(deadline, seed)) for seed in range(runs)]
        disturber = threading.Thread(target=self._disturb)
        for thread in [disturber, *starters]:
            thread.start()
        for thread in starters:
            thread.join()
        self._over.set()
        disturber.join()

    # The load.

    def _start_runs(self, deadline: float, seed: int) -> None:
        choice = random.Random(seed)
        while time.monotonic() < deadline:
            name = f"run-{uuid.uuid4().hex[:12]}"
            count, pause = choice.randrange(20, 150), choice.choice([0.0, 0.002, 0.02])
            if not self._start(name, count, pause):
                continue
            followers = [
                threading.Thread(target=self._follow, args=(name, choice.random() < 0.3, seed * 100 + number))
                for number in range(choice.randrange(1, 4))
            ]
            for follower in followers:
                follower.start()
            if choice.random() < 0.15:
                time.sleep(choice.random() * count * pause)
                self._post(f"/runs/{name}/stop")
            for follower in followers:
                follower.join()

    def _start(self, name: str, count: int, pause: float) -> bool:
        """Start a run, twice at the same time now and then. Whether an answer said that there is one."""
        path = f"/runs/{name}?count={count}&pause={pause}"
        second = threading.Thread(target=self._post, args=(path,))
        second.start()
        answer = self._post(path)
        second.join()
        self.counts["runs"] += 1
        return answer == 200

    def _post(self, path: str) -> int:
        with contextlib.suppress(requests.RequestException):
            return requests.post(self._url + path, timeout=TIMEOUT).status_code
        return 0

    def _follow(self, name: str, drops: bool, seed: int) -> None:
        """Follow a run until the answer is 204, reconnecting with the last ID as a browser does."""
        choice, transcript = random.Random(seed), Transcript()
        with self._lock:
            self.transcripts[name].append(transcript)
        give_up = time.monotonic() + 120
        while transcript.status not in (204, 404) and time.monotonic() < give_up:
            headers = {"Last-Event-ID": transcript.ids[-1]} if transcript.ids else {}
            with (
                contextlib.suppress(requests.RequestException, ReadError),
                requests.get(f"{self._url}/runs/{name}", headers=headers, stream=True, timeout=TIMEOUT) as answer,
            ):
                transcript.status = answer.status_code
                if answer.status_code == 200:
                    self._read(answer, transcript, choice.randrange(1, 40) if drops else sys.maxsize)
            time.sleep(0.05)

    def _read(self, answer: requests.Response, transcript: Transcript, most: int) -> None:
        for number, event in enumerate(Reader(answer)):
            if number >= most:
                self.counts["drops"] += 1
                return
            if event.type == "reset":
                transcript.resets += 1
                transcript.ids, transcript.data = [], []
            elif event.id:
                transcript.ids.append(event.id)
                if event.type == "end":
                    transcript.ends.append(event.json())
                else:
                    transcript.data.append(event.data or "")

    # What disturbs it.

    def _workers(self) -> list[int]:
        return children_of(self._server.process.pid)

    def _disturb(self) -> None:
        kinds = itertools.cycle(["kill", "term", "freeze", "kill"])
        while not self._over.wait(self._random.uniform(*self._pauses)):
            workers = self._workers()
            if len(workers) < WORKERS:
                continue  # the master has not replaced the last one yet
            kind = next(kinds)
            pid = self._random.choice(workers)
            with contextlib.suppress(ProcessLookupError):
                if kind == "freeze":
                    os.kill(pid, signal.SIGSTOP)
                    self._over.wait(self._random.uniform(0.5, 3 * self._pauses[1]))
                    os.kill(pid, signal.SIGCONT)
                else:
                    os.kill(pid, signal.SIGKILL if kind == "kill" else signal.SIGTERM)
                self.counts[kind] += 1

    # What it must have come to.

    def check(self, broker_url: str, starts: Path) -> dict[str, Any]:
        """Compare all transcripts with the log.

        :return: figures.
        """
        began = collections.Counter(line.split()[0] for line in starts.read_text().splitlines())
        self.failures += [f"{name}: {count} producers" for name, count in began.items() if count > 1]
        states: collections.Counter[str] = collections.Counter()
        with open_broker(broker_url) as broker:
            for name, transcripts in self.transcripts.items():
                events = []
                with broker.subscribe(name, since="start") as subscription:
                    while (event := subscription.get(timeout=10)) is not None:
                        events.append(event)
                        if event.type == "end":
                            break
                if not events or events[-1].type != "end":
                    self.failures.append(f"{name}: its log has no end")
                    continue
                ids = [event.id for event in events]
                states[events[-1].json()["state"]] += 1
                expected = [f"{name}:{number}" for number in range(len(events) - 1)]
                if [event.data for event in events[:-1]] != expected:
                    self.failures.append(f"{name}: the log has a gap or a duplicate")
                for transcript in transcripts:
                    self.counts["transcripts"] += 1
                    self.counts["events"] += len(transcript.ids)
                    if transcript.ids != ids or len(transcript.ends) != 1 or transcript.status != 204:
                        self.failures.append(
                            f"{name}: a client has {len(transcript.ids)} of {len(ids)} events, "
                            f"{len(transcript.ends)} ends, status {transcript.status}, {transcript.resets} resets"
                        )
        return {**self.counts, "states": dict(states), "failures": len(self.failures)}


@contextlib.contextmanager
def broker_of(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder}/runs.db"
        return
    with RedisServer(folder, *KEEPING) as server:
        yield server.url


def chaos(
    kind: str, seconds: float, runs: int, seed: int, folder: Path, pauses: tuple[float, float] = (1.0, 4.0)
) -> tuple[dict[str, Any], list[str]]:
    """Do all of it.

    :return: figures, and what was wrong.
    """
    starts = folder / "starts"
    starts.touch()
    with broker_of(kind, folder) as url:
        command = gunicorn(
            "--workers", str(WORKERS), "--worker-class", "gthread", "--threads", "8", "--graceful-timeout", "4",
            app="flask_app.runs", config="tests/gunicorn_hooks.py",
        )  # fmt: skip
        environment = {"BROKER": url, "STARTS": str(starts)}
        with running(Kind("gthread", command, environment=environment), folder) as server:
            load = Chaos(server, seed, pauses)
            load.run(seconds, runs)
            figures = load.check(url, starts)
    return figures, load.failures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", choices=["sqlite", "redis"], default="sqlite")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--runs", type=int, default=20, help="runs at the same time (20)")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        figures, failures = chaos(given.broker, given.seconds, given.runs, given.seed, Path(made))
    print(json.dumps(figures))
    sys.exit("\n".join(failures[:50]) or 0)
