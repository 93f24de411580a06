"""What a deploy costs clients, and what the keeper costs: ``python -m benchmarks.deploys [--clients 1000]``.

**Steady.** The same application three times, each with one gunicorn worker and as many clients: the worker serves them
itself, one keeper does, two keepers do. They take turns, some seconds each, while nothing is published to the others:
so other load of the machine affects all of them. Twenty events a second of 200 bytes; latency is from publishing to
receipt; processor time is that of the processes that send, for each event received; memory is what these have more with
all clients than without any, for each client.

**Moves.** Clients connect as fast as the worker takes them, 64 at a time. A move is the round trip of one batch: from
the time the worker freezes its clients until it has released them. The processor time is that of worker and keeper for
each client, beside the worker's that serves its clients itself.

**Upgrade.** The next keeper takes the clients of the current one, several times, while events are published: the
longest time that a client was without an event, beside the same without an upgrade.

**Deploys** (``--deploys``, 5,000 clients): two workers; gunicorn gets HUP. For each way the events received in each
tenth of a second, drawn with ``--chart``.

Every client must get every event, once and in order. If one did not, the exit code is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from .channel_servers import redis_running
from .deploys_chart import draw
from .deploys_servers import LIMITS, WAYS, Clients, Deployment, Plan
from .fanout_servers import cpu_of
from .fanout_tools import CACHE
from .processes import tree_of
from .timing import machine

RATE = 20.0
#: Tenths of a second before and after the beginning of a deploy that are drawn.
_BEFORE, _AFTER = 30, 130
_FAULTS = ("missing", "repeated", "corrupt", "resets", "behind")
_ENDS = ("ended", "fin", "reset", "turned away")

Row = dict[str, Any]


def rss(pids: list[int]) -> int:
    """The bytes of memory that processes have together."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return total * os.sysconf("SC_PAGE_SIZE")


def faults_of(found: Row, *, ends: bool = False) -> list[str]:
    """What is wrong in a report.

    :param ends: whether the end of a stream is.
    """
    return [f"{found[kind]} {kind}" for kind in (*_FAULTS, *(_ENDS if ends else ())) if found.get(kind)]


class Side:
    """A deployment with its clients, and what has been measured of it."""

    def __init__(self, name: str, plan: Plan, clients: int, folder: Path) -> None:
        self.name, self.count = name, clients
        self._stack = contextlib.ExitStack()
        folder.mkdir()
        self.deployment = self._stack.enter_context(Deployment(plan, folder))
        try:
            self._connect(plan, clients)
        except BaseException:
            self._stack.close()
            raise
        self.rounds: list[Row] = []
        self.faults: list[str] = []

    def _connect(self, plan: Plan, clients: int) -> None:
        # What is loaded with the first client is not each client's.
        with Clients(self.deployment.port, {"normal": 20}, plan.broker, rate=RATE) as first:
            first.publish()
            time.sleep(0.5)
            first.reach_newest(30)
        time.sleep(1)
        memory, cpu = rss(self.senders()), self._cpu(everything=True)
        self.clients = self._stack.enter_context(Clients(self.deployment.port, {"normal": clients}, plan.broker))
        if plan.way == "keeper":
            self.deployment.wait_until_kept(clients)
        #: µs of processor time and bytes of memory for each client that has connected.
        self.connect_cpu = (self._cpu(everything=True) - cpu) / clients * 1e6
        self.connect_rate = clients / self.clients.connected["seconds"]
        self.clients.publish()
        time.sleep(1)
        self.clients.reach_newest(60)
        self.memory = (rss(self.senders()) - memory) / clients

    def senders(self) -> list[int]:
        """The processes that send the events."""
        if self.deployment.keepers:
            return [each.pid for each in self.deployment.keepers.values()]
        assert self.deployment.server is not None
        return tree_of(self.deployment.server.pid)[1:]

    def _cpu(self, *, everything: bool = False) -> float:
        assert self.deployment.server is not None
        if not everything or not self.deployment.keepers:
            return sum(map(cpu_of, self.senders()))
        return sum(map(cpu_of, [*self.senders(), self.deployment.server.pid]))

    def measure(self, seconds: float) -> None:
        """Publish for so long."""
        cpu = self._cpu()
        self.clients.report()
        self.clients.publish()
        time.sleep(seconds)
        found = self.clients.reach_newest(30)
        found["send_cpu"] = (self._cpu() - cpu) / max(1, found.get("received", 0)) * 1e6
        self.faults += faults_of(found, ends=True)
        self.rounds.append(found)

    def row(self) -> Row:
        """The medians."""
        figures = {name: median(each[name] for each in self.rounds) for name in ("late_p50", "late_p99", "send_cpu")}
        return {
            "name": self.name, **figures, "memory": self.memory, "connect_cpu": self.connect_cpu,
            "connect_rate": self.connect_rate, "faults": self.faults,
        }  # fmt: skip

    def moves(self) -> list[tuple[int, float]]:
        """The clients and the milliseconds of each batch that the worker has moved."""
        return [(int(clients), float(ms)) for clients, ms in json.loads(self.deployment.fetch("/moves")[0])]

    def close(self) -> None:
        """End all."""
        self._stack.close()


