"""The contestants of benchmarks.fanout, and each at work: a server, and the load client that is connected to it."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

from .fanout_tools import HERE, compiled, node_server
from .processes import START, AtWork, Process, free_port, tree_of, wait_for_port

#: Heads that are awaited at once, so that no backlog overflows.
AT_ONCE = 64
_BACKLOG = "4096"
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_CONNECT = 150
_SECONDS = 120.0
_WARM = 2
_TRIES = 5

Command = Callable[[int, int], list[str]]
Missing = Callable[[], str]


@dataclass(frozen=True)
class Contestant:
    """Something that brings an event to clients."""

    name: str
    #: The command that serves so many clients on a port.
    command: Command
    missing: Missing
    #: The serving mode that ``/tiers`` must have for all streams, if it is checked.
    tier: str = ""
    #: More clients than that it is not tried with.
    most: int = 1_000_000
    #: Whether a thread of it can be made to compute.
    spins: bool = False
    #: Added to the request that publishes.
    query: str = ""

    @property
    def ours(self) -> bool:
        """Whether a fault of it is a fault of ours."""
        return self.name.startswith("ssesync")


def _modules(*names: str) -> Missing:
    return lambda: next((name for name in names if util.find_spec(name) is None), "")


def _gunicorn(worker: str, app: str, *options: str, threads: int = 0, each: bool = False) -> Command:
    def command(port: int, clients: int) -> list[str]:
        found = [sys.executable, "-m", "gunicorn", "-w", "1", "-k", worker, "-b", f"127.0.0.1:{port}", *options]
        found += ["--backlog", _BACKLOG, "--log-level", "error", "--graceful-timeout", "3"]
        if threads or each:
            found += ["--threads", str(threads or clients + 10)]
        if each or worker == "gevent":
            found += ["--worker-connections", str(2 * clients + 20)]
        return [*found, f"benchmarks.fanout_apps:{app}"]

    return command


def _uvicorn(app: str, *, fast: bool) -> Command:
    parts = ["--http", "httptools", "--loop", "uvloop"] if fast else ["--http", "h11", "--loop", "asyncio"]

    def command(port: int, clients: int) -> list[str]:
        found = [sys.executable, "-m", "uvicorn", "--factory", "--port", str(port), "--backlog", _BACKLOG, *parts]
        return [*found, "--no-access-log", "--log-level", "error", f"benchmarks.fanout_apps:{app}"]

    return command


def _floor(port: int, clients: int) -> list[str]:
    program, _ = compiled("fanout_floor")
    return [str(program), str(port)] if program else [sys.executable, "-m", "benchmarks.fanout_floor", str(port)]


def _node(port: int, clients: int) -> list[str]:
    return ["node", str(node_server()[0]), str(port)]


_UVICORN = ("uvicorn", "starlette")
_FAST = (*_UVICORN, "uvloop", "httptools")
_OURS = ("flask", "gunicorn")
#: How many clients get a thread each.
THREADS = 1_000

FLOOR = Contestant("send loop", _floor, _modules(), spins=True)
CONTESTANTS = [
    Contestant("send loop, once an event", _floor, _modules(), query="&each=1"),
    Contestant(
        "ssesync detached, gthread",
        _gunicorn("gthread", "ours()", threads=4),
        _modules(*_OURS),
        tier="detached",
        spins=True,
    ),
    Contestant("ssesync detached, sync", _gunicorn("sync", "ours()"), _modules(*_OURS), tier="detached"),
    Contestant(
        "ssesync detached, own channels",
        _gunicorn("gthread", "ours(own=True)", threads=4),
        _modules(*_OURS),
        tier="detached",
        spins=True,
    ),
    Contestant(
        "ssesync served, gthread",
        _gunicorn("gthread", "ours(False)", each=True),
        _modules(*_OURS),
        tier="served",
        most=THREADS,
    ),
    Contestant("ssesync served, gevent", _gunicorn("gevent", "ours(False)"), _modules(*_OURS, "gevent"), tier="served"),
    Contestant("sse-starlette, uvicorn", _uvicorn("sse_starlette", fast=False), _modules(*_UVICORN, "sse_starlette")),
    Contestant(
        "sse-starlette, uvicorn[standard]", _uvicorn("sse_starlette", fast=True), _modules(*_FAST, "sse_starlette")
    ),
    Contestant("StreamingResponse, uvicorn", _uvicorn("streaming", fast=False), _modules(*_UVICORN)),
    Contestant("StreamingResponse, uvicorn[standard]", _uvicorn("streaming", fast=True), _modules(*_FAST)),
    Contestant("better-sse, node", _node, lambda: node_server()[1]),
]


class Load(Process):
    """The load client, connected to a port."""

    def __init__(self, port: int, clients: int) -> None:
        program, _ = compiled("fanout_client")
        command = [str(program)] if program else [sys.executable, "-m", "benchmarks.fanout_client"]
        super().__init__([*command, str(port), str(clients), str(AT_ONCE)], _environ())

    def answer(self, seconds: float) -> dict[str, Any]:
        """The next thing that it says."""
        found: dict[str, Any] = json.loads(self.must_hear(seconds))
        return found

    def end(self) -> None:
        """End the process, and close its output."""
        super().end()
        while self._lines.get(timeout=START):
            pass
        assert self.process.stdout is not None
        self.process.stdout.close()


def _environ() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))}


class Arena(AtWork):
    """A contestant with so many clients, and the events that it has brought to them."""

    def __init__(self, contestant: Contestant, clients: int) -> None:
        self.contestant, self.clients = contestant, clients
        self.port = free_port()
        self._next = 0
        self._client: Load | None = None
        super().__init__(contestant.name, contestant.command(self.port, clients), _environ())

    def _begin(self) -> None:
        wait_for_port(self.port, self.server)
        self._ask(f"/publish?first=0&count=1{self.contestant.query}")  # loads what is loaded late
        self._next = 1
        time.sleep(0.3)
        self.idle = memory(self.server.pid)
        cpu = cpu_of(self.server.pid)
        self._client = Load(self.port, self.clients)
        connected = self._hear(_CONNECT)
        #: Clients a second, and what each cost the server.
        self.connects = self.clients / connected["seconds"]
        self.connect_cpu = (cpu_of(self.server.pid) - cpu) / self.clients * 1e6
        self._warm_up()
        if self.contestant.tier:
            tiers = json.loads(self._ask("/tiers"))
            if tiers != {self.contestant.tier: self.clients}:
                raise RuntimeError(f"{self.clients} streams ought to be {self.contestant.tier}: {tiers}")
        #: The load of the processors during a pause, mostly by other programs.
        self.busy = busy(1.0)
        self.full = memory(self.server.pid)

    def _warm_up(self) -> None:
        """Until every client gets events, and for some more."""
        good = 0
        for _ in range(_TRIES + _WARM):
            found = self.measure(1, seconds=20)
            good += not found["faults"]
            if good > _WARM:
                return
        raise RuntimeError(f"not every client gets events: {found}")

    def _ask(self, path: str) -> bytes:
        with _OPENER.open(f"http://127.0.0.1:{self.port}{path}", timeout=300) as answer:
            return bytes(answer.read())

    def _hear(self, seconds: float) -> dict[str, Any]:
        assert self._client is not None
        found = self._client.answer(seconds)
        if "error" in found:
            raise RuntimeError(found["error"])
        return found

    def _expect(self, count: int, seconds: float) -> None:
        assert self._client is not None
        self._client.say(f"expect {self._next} {count} {seconds}")
        self._hear(10)

    def measure(self, count: int, *, seconds: float = _SECONDS) -> dict[str, Any]:
        """Publish so many events at once and see what comes of them. Times in ms, processor times in µs a receipt."""
        self._expect(count, seconds)
        cpu = cpu_of(self.server.pid)
        self._ask(f"/publish?first={self._next}&count={count}{self.contestant.query}")
        found = self._hear(seconds + 30)
        time.sleep(0.05)
        cpu = cpu_of(self.server.pid) - cpu
        self._next += count
        received = max(found["received"], 1)
        late = (found["last"] - found["sent"]) / 1e6
        return {
            "spread": (found["last"] - found["first"]) / 1e6,
            "late": late,
            "rate": found["received"] / late * 1e3 if late > 0 else 0.0,
            "cpu": cpu / received * 1e6,
            "client_cpu": found["cpu"] / received * 1e6,
            "bytes": found["bytes"] / received,
            "faults": faults(found),
        }

    def spin(self, on: bool) -> None:
        """Have a thread of the server compute, or no more."""
        self._ask(f"/spin?on={int(on)}")

    def strays(self, seconds: float) -> str:
        """The events that were not published, so far and within this number of seconds."""
        self._expect(0, seconds)
        return faults(self._hear(seconds + 10))

    def __exit__(self, *exc_info: object) -> None:
        if self._client is not None:
            self._client.end()
        super().__exit__(*exc_info)


def faults(found: dict[str, Any]) -> str:
    """What went wrong, in words."""
    kinds = ("missing", "disorder", "stray", "corrupt", "ended")
    return ", ".join(f"{found[kind]:,} {kind}" for kind in kinds if found[kind])


def busy(seconds: float) -> float:
    """The share of the processors' time that is not idle in the next so many seconds; 0 where the kernel is another."""
    found = []
    for pause in (seconds, 0.0):
        with contextlib.suppress(OSError):
            times = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
            found.append((sum(times), times[3] + times[4]))
        time.sleep(pause)
    if len(found) < 2 or found[1][0] == found[0][0]:
        return 0.0
    return 1 - (found[1][1] - found[0][1]) / (found[1][0] - found[0][0])


def cpu_of(pid: int) -> float:
    """The processor time of a process and its children in seconds, to the nanosecond if the kernel reports it."""
    total = 0.0
    for each in tree_of(pid):
        # Gone meanwhile, or no such clock (the number is Linux's way of naming another process's).
        with contextlib.suppress(OSError):
            total += time.clock_gettime((~each << 3) | 2)
    return total


def memory(pid: int) -> dict[str, float]:
    """In MB: what the server's processes have in memory, the largest of them, all with shared pages shared out, and
    the most that each has ever had.
    """
    sizes, shares, peaks = [0.0], [0.0], [0.0]
    for each in tree_of(pid):
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
            sizes.append(_megabytes(lines, "Rss:"))
            shares.append(_megabytes(lines, "Pss:"))
            peaks.append(_megabytes(Path(f"/proc/{each}/status").read_text().splitlines(), "VmHWM:"))
    return {"rss": sum(sizes), "largest": max(sizes), "pss": sum(shares), "peak": sum(peaks)}


def _megabytes(lines: list[str], field: str) -> float:
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024 / 1e6
