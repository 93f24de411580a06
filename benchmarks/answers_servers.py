"""The contestants of benchmarks.answers, and a trial of one: its server, the load client, an upstream for relays."""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

from .answers_apps import CA
from .answers_upstream import RATE
from .fanout_servers import cpu_of, memory
from .fanout_tools import HERE, compiled
from .processes import AtWork, Process, free_port, wait_for_port

#: Clients that come in a second.
ARRIVALS = 200
#: How many clients get a thread each, in served streams.
THREADS = 1_000
_BACKLOG = "4096"
# Seconds after the last request in which a first event counts, and for what else is waited for.
_LIMIT, _ANSWER = 15.0, 60.0
_WARM = 10
_PAUSE = 0.05
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))

Command = Callable[[int, int], list[str]]


@dataclass(frozen=True)
class Scenario:
    """What the streams are."""

    name: str
    #: Events a second in each.
    rate: float
    relays: bool = False
    tls: bool = False


SCENARIOS = {
    "slow": Scenario("producers, 1 event a second", 1),
    "quick": Scenario("producers, 10 events a second", 10),
    "plain": Scenario("relays, 10 chunks a second", RATE, relays=True),
    "tls": Scenario("relays, 10 chunks a second over TLS", RATE, relays=True, tls=True),
}


@dataclass(frozen=True)
class Contestant:
    """A server with an application."""

    name: str
    #: The command that serves so many clients on a port.
    command: Command
    #: Modules that it needs.
    modules: tuple[str, ...]
    producers: bool = True
    relays: bool = True
    #: More clients than that it is not tried with.
    most: int = 1_000_000

    @property
    def ours(self) -> bool:
        """Whether a fault of it is a fault of ours."""
        return self.name.startswith("ssesync")

    def missing(self) -> str:
        """The first of its modules that is not installed."""
        return next((name for name in self.modules if util.find_spec(name) is None), "")

    def is_in(self, scenario: Scenario) -> bool:
        """Whether it has such streams."""
        return self.relays if scenario.relays else self.producers


def _gunicorn(worker: str, app: str, threads: int = 0) -> Command:
    def command(port: int, clients: int) -> list[str]:
        found = [sys.executable, "-m", "gunicorn", "-w", "1", "-k", worker, "-b", f"127.0.0.1:{port}"]
        found += ["--backlog", _BACKLOG, "--log-level", "error", "--graceful-timeout", "1"]
        if worker == "gthread":
            found += ["--threads", str(threads or clients + 10), "--worker-connections", str(2 * clients + 20)]
        return [*found, f"benchmarks.answers_apps:{app}"]

    return command


def _uvicorn(app: str) -> Command:
    def command(port: int, clients: int) -> list[str]:
        found = [sys.executable, "-m", "uvicorn", "--factory", "--port", str(port), "--backlog", _BACKLOG]
        found += ["--http", "httptools", "--loop", "uvloop", "--no-access-log", "--log-level", "error"]
        return [*found, "--timeout-graceful-shutdown", "1", f"benchmarks.answers_apps:{app}"]

    return command