def steady(broker: str, clients: int, seconds: float, rounds: int, upgrades: int, folder: Path) -> Row:
    """Measure latency, processor time, memory, moves and upgrades."""
    sides: list[Side] = []
    with contextlib.ExitStack() as stack:
        for name, way, keepers in (("own loop", "nothing", 1), ("keeper", "keeper", 1), ("two keepers", "keeper", 2)):
            plan = Plan(broker.format(name.replace(" ", "")), way, workers=1, keepers=keepers)
            side = Side(name, plan, clients, folder / name.replace(" ", ""))
            stack.callback(side.close)
            sides.append(side)
        for number in range(rounds):
            for side in sides[number % 3 :] + sides[: number % 3]:
                side.measure(seconds)
        keeper = sides[1]
        moves = keeper.moves()
        rows = [side.row() for side in sides]
        upgrade = upgrade_of(keeper, upgrades) if upgrades else None
    return {"rows": rows, "moves": moves, "upgrade": upgrade}


def upgrade_of(side: Side, times: int) -> Row:
    """Upgrade the keeper so many times."""
    quiet: list[float] = []
    upgraded: list[float] = []
    for _ in range(times):
        for gaps, do in ((quiet, lambda: time.sleep(1)), (upgraded, side.deployment.upgrade)):
            side.clients.report()
            side.clients.publish()
            time.sleep(1)
            do()
            time.sleep(1)
            found = side.clients.reach_newest(30)
            side.faults += faults_of(found) + [
                f"{found[kind]} {kind} at an upgrade" for kind in _ENDS if found.get(kind)
            ]
            gaps.append(found["gap_most"])
    return {"gap_quiet": median(quiet), "gap_upgrade": median(upgraded), "gap_most": max(upgraded)}


def deploy_of(way: str, broker: str, clients: int, rate: float, worker: str, folder: Path) -> Row:
    """One HUP under so many clients."""
    folder.mkdir()
    plan = Plan(broker.format(way), way, worker, environment={"BENCH_RETRY": "3000"})
    with (
        Deployment(plan, folder) as deployment,
        Clients(deployment.port, {"normal": clients}, plan.broker, rate=rate) as following,
    ):
        following.publish()
        if way == "keeper":
            deployment.wait_until_kept(clients)
        time.sleep(2)
        following.reach_newest(60)
        following.publish()
        time.sleep(_BEFORE / 10 + 1)
        start = time.monotonic()
        deployment.hup()
        seconds = time.monotonic() - start
        time.sleep(max(0.0, _AFTER / 10 + 1 - seconds))
        found = following.reach_newest(60)
        arrivals = following.arrivals()
    first = int(start * 10) - _BEFORE
    return {
        "counts": [arrivals.get(first + tenth, 0) for tenth in range(_BEFORE + _AFTER)], "before": _BEFORE,
        "seconds": seconds, "ends": sum(found.get(kind, 0) for kind in _ENDS), "faults": faults_of(found),
        "gap_most": found["gap_most"],
    }  # fmt: skip


