"""From publishing to receipt, on each broker and compared with others: ``python -m benchmarks.channels [--quick]``.

**Brokers alone**: publisher, broker and subscribers in one process, a thread for each subscriber, no HTTP.

**Over HTTP**: one worker process serves; many subscribers are connected to it from another process
(benchmarks/crowd.py), a third one publishes, Redis is a fourth where it is used. What only reaches the subscribers of
its own process (memory, django-eventstream without Redis) is published by a request to the server. The applications:
benchmarks/channel_apps.py; the servers: benchmarks/channel_servers.py.

First events come at a low rate, and their latency is measured. Then as many as can be
published, one after the other, and it counts how many the subscribers get a second, all together, until the last has
come. Events have 100 bytes of data, and there is one channel. Every subscriber must have got every event, once and in
order: what loses some, or sends some again, has no rate, and the line says how many.

The processor time is that of the server's processes and Redis's for each event received. Memory is the server's for
each subscriber.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from ssesync import open_broker

from .channel_brokers import idle, measure
from .channel_servers import CONTESTANTS, OURS, Bench, Contestant, redis_running
from .timing import machine, versions

DISTRIBUTIONS = [
    "flask-sse",
    "django-eventstream",
    "gunicorn",
    "gevent",
    "uvicorn",
    "uvloop",
    "httptools",
    "redis",
    "flask",
    "django",
]
#: For so many subscribers: events at a pace and seconds between them, events at once over HTTP, and without it.
WORK = {
    1: ((100, 0.02), 2_000, 5_000),
    100: ((100, 0.05), 500, 500),
    1_000: ((30, 0.3), 50, 50),
}
QUICK = {5: ((5, 0.01), 10, 10)}
_SECONDS = 60.0


def brokers(redis: Any, work: dict[int, Any], directory: str, seconds: float) -> str:
    """The table of the brokers alone, and what they cost when nothing happens."""
    lines = ["brokers alone, in one process", f"  {'':28}{_LATE}  {'events/s':>10}  {'publish µs':>10}"]
    costs = []
    urls = {"memory": "memory://", "SQLite": f"sqlite:///{directory}/alone.db"}
    if redis is not None:
        urls["Redis"] = f"redis://127.0.0.1:{redis.redis_port}/1"
    for name, url in urls.items():
        for subscribers, (paced, _, burst) in work.items():
            with open_broker(url) as broker:
                found = measure(broker, subscribers, paced, burst)
            label = f"{name}, {subscribers:,}"
            lines.append(f"  {label:28}{_three(found.late)}  {found.rate:10,.0f}  {found.publish:10,.0f}")
        with open_broker(url) as broker:
            costs.append(f"{name} {idle(broker, seconds):.2f}")
    lines.append(f"  idle, one subscriber, ms of processor time a second: {', '.join(costs)}")
    return "\n".join(lines) + "\n"


def over_http(contestants: Iterable[Contestant], redis: Any, count: int, work: Any, rounds: int, directory: str) -> str:
    """The table for so many subscribers."""
    found: dict[str, list[dict[str, Any]]] = {}
    (events, pause), burst, _ = work
    for _ in range(rounds):
        for contestant in contestants:
            started = time.monotonic()
            try:
                with Bench(contestant, count, redis, Path(directory)) as bench:
                    paced = bench.run(events, pause, _SECONDS)
                    fast = bench.run(burst, 0, _SECONDS)
                    found.setdefault(contestant.name, []).append({"paced": paced, "fast": fast, "kB": bench.kilobytes})
            except Exception:
                if contestant.app == "ours":
                    raise
                print(f"{contestant.name} failed:", file=sys.stderr)
                traceback.print_exc()
            if rounds * count > 100:
                print(f"{contestant.name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    header = f"{_LATE}  {'x ours':>7}  {'events/s':>9}  {'x ours':>7}  {'cpu µs':>7}  {'kB':>6}"
    lines = [f"over HTTP, {count:,} subscribers ({events} events {pause} s apart, then {burst:,} at once)"]
    lines.append(f"  {'':36}{header}")
    ours = found.get(OURS, [])
    for name, all_rounds in found.items():
        late = [median(each["paced"]["late"][part] for each in all_rounds) for part in range(3)]
        rate = max(each["fast"]["rate"] for each in all_rounds)
        own_late = median(each["paced"]["late"][0] for each in ours) if ours else late[0]
        own_rate = max(each["fast"]["rate"] for each in ours) if ours else rate
        cpu = min(each["fast"]["cpu"] for each in all_rounds)
        kilobytes = median(each["kB"] for each in all_rounds)
        worst = max((each[kind] for each in all_rounds for kind in ("paced", "fast")), key=_wrong)
        figures = f"{rate:9,.0f}  {rate / own_rate:7.2f}  {cpu:7.1f}"
        if _wrong(worst):
            wrong = f"{worst['missing']:,} lost, {worst['disorder']:,} again"
            figures = f"{wrong:>27}"
        lines.append(f"  {name:36}{_three(late)}  {late[0] / own_late:7.2f}  {figures}  {kilobytes:6.0f}")
        if _wrong(worst) and name.startswith("ssesync"):
            raise AssertionError("\n".join([*lines, f"{name} has lost events: {all_rounds}"]))
    return "\n".join(lines) + "\n"


_LATE = f"{'p50 ms':>9}  {'p95':>7}  {'p99':>7}"


def _three(late: list[float]) -> str:
    return f"{late[0]:9.2f}  {late[1]:7.2f}  {late[2]:7.2f}"


def _wrong(found: dict[str, Any]) -> int:
    return int(found["missing"] + found["disorder"])


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.channels", description=__doc__.partition(":")[0])
    parser.add_argument("--quick", action="store_true", help="few subscribers and events: shows that it runs, no more")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", action="append", help="contestants whose name begins so; may be given again")
    parser.add_argument("--subscribers", type=int, choices=list(WORK), action="append", help="may be given again")
    parser.add_argument("--part", choices=["brokers", "http"], help="only that")
    options = parser.parse_args(arguments)
    work = QUICK if options.quick else {n: WORK[n] for n in options.subscribers or WORK}
    print(machine())
    print(versions(DISTRIBUTIONS) + "\n", flush=True)
    with redis_running() as redis, tempfile.TemporaryDirectory() as directory:
        if options.part != "http":
            print(brokers(redis, work, directory, 0.2 if options.quick else 5.0), flush=True)
        if options.part == "brokers":
            return
        wanted = [each for each in CONTESTANTS if not options.only or each.name.startswith(tuple(options.only))]
        for each in wanted:
            if each.missing:
                print(f"left out: {each.name}, for want of {each.missing}")
        contestants = [each for each in wanted if not each.missing]
        for count, amount in work.items():
            print(over_http(contestants, redis, count, amount, options.rounds, directory), flush=True)


if __name__ == "__main__":
    main()
