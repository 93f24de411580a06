"""Deploys, crashes and upgrades, one after the other, under clients that count every event.

``python -m tests.live.keeper.series --broker sqlite --clients 1000 --way keeper --steps "hup*20,kill*3,restart,
upgrade*20"`` prints a line for each step, and at the end a line of JSON. The exit code is 1 if an event was lost, came
twice or was not the same for all, if a client did not have the newest event in time after a step, or if a stream was
ended by a step that must not end any:

- ``hup``: a new application, with siblings or the keeper;
- ``churn``: all workers replaced because of ``max_requests``, with both;
- ``kill``: all workers killed; ``restart``: gunicorn ended and started; ``crash``: it and all workers killed, and
  started: with the keeper;
- ``upgrade``: the next keeper takes all clients of the current one.

A step does not begin before the keeper has all clients, as those of a killed worker would be lost with it.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.deploys_servers import LIMITS, WAYS, Clients, Deployment, Plan, StepFailed
from tests.live.streams.nginx import nginx_with
from tests.redis_server import KEEPING, RedisServer, lasting_port
from tests.servers import place_of

#: Of a hundred clients.
MIX = {"slow": 4, "stalling": 4, "returning": 4}
#: The ends of streams that no client may see where nobody is to be dropped.
ENDS = ("ended", "fin", "reset")
#: What is wrong with any way.
FAULTS = ("missing", "repeated", "corrupt", "resets", "behind")
#: Requests that failed; so did those whose name begins with "no answer" or "plain ".
FAILED = ("unanswered", "failed")
#: The steps that end no stream.
KEEPS = {"nothing": (), "siblings": ("hup", "churn"), "keeper": ("hup", "churn", "kill", "restart", "crash", "upgrade")}
#: The steps after which a request may have got no answer: it was in the worker that was killed.
BREAKS = ("kill", "crash")
NGINX = """
    upstream application {{ server 127.0.0.1:{port}; }}
    server {{
        listen 127.0.0.1:{front} backlog=2048;
        location / {{
            proxy_pass http://application; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_read_timeout 300s; proxy_next_upstream off;
        }}
    }}
"""


def parse_steps(text: str) -> list[str]:
    """``"hup*2,kill"`` is three steps."""
    steps: list[str] = []
    for each in text.replace(" ", "").split(","):
        name, _, count = each.partition("*")
        if name not in KEEPS["keeper"]:
            raise argparse.ArgumentTypeError(f"no step {name!r}: {', '.join(KEEPS['keeper'])}")
        steps += [name] * int(count or 1)
    return steps


def kinds_of(clients: int, plain: int = 0) -> dict[str, int]:
    """How many clients of each kind; a few of each are there in a small series too."""
    kinds = {name: max(2, clients * part // 100) for name, part in MIX.items()}
    return {"normal": clients - sum(kinds.values()), **kinds, "plain": plain}


@contextlib.contextmanager
def broker_of(kind: str, folder: Path) -> Iterator[str]:
    """A broker whose log has room for a long series."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/log.db?{LIMITS}"
        return
    with RedisServer(folder, *KEEPING) as server:
        yield f"{server.url}?{LIMITS}"


@contextlib.contextmanager
def front_of(deployment: Deployment, clients: int, folder: Path, *, nginx: bool) -> Iterator[int]:
    """The port that clients connect to."""
    if not nginx:
        yield deployment.port
        return
    front = lasting_port()
    with nginx_with(folder, NGINX.format(port=deployment.port, front=front), connections=4 * clients + 200):
        yield front


