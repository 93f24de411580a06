"""A trial of benchmarks.runs: the process that produces, the server, the followers; and the server's application."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from typing import Any

from ssesync import open_broker

from .answers_servers import ARRIVALS, Load, faults, percentile
from .fanout_servers import cpu_of
from .fanout_tools import HERE
from .processes import START, AtWork, Process, free_port, wait_for_port
from .runs_producer import name_of

_BROKER = "BENCH_BROKER"
# Seconds until all is even, and between two stops, and within which a producer must have learned of its stop.
_SETTLE, _BETWEEN, _STOP = 2.0, 0.05, 20.0
# Of events that a follower may get while a run begins.
_ANSWER = 60.0


def application() -> Any:
    """The application. Each request follows the next run, or the next channel."""
    from flask import Flask

    from ssesync_flask import SSE

    app = Flask(__name__)
    sse = SSE(app, broker=os.environ[_BROKER])
    numbers = itertools.count()

    @app.get("/runs")
    def runs() -> Any:
        return sse.follow_run(name_of(next(numbers)), subject="")

    @app.get("/publish")
    def publish() -> Any:
        return sse.subscribe(name_of(next(numbers)), since="start")

    return app


def _environ(broker: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, _BROKER: broker}


class Producing(Process):
    """The process that produces: see benchmarks/runs_producer.py."""

    def __init__(self, kind: str, runs: int, rate: float, broker: str = "") -> None:
        command = [sys.executable, "-m", "benchmarks.runs_producer", kind, str(runs), str(rate)]
        super().__init__(command, _environ(broker))
        try:
            self.must_hear(START)
        except BaseException:
            self.end()
            raise

    def ask(self, line: str) -> dict[str, Any]:
        """Send a line, and wait for the answer."""
        self.say(line)
        found: dict[str, Any] = json.loads(self.must_hear(_ANSWER))
        return found

    def end(self) -> None:
        """End its runs, and the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(_ANSWER)
        finally:
            super().end()


def cost_of(before: dict[str, Any], after: dict[str, Any]) -> float:
    """The processor time of what was produced between two answers, in µs an event."""
    return float((after["cpu"] - before["cpu"]) / max(after["events"] - before["events"], 1) * 1e6)


def alone(runs: int, rate: float, seconds: float) -> dict[str, Any]:
    """Measure the generators by themselves."""
    producing = Producing("alone", runs, rate)
    try:
        producing.ask("go")
        time.sleep(_SETTLE)
        before, since = producing.ask("read"), time.monotonic()
        time.sleep(seconds)
        after, passed = producing.ask("read"), time.monotonic() - since
    finally:
        producing.end()
    return {"faults": "", "events": (after["events"] - before["events"]) / passed, "produce": cost_of(before, after)}


class Trial(AtWork):
    """A server on a broker, and what is followed there.

    :param name: what is said of it in errors.
    :param kind: runs or publish.
    :param broker: the broker's URL.
    :param redis: the process id of the Redis server, if it is one.
    """

    def __init__(self, name: str, kind: str, broker: str, redis: int | None) -> None:
        self._kind, self._broker, self._redis = kind, broker, redis
        self._port = free_port()
        command = [
            sys.executable, "-m", "gunicorn", "-w", "1", "-k", "gthread", "--threads", "4", "--bind",
            f"127.0.0.1:{self._port}", "--config", "python:ssesync.gunicorn", "--log-level", "error",
            "--backlog", "4096", "--graceful-timeout", "1", "benchmarks.runs_servers:application()",
        ]  # fmt: skip
        super().__init__(name, command, _environ(broker))

    def _begin(self) -> None:
        wait_for_port(self._port, self.server)

    def run(self, runs: int, rate: float, seconds: float, stops: int) -> dict[str, Any]:
        """Produce, follow and measure. Times in ms, processor times in µs an event."""
        producing = Producing(self._kind, runs, rate, self._broker)
        load: Load | None = None
        try:
            load = Load(self._port, f"/{self._kind}", runs, runs / ARRIVALS)
            time.sleep(runs / ARRIVALS)
            producing.ask("go")
            first = load.first_events()
            if first["begun"] < runs:
                return {"faults": faults(first, [])}
            time.sleep(_SETTLE)
            before, cpu = producing.ask("read"), self._cpu()
            found = load.measure(seconds)
            after, cpu = producing.ask("read"), [end - begin for end, begin in zip(self._cpu(), cpu, strict=True)]
            count = max(found["events"], 1)
            return {
                "faults": faults(first, [found]),
                "events": found["events"] / found["seconds"],
                "produce": cost_of(before, after),
                "serve": cpu[0] / count * 1e6,
                "redis": cpu[1] / count * 1e6 if self._redis else None,
                "late_p50": found["p50"],
                "late_p99": found["p99"],
                **(self._stop(producing, stops) if self._kind == "runs" else {}),
            }
        finally:
            if load is not None:
                load.end()
            producing.end()

    def _cpu(self) -> tuple[float, float]:
        return cpu_of(self.server.pid), cpu_of(self._redis) if self._redis else 0.0

    def _stop(self, producing: Producing, stops: int) -> dict[str, float | None]:
        """Stop some of the runs, from this process, while all are produced."""
        at = {}
        with open_broker(self._broker) as broker:
            broker.get_run(name_of(0))  # the connection is there
            for number in range(stops):
                at[number] = time.monotonic_ns()
                broker.stop_run(name_of(number))
                time.sleep(_BETWEEN)
        deadline = time.monotonic() + _STOP
        while len(stopped := producing.ask("stopped")) < stops:
            if time.monotonic() > deadline:
                raise AssertionError(f"{stops - len(stopped)} producers have not learned that their runs were stopped")
            time.sleep(_BETWEEN)
        late = [(stopped[str(number)] - since) / 1e6 for number, since in at.items()]
        return {"stop_p50": percentile(late, 50), "stop_most": percentile(late, 100)}