_OURS = ("flask", "gunicorn")
_UVICORN = ("starlette", "uvicorn", "uvloop", "httptools")
CONTESTANTS = [
    Contestant("ssesync detached, gthread(4)", _gunicorn("gthread", "ours()", 4), _OURS),
    Contestant("ssesync detached, sync", _gunicorn("sync", "ours()"), _OURS),
    Contestant("ssesync served, a thread each", _gunicorn("gthread", "ours(False)"), _OURS, most=THREADS),
    Contestant("sse-starlette, uvicorn", _uvicorn("sse_starlette"), (*_UVICORN, "sse_starlette"), relays=False),
    Contestant("StreamingResponse, uvicorn", _uvicorn("streaming"), _UVICORN, relays=False),
    Contestant("httpx, Starlette, uvicorn", _uvicorn("with_httpx"), (*_UVICORN, "httpx"), producers=False),
    Contestant("aiohttp, Starlette, uvicorn", _uvicorn("with_aiohttp"), (*_UVICORN, "aiohttp"), producers=False),
]


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1.

    :return: files: certificate and key, and the authority's certificate.
    """
    import trustme

    authority = trustme.CA()
    own, trusted = folder / "server.pem", folder / "ca.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(own))
    authority.cert_pem.write_to_path(str(trusted))
    return own, trusted


class Load(Process):
    """The load client: so many streams of a path."""

    def __init__(self, port: int, path: str, clients: int, ramp: float, limit: float = _LIMIT) -> None:
        program, reason = compiled("answers_client")
        if program is None:
            raise RuntimeError(f"no load client, for want of {reason}")
        super().__init__([str(program), str(port), path, str(clients), str(ramp), str(limit)])
        self._patience = ramp + limit

    def first_events(self) -> dict[str, Any]:
        """Wait until all have their first event."""
        return self._answer(self._patience)

    def measure(self, seconds: float) -> dict[str, Any]:
        """Count what comes in so many seconds."""
        self.begin(seconds)
        return self.counted(seconds)

    def begin(self, seconds: float) -> None:
        """Begin to count, which has begun when this returns."""
        self.say(f"measure {seconds}")
        self._answer(0)

    def counted(self, seconds: float) -> dict[str, Any]:
        """What came, after so many seconds."""
        return self._answer(seconds)

    def _answer(self, seconds: float) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.must_hear(seconds + _ANSWER))
        if "error" in found:
            raise RuntimeError(found["error"])
        return found

    def end(self) -> None:
        """End the process, and close its output."""
        super().end()
        while self._lines.get(timeout=_ANSWER):
            pass
        assert self.process.stdout is not None
        self.process.stdout.close()


class Trial(AtWork):
    """A contestant with so many streams."""

    def __init__(self, contestant: Contestant, scenario: Scenario, clients: int) -> None:
        self._scenario, self._clients = scenario, clients
        self._port = free_port()
        self._folder = tempfile.TemporaryDirectory()
        self._upstream: Process | None = None
        own: list[str] = []
        environ = {"PYTHONPATH": os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))}
        if scenario.tls:
            certified, trusted = certificate(Path(self._folder.name))
            own, environ[CA] = [str(certified)], str(trusted)
        self._path = f"/producer?rate={scenario.rate}"
        super().__init__(contestant.name, contestant.command(self._port, clients), environ)
        if scenario.relays:
            port = free_port()
            command = [sys.executable, "-m", "benchmarks.answers_upstream", str(port), *own]
            self._upstream = Process(command, environ)
            self._path = f"/relay?url={'https' if scenario.tls else 'http'}://127.0.0.1:{port}/"
            wait_for_port(port, self._upstream.process)

    def _begin(self) -> None:
        wait_for_port(self._port, self.server)
        # What is loaded late is loaded.
        warming = Load(self._port, self._path, _WARM, 0.5)
        warming.first_events()
        warming.end()
        for _ in range(5):
            self._get("/plain")
        self._get("/lag")
        time.sleep(2.0)
        self._idle = memory(self.server.pid)

    def run(self, seconds: float) -> dict[str, Any]:
        """Have all clients come, and measure. Times in ms, processor times in µs an event, memory in kB a stream."""
        load = Load(self._port, self._path, self._clients, self._clients / ARRIVALS)
        try:
            first = load.first_events()
            if first["begun"] < self._clients:
                return {"first": first, "faults": faults(first, [])}
            time.sleep(1.0)
            cpu = cpu_of(self.server.pid)
            quiet = load.measure(seconds)
            cpu = cpu_of(self.server.pid) - cpu
            full = memory(self.server.pid)
            self._get("/lag")
            views = Views(self._get)
            asked = load.measure(seconds)
            times = views.end()
            lag = json.loads(self._get("/lag"))
        finally:
            load.end()
        return {
            "first": first,
            "first_p50": first["p50"],
            "first_p99": first["p99"],
            "first_most": first["most"],
            "events": quiet["events"] / quiet["seconds"],
            "cpu": cpu / max(quiet["events"], 1) * 1e6,
            "core": cpu / quiet["seconds"],
            "client_core": quiet["cpu"] / quiet["seconds"],
            "delay_p50": quiet["p50"],
            "delay_p99": quiet["p99"],
            "rss": (full["rss"] - self._idle["rss"]) * 1e3 / self._clients,
            "pss": (full["pss"] - self._idle["pss"]) * 1e3 / self._clients,
            "plain_p50": percentile(times, 50),
            "plain_p99": percentile(times, 99),
            "lag_p99": percentile(lag, 99),
            "faults": faults(first, [quiet, asked]),
        }

    def _get(self, path: str) -> bytes:
        with _OPENER.open(f"http://127.0.0.1:{self._port}{path}", timeout=_ANSWER) as answer:
            return bytes(answer.read())

    def __exit__(self, *exc_info: object) -> None:
        if self._upstream is not None:
            self._upstream.end()
        super().__exit__(*exc_info)
        self._folder.cleanup()


class Views:
    """Requests a plain view, on a new connection each time."""

    def __init__(self, get: Callable[[str], object]) -> None:
        self._get = get
        self._over = threading.Event()
        self._times: list[float] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(_PAUSE):
            start = time.perf_counter()
            self._get("/plain")
            self._times.append((time.perf_counter() - start) * 1e3)

    def end(self) -> list[float]:
        """What each took, in ms."""
        self._over.set()
        self._thread.join()
        return self._times


def percentile(values: list[float], hundredths: int) -> float | None:
    """The smallest value that so many hundredths of them do not exceed; ``None`` of none."""
    return sorted(values)[max(0, math.ceil(len(values) * hundredths / 100) - 1)] if values else None


def faults(first: dict[str, Any], windows: list[dict[str, Any]]) -> str:
    """What went wrong, in words."""
    found = []
    if first["refused"]:
        found.append(f"{first['refused']:,} refused ({first['answer']})")
    if waiting := first["clients"] - first["begun"] - first["refused"]:
        found.append(f"{waiting:,} without a first event")
    most = {kind: max((window[kind] for window in windows), default=0) for kind in ("skipped", "corrupt", "ended")}
    return ", ".join([*found, *(f"{number:,} {kind}" for kind, number in most.items() if number)])


def is_late(row: dict[str, Any], clients: int, rate: float) -> bool:
    """Whether fewer events came than nine of ten that were due: the server, or another process, is at its limit."""
    return bool(row["events"] < 0.9 * clients * rate)