class Series:
    """The steps, and what the clients have counted in each.

    :param pause: seconds of events before each step.
    :param within: seconds after a step within which each client must have the newest event.
    :param seconds: no step begins after so many.
    """

    def __init__(
        self, deployment: Deployment, clients: Clients, *, pause: float, within: float, seconds: float = math.inf
    ) -> None:
        self._end = time.monotonic() + seconds
        self._deployment, self._clients = deployment, clients
        self._pause, self._within = pause, within
        self._way = deployment.plan.way
        self._streams = int(clients.connected["connected"])
        self._steps: dict[str, Callable[[], None]] = {
            "hup": deployment.hup,
            "churn": deployment.churn,
            "kill": deployment.kill,
            "restart": deployment.restart,
            "crash": deployment.crash,
            "upgrade": deployment.upgrade,
        }
        self.totals: collections.Counter[str] = collections.Counter()
        self.most: dict[str, float] = {}
        self.faults: list[str] = []
        self._done = 0

    def run(self, steps: list[str], show: Callable[[str], object] = lambda line: None) -> dict[str, Any]:
        """Do all steps.

        :param show: gets a line for each.
        :return: figures.
        """
        self._clients.publish()
        time.sleep(0.2)
        self._check("before the steps", "", self._clients.reach_newest(self._within))
        self._clients.publish()
        # Returning clients are away for some of the time.
        clients_away = max(2, self._streams * MIX["returning"] // 100)
        for number, step in enumerate(steps):
            if time.monotonic() > self._end:
                break
            if self._way == "keeper":
                self._deployment.wait_until_kept(self._streams - clients_away)
            time.sleep(self._pause)
            start = time.monotonic()
            self._steps[step]()
            taken = time.monotonic() - start
            time.sleep(self._pause / 2)
            found = self._clients.reach_newest(self._within)
            self._clients.publish()
            self._done = number + 1
            self._check(f"{step} {number + 1}", step, found)
            show(f"{step:8} {taken:5.1f} s  {shown(found)}")
        figures = {"steps": self._done, **self.totals, **self.most, "published": self._clients.published}
        return {**figures, "faults": len(self.faults)}

    def _check(self, name: str, step: str, found: dict[str, Any]) -> None:
        wrong = [kind for kind in FAULTS if found.get(kind)]
        if step in KEEPS[self._way]:
            wrong += [kind for kind in ENDS if found.get(kind)]
        if step not in BREAKS:
            wrong += [
                kind for kind in found if kind in ("unanswered", "failed") or kind.startswith(("no answer", "plain "))
            ]
        if wrong:
            self.faults.append(f"{name}: {', '.join(f'{found[kind]} {kind}' for kind in wrong)}")
            self.faults += [f"    {each}" for each in (*found["clients"], *found["ends"])]
        for figure, value in found.items():
            if figure.startswith(("late", "gap", "plain_")) or figure == "seconds":
                self.most[figure] = max(self.most.get(figure, 0.0), round(value, 1))
            elif isinstance(value, int) and figure != "connected":
                self.totals[figure] += value


def shown(found: dict[str, Any]) -> str:
    """A report as a line."""
    counted = {name: value for name, value in found.items() if isinstance(value, int) and value}
    figures = ", ".join(f"{value:,} {name}" for name, value in counted.items())
    return (
        f"newest after {found['seconds']:.1f} s, late p50 {found['late_p50']:.0f} p99 {found['late_p99']:.0f} "
        f"most {found['late_most']:.0f} ms, gap {found['gap_most']:.0f} ms; {figures}"
    )


def series(
    plan: Plan,
    kinds: dict[str, int],
    steps: list[str],
    folder: Path,
    *,
    pause: float = 1.0,
    within: float = 30.0,
    seconds: float = math.inf,
    nginx: bool = False,
    show: Callable[[str], object] = lambda line: None,
    **load: Any,
) -> tuple[dict[str, Any], list[str]]:
    """Do all of it.

    :param plan: with the kind of its broker in place of the broker's URL.
    :return: figures, and what was wrong.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(broker_of(plan.broker, folder))
        deployment = stack.enter_context(Deployment(replace(plan, broker=url), folder))
        port = stack.enter_context(front_of(deployment, sum(kinds.values()), folder, nginx=nginx))
        clients = stack.enter_context(Clients(port, kinds, url, **load))
        show(f"{kinds}: connected within {clients.connected['seconds']:.1f} s")
        steady = Series(deployment, clients, pause=pause, within=within, seconds=seconds)
        try:
            figures = steady.run(steps, show)
        except StepFailed as error:
            figures = {**steady.totals, **steady.most, **clients.report()}
            steady.faults.append(f"{error}\n{deployment.log()}\n{deployment.log('keeper0')}")
    return figures, steady.faults


def plan_of(way: str, broker: str, worker: str, **others: Any) -> Plan:
    """The plan of the tests' application."""
    return Plan(broker, way, worker, app=place_of("flask_app.deploys"), keeper_options=("--verbose",), **others)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", choices=["sqlite", "redis"], default="sqlite")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--plain", type=int, default=4, help="clients that request a plain view again and again")
    parser.add_argument("--way", choices=WAYS, default="keeper")
    parser.add_argument("--worker", choices=["gthread", "sync"], default="gthread")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=parse_steps, default="hup*3")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds of events before each step (1)")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no step after so many seconds")
    parser.add_argument("--within", type=float, default=30.0, help="seconds until all have the newest event (30)")
    parser.add_argument("--rate", type=float, default=20.0, help="events a second (20)")
    parser.add_argument("--size", type=int, default=200, help="bytes of an event's data (200)")
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--keepers", type=int, default=1)
    parser.add_argument("--send-buffer", type=int, default=0, help="bytes of the server's send buffers")
    parser.add_argument("--nginx", action="store_true", help="nginx in front of gunicorn")
    parser.add_argument("--folder", type=Path, help="for logs, which are kept then")
    given = parser.parse_args()
    options = ("--max-requests", "300") if "churn" in given.steps else ()
    plan = plan_of(
        given.way, given.broker, given.worker, workers=given.workers, options=options, send_buffer=given.send_buffer,
        keepers=given.keepers,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as made:
        figures, faults = series(
            plan, kinds_of(given.clients, given.plain), given.steps, given.folder or Path(made),
            pause=given.pause, within=given.within, seconds=given.seconds,
            nginx=given.nginx, show=lambda line: print(line, flush=True),
            rate=given.rate, size=given.size, channels=given.channels,
        )  # fmt: skip
    print(json.dumps({"load": os.getloadavg()[0], **figures}))
    sys.exit("\n".join(faults[:50]) or 0)


if __name__ == "__main__":
    main()
