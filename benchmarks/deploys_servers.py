"""An application under gunicorn with its clients, and all that can happen to it in a deploy.

Used by benchmarks.deploys and tests.live.keeper.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .processes import Process, stop, tree_of

#: What keeps the clients of a worker that ends: ``nothing``, another worker (``siblings``), a process (``keeper``).
WAYS = ("nothing", "siblings", "keeper")
APP = "benchmarks.deploys_apps:application()"
#: Seconds within which each step must be done.
WITHIN = 90.0
#: A server's largest log of the broker, so that clients that were away for a minute find all events in it.
LIMITS = "max_bytes=268435456&max_events=1000000"
_ROOT = Path(__file__).resolve().parents[1]
_BACKLOG = 2048
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class StepFailed(Exception):
    """A step of a deploy did not come to its end."""


@dataclass(frozen=True)
class Plan:
    """What is deployed."""

    broker: str
    way: str = "keeper"
    worker: str = "gthread"
    workers: int = 2
    #: ``MODULE:NAME`` for gunicorn.
    app: str = APP
    environment: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    #: Bytes of the server's send buffers; 0: the system's.
    send_buffer: int = 0
    keepers: int = 1
    keeper_options: tuple[str, ...] = ()


def wait_until(condition: Callable[[], object], what: str, within: float = WITHIN) -> None:
    """Wait for something.

    :raises StepFailed: it has not happened in time.
    """
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise StepFailed(f"within {within:g} s this did not happen: {what}")
        time.sleep(0.02)


def sockets_of(pid: int) -> int:
    """How many sockets a process has."""
    found = 0
    with contextlib.suppress(OSError):
        for each in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found += str(each.readlink()).startswith("socket:")
    return found


def is_running(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


class Deployment:
    """A gunicorn, and keepers if the plan has some. In a ``with`` block it runs.

    :param folder: for logs and sockets. Its path is short.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        if plan.send_buffer:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, plan.send_buffer)
        self.port: int = self.listener.getsockname()[1]
        self.server: subprocess.Popen[bytes] | None = None
        self.keepers: dict[int, subprocess.Popen[bytes]] = {}
        runtime = folder / "run"
        runtime.mkdir(mode=0o700, exist_ok=True)
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        self._environ = {
            **os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "XDG_RUNTIME_DIR": str(runtime),
            "BENCH_BROKER": plan.broker, "SSESYNC_BROKER": plan.broker, "BENCH_WAY": plan.way, **plan.environment,
        }  # fmt: skip
        if plan.way == "keeper":
            self._environ["SSESYNC_KEEPER"] = ",".join(str(self._keeper_path(each)) for each in range(plan.keepers))

    def __enter__(self) -> Deployment:
        try:
            if self.plan.way == "keeper":
                for each in range(self.plan.keepers):
                    self.start_keeper(each)
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        processes = [*self.keepers.values(), *([self.server] if self.server is not None else [])]
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in processes:
            stop(process)
        self.listener.close()

    # The application.

    def start(self) -> None:
        """Start gunicorn, and wait until each of its workers has answered."""
        descriptor, plan = self.listener.fileno(), self.plan
        command = [
            sys.executable, "-m", "gunicorn", "--bind", f"fd://{descriptor}", "--workers", str(plan.workers),
            "--worker-class", plan.worker, *(["--threads", "4"] if plan.worker == "gthread" else []),
            "--config", "python:benchmarks.deploys_hooks", "--backlog", str(_BACKLOG), *plan.options, plan.app,
        ]  # fmt: skip
        with (self.folder / "gunicorn.log").open("ab") as log:
            self.server = subprocess.Popen(
                command, cwd=_ROOT, env=self._environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=[descriptor],
            )  # fmt: skip
        self._wait_for_workers(())

    def workers(self) -> list[int]:
        """The workers' process IDs."""
        return [] if self.server is None else [each for each in tree_of(self.server.pid)[1:] if is_running(each)]

    def fetch(self, path: str = "/plain") -> tuple[bytes, int]:
        """A plain answer, and the worker that has given it; 0 where it is not named."""
        with _OPENER.open(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            return bytes(answer.read()), int(answer.headers.get("X-Worker", 0))

    def _wait_for_workers(self, old: Iterable[int]) -> None:
        """Wait until all workers are new ones, and each has answered."""
        answered: set[int] = set()

        def all_answer() -> bool:
            if self.server is None or self.server.poll() is not None:
                raise StepFailed("gunicorn has ended")
            workers = self.workers()
            if len(workers) != self.plan.workers or set(workers) & set(old):
                return False
            with contextlib.suppress(OSError):
                answered.add(self.fetch()[1])
            return set(workers) <= answered

        wait_until(all_answer, "all workers are new and answer")

    def hup(self) -> None:
        """Have gunicorn load the application again: new workers, then the end of the old ones."""
        assert self.server is not None
        old = self.workers()
        self.server.send_signal(signal.SIGHUP)
        self._wait_for_workers(old)

    def kill(self) -> None:
        """Kill all workers at once. Gunicorn starts others."""
        old = self.workers()
        for pid in old:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._wait_for_workers(old)

    def term(self) -> None:
        """End one worker, as ``max_requests`` does. Gunicorn starts another one."""
        old = self.workers()[:1]
        os.kill(old[0], signal.SIGTERM)
        self._wait_for_workers(old)

    def churn(self) -> None:
        """Send requests until each worker has been replaced because of ``--max-requests``."""
        old = set(self.workers())

        def are_replaced() -> bool:
            with contextlib.suppress(OSError):
                self.fetch()
            return not old & set(self.workers())

        wait_until(are_replaced, "max_requests has replaced all workers")
        self._wait_for_workers(old)

    def stop(self) -> None:
        """End gunicorn."""
        assert self.server is not None
        self.server.terminate()
        try:
            self.server.wait(WITHIN)
        except subprocess.TimeoutExpired:
            raise StepFailed("gunicorn does not end") from None
        self.server = None

    def restart(self) -> None:
        """End gunicorn, and start it again. Connections wait in the listener's backlog meanwhile."""
        self.stop()
        self.start()

    def crash(self) -> None:
        """Kill gunicorn and all of its workers at once, and start it again."""
        assert self.server is not None
        for pid in tree_of(self.server.pid)[::-1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.server.wait(WITHIN)
        self.server = None
        self.start()

    # The keeper.

    def _keeper_path(self, number: int) -> Path:
        return self.folder / f"keeper{number}" / "socket"

    def _spawn_keeper(self, number: int, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "ssesync", "keeper", "--bind", str(self._keeper_path(number)), *options]
        command += self.plan.keeper_options
        with (self.folder / f"keeper{number}.log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=_ROOT, env=self._environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def start_keeper(self, number: int = 0) -> None:
        """Start a keeper, and wait until it listens."""
        path = self._keeper_path(number)
        process = self.keepers[number] = self._spawn_keeper(number)

        def listens() -> bool:
            if process.poll() is not None:
                raise StepFailed(f"the keeper ended with {process.returncode}:\n{self.log(f'keeper{number}')}")
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(path))
                return True
            return False

        wait_until(listens, "the keeper listens")

    def upgrade(self, number: int = 0) -> None:
        """Start the next keeper, which takes all that the current one has. That one ends then."""
        old = self.keepers[number]
        new = self._spawn_keeper(number, "--replace")
        deadline = time.monotonic() + WITHIN
        while old.poll() is None:
            if new.poll() is not None:
                raise StepFailed(f"the next keeper ended with {new.returncode}:\n{self.log(f'keeper{number}')}")
            if time.monotonic() > deadline:
                new.kill()
                raise StepFailed("the old keeper does not end")
            time.sleep(0.02)
        self.keepers[number] = new
        if old.returncode:
            raise StepFailed(f"the old keeper ended with {old.returncode}:\n{self.log(f'keeper{number}')}")

    def signal_keeper(self, signum: int, number: int = 0) -> None:
        """Send a keeper a signal."""
        self.keepers[number].send_signal(signum)

    def wait_until_kept(self, clients: int) -> None:
        """Wait until the keepers have so many clients, counted by their sockets."""

        def are_kept() -> bool:
            time.sleep(0.1)  # a look at ten thousand descriptors takes long
            return sum(sockets_of(each.pid) for each in self.keepers.values()) > clients

        wait_until(are_kept, f"the keeper has {clients} clients")

    def log(self, name: str = "gunicorn", last: int = 4000) -> str:
        """The end of a log."""
        with contextlib.suppress(OSError):
            return (self.folder / f"{name}.log").read_text(errors="replace")[-last:]
        return ""


class Clients:
    """The processes of clients and of the publisher, in a ``with`` block.

    :param slow: how much of what is published slow clients read. With less than 1 they lag, and catch up in a pause.
    """

    def __init__(
        self, port: int, kinds: dict[str, int], broker: str, *, rate: float = 20.0, size: int = 200, channels: int = 1,
        slow: float = 0.8, options: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        names = [f"deploys{number}" for number in range(channels)]
        slow_rate = int(slow * rate * (size + 60))
        given = [f"{kind}={count}" for kind, count in kinds.items() if count]
        environ = {"PYTHONPATH": os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))}
        self._publisher = Process(
            [sys.executable, "-m", "benchmarks.deploys_publisher", str(rate), str(size), *names],
            {**environ, "BENCH_BROKER": broker},
        )
        self._clients = Process(
            [sys.executable, "-m", "benchmarks.deploys_client", str(port), *given, "--channels", *names, "--slow-rate",
             str(slow_rate), *options],
            environ,
        )  # fmt: skip
        self.published = 0

    def __enter__(self) -> Clients:
        try:
            self._publisher.must_hear(60)
            #: How many have connected, and the seconds that it took.
            self.connected = self._answer(150)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._clients.end()
        self._publisher.end()

    def _answer(self, seconds: float) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._clients.must_hear(seconds))
        if "error" in found:
            raise StepFailed(f"the clients: {found['error']}")
        return found

    def publish(self) -> None:
        """Publish from now on."""
        self._publisher.say("go")

    def pause(self) -> int:
        """Publish no more. The newest event's number."""
        self._publisher.say("pause")
        self.published = int(self._publisher.must_hear(60))
        return self.published

    def reach_newest(self, seconds: float) -> dict[str, Any]:
        """Publish no more, and wait until all clients have the newest event.

        :return: a report of the time since the last one.
        """
        newest = self.pause()
        self._clients.say(f"reach {newest} {seconds}")
        return self._answer(seconds + 60)

    def report(self) -> dict[str, Any]:
        """What has happened since the last report."""
        self._clients.say("report")
        return self._answer(60)

    def arrivals(self) -> dict[int, int]:
        """The events received so far, by tenths of a second."""
        self._clients.say("arrivals")
        return {int(tenth): count for tenth, count in self._answer(60).items()}