def table(found: Row) -> Iterator[str]:
    """The figures as lines."""
    yield f"  {'':12} {'p50 ms':>8} {'p99':>8} {'send µs':>9} {'kB each':>8} {'connect µs':>11} {'a second':>9}"
    first = found["rows"][0]
    for row in found["rows"]:
        yield (
            f"  {row['name']:12} {row['late_p50']:8.1f} {row['late_p99']:8.1f} {row['send_cpu']:9.2f} "
            f"{row['memory'] / 1e3:8.1f} {row['connect_cpu']:11.0f} {row['connect_rate']:9,.0f}  "
            f"x own: {row['late_p50'] / first['late_p50']:.2f}, {row['late_p99'] / first['late_p99']:.2f}, "
            f"{row['send_cpu'] / first['send_cpu']:.2f}  {'; '.join(row['faults'])}"
        )
    _, one, two = found["rows"]
    yield f"  two keepers to one: {two['send_cpu'] / one['send_cpu']:.2f} times the processor time for an event"
    if moves := found["moves"]:
        times = sorted(ms for _, ms in moves)
        yield (
            f"  {len(moves)} moves of {sum(clients for clients, _ in moves):,} clients: p50 {median(times):.2f} ms, "
            f"p99 {times[len(times) * 99 // 100]:.2f}, most {times[-1]:.2f}"
        )
    if upgrade := found["upgrade"]:
        yield (
            f"  longest time without an event: {upgrade['gap_quiet']:.0f} ms, "
            f"over an upgrade {upgrade['gap_upgrade']:.0f} ms (most {upgrade['gap_most']:.0f})"
        )


@contextlib.contextmanager
def brokers(kind: str, folder: Path) -> Iterator[str]:
    """A URL with a place for a name."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/{{}}.db?{LIMITS}"
        return
    with redis_running() as redis:
        if redis is None:
            sys.exit("there is no redis-server")
        yield f"redis://127.0.0.1:{redis.redis_port}/0?prefix={{}}&{LIMITS}"  # type: ignore[attr-defined]


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deploys", description=__doc__.partition(":")[0])
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--upgrades", type=int, default=5)
    parser.add_argument("--broker", choices=["sqlite", "redis"], default="sqlite")
    parser.add_argument("--worker", choices=["gthread", "sync"], default="gthread")
    parser.add_argument("--deploys", type=int, default=5000, help="clients of the deploys; 0: none")
    parser.add_argument("--rate", type=float, default=RATE, help="events a second of the deploys")
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=WAYS, help="of the deploys")
    parser.add_argument("--no-steady", action="store_true", help="only the deploys")
    parser.add_argument("--json", type=Path, default=CACHE / "deploys.json", help="where all figures go")
    parser.add_argument("--chart", type=Path, help="an SVG file")
    given = parser.parse_args(arguments)
    print(machine())
    print(f"load average before: {' '.join(f'{each:.2f}' for each in os.getloadavg())}\n", flush=True)
    results: Row = {"about": machine(), "clients": given.deploys, "rate": given.rate, "deploys": {}}
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as made, brokers(given.broker, Path(made)) as url:
        if not given.no_steady:
            found = steady(url, given.clients, given.seconds, given.rounds, given.upgrades, Path(made))
            results["steady"] = found
            print(f"{given.clients:,} clients, {given.broker}, {RATE:g} events a second")
            print("\n".join(table(found)) + "\n", flush=True)
            faults += [each for row in found["rows"] for each in row["faults"]]
        for way in given.ways if given.deploys else ():
            deploy = deploy_of(way, url, given.deploys, given.rate, given.worker, Path(made) / way)
            results["deploys"][way] = deploy
            print(
                f"  HUP, {given.deploys:,} clients, {way}: {deploy['ends']:,} streams ended, longest time without "
                f"an event {deploy['gap_most']:,.0f} ms  {'; '.join(deploy['faults'])}",
                flush=True,
            )
            faults += deploy["faults"]
    print(f"\nload average after: {' '.join(f'{each:.2f}' for each in os.getloadavg())}; all figures: {given.json}")
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(results, indent=1))
    if given.chart and results["deploys"]:
        given.chart.write_text(draw(results))
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
