"""The processes of benchmarks.channels: Redis, the server under test, a publisher, the subscribers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

from .processes import START, AtWork, Process, free_port, stop, tree_of, wait_for_port

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Contestant:
    """Something that takes events and brings them to subscribers."""

    name: str
    app: str  # of channel_apps
    server: str  # gthread, gevent or uvicorn
    broker: str = ""  # memory, sqlite or redis; where the others keep events: redis, or nothing for the process itself
    storage: bool = False
    served: bool = False  # by a thread for each subscriber, though it might be detached
    needs: tuple[str, ...] = ()

    @property
    def missing(self) -> str:
        """What it needs and is not there, if anything."""
        if self.broker == "redis" and shutil.which("redis-server") is None:
            return "redis-server"
        modules = {"gthread": "gunicorn", "gevent": "gevent", "uvicorn": "uvicorn"}
        needed = (modules[self.server], "redis" if self.broker == "redis" else "json", *self.needs)
        return next((name for name in needed if util.find_spec(name) is None), "")

    @property
    def publishes_inside(self) -> bool:
        """Whether only the server's own process can publish."""
        return self.broker in ("memory", "")


OURS = "ssesync, Redis, gthread"
_EVENTSTREAM = ("django_eventstream",)
CONTESTANTS = [
    Contestant("ssesync, memory, gthread", "ours", "gthread", "memory", needs=("flask",)),
    Contestant("ssesync, SQLite, gthread", "ours", "gthread", "sqlite", needs=("flask",)),
    Contestant(OURS, "ours", "gthread", "redis", needs=("flask",)),
    Contestant("ssesync, Redis, served", "ours", "gthread", "redis", served=True, needs=("flask",)),
    Contestant("ssesync, Redis, gevent", "ours", "gevent", "redis", needs=("flask",)),
    Contestant("flask-sse, Redis, gthread", "flask_sse", "gthread", "redis", needs=("flask_sse",)),
    Contestant("flask-sse, Redis, gevent", "flask_sse", "gevent", "redis", needs=("flask_sse",)),
    Contestant("django-eventstream, in process", "django_eventstream", "uvicorn", needs=_EVENTSTREAM),
    Contestant("django-eventstream, Redis", "django_eventstream", "uvicorn", "redis", needs=_EVENTSTREAM),
    Contestant(
        "django-eventstream, Redis, stored", "django_eventstream", "uvicorn", "redis", storage=True, needs=_EVENTSTREAM
    ),
]


@contextlib.contextmanager
def redis_running() -> Iterator[subprocess.Popen[bytes] | None]:
    """A Redis of one's own, on ``redis_port``, which keeps nothing on disk; ``None`` where there is none."""
    if shutil.which("redis-server") is None:
        yield None
        return
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with tempfile.TemporaryDirectory() as directory:
        process = subprocess.Popen([*command, "--dir", directory], stdout=subprocess.DEVNULL)
        process.redis_port = port  # type: ignore[attr-defined]
        try:
            wait_for_port(port, process)
            yield process
        finally:
            stop(process)


class Bench(AtWork):
    """A contestant at work: server, publisher and so many subscribers."""

    def __init__(self, contestant: Contestant, subscribers: int, redis: Any, directory: Path) -> None:
        self.contestant, self.subscribers, self.redis = contestant, subscribers, redis
        self.port = free_port()
        self._environ = {"PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")]))}
        url = f"redis://127.0.0.1:{redis.redis_port}/0" if redis else ""
        if contestant.broker == "redis":
            self._environ["BENCH_REDIS"] = url
        kinds = {"memory": "memory://", "sqlite": f"sqlite:///{directory}/{self.port}.db", "redis": url}
        self._environ["BENCH_BROKER"] = kinds.get(contestant.broker, "")
        if contestant.storage:
            self._environ["BENCH_STORED"] = "1"
        if contestant.served:
            self._environ["BENCH_SERVED"] = "1"
        self._open: list[Process] = []
        super().__init__(contestant.name, self._command(), self._environ)

    def _command(self) -> list[str]:
        # Streams, the publishing request, and some.
        room, app = self.subscribers + 10, f"benchmarks.channel_apps:{self.contestant.app}"
        if self.contestant.server == "uvicorn":
            return [sys.executable, "-m", "uvicorn", "--factory", "--port", str(self.port), "--log-level", "error", app]
        command = [sys.executable, "-m", "gunicorn", "-w", "1", "-k", self.contestant.server, "--log-level", "error"]
        command += ["-b", f"127.0.0.1:{self.port}", "--worker-connections", str(2 * room), "--graceful-timeout", "3"]
        threads = ["--threads", str(room)] if self.contestant.server == "gthread" else []
        return [*command, *threads, f"{app}()"]

    def _begin(self) -> None:
        wait_for_port(self.port, self.server)
        self.publish(-1_000_000, 1, 0, inside=True)  # loads what is loaded late
        before = memory_of(self.server.pid)
        self._publisher: Process | None = None
        if not self.contestant.publishes_inside:
            command = [sys.executable, "-m", "benchmarks.channel_apps", self.contestant.app]
            self._publisher = self._start(command)
            self._publisher.must_hear(START)
        self.crowd = self._start([sys.executable, "-m", "benchmarks.crowd", str(self.port), str(self.subscribers)])
        self.crowd.must_hear(START)
        self.crowd.say("warm")
        for number in range(200):
            self.publish(number - 1000, 1, 0)
            if self.crowd.hear(0.3):
                break
        else:
            raise RuntimeError("not every subscriber gets events")
        time.sleep(0.5)
        #: Of the server, in kB, for each subscriber.
        self.kilobytes = (memory_of(self.server.pid) - before) / self.subscribers

    def _start(self, command: list[str]) -> Process:
        process = Process(command, self._environ)
        self._open.append(process)
        return process

    def publish(self, first: int, count: int, pause: float, *, inside: bool = False) -> float:
        """Publish; the seconds it took."""
        if inside or self._publisher is None:
            query = f"first={first}&count={count}&pause={pause}"
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"http://127.0.0.1:{self.port}/publish?{query}", timeout=300) as answer:
                return float(answer.read())
        self._publisher.say(f"{first} {count} {pause}")
        return float(self._publisher.must_hear(300))

    def run(self, count: int, pause: float, seconds: float) -> dict[str, Any]:
        """Publish events and see what comes of them."""
        self.crowd.say(f"expect {count} {seconds}")
        self.crowd.must_hear(10)
        cpu, start = self._cpu(), time.monotonic_ns()
        published = self.publish(0, count, pause)
        found: dict[str, Any] = json.loads(self.crowd.must_hear(seconds + 30))
        wall = (found["last"] - start) / 1e9
        received = count * self.subscribers - found["missing"]
        return {
            **found,
            "rate": received / wall if wall > 0 else 0.0,
            "published": count / published,
            "cpu": (self._cpu() - cpu) / received * 1e6 if received else 0.0,
        }

    def _cpu(self) -> float:
        processes = tree_of(self.server.pid)
        if self.contestant.broker == "redis":
            processes += [self.redis.pid]
        return sum(map(_cpu_of, processes))

    def __exit__(self, *exc_info: object) -> None:
        for process in self._open:
            process.end()
        super().__exit__(*exc_info)


def _cpu_of(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0  # not Linux, or gone
    return (int(fields[11]) + int(fields[12])) / _TICK


def memory_of(pid: int) -> int:
    """What a process and its children have in memory, in kB."""
    total = 0
    for each in tree_of(pid):
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{each}/status").read_text().splitlines()
            total += int(next(line for line in lines if line.startswith("VmRSS:")).split()[1])
    return total
