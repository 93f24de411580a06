"""Runs that are followed over HTTP, beside publishing: ``python -m benchmarks.runs [--runs 200] [--rate 50]``.

Generators yield events of 200 bytes at a rate, each on a thread of its own (benchmarks/runs_producer.py). Each is the
producer of a run, or each of its events is published to a channel by a ``publish`` of its own. A gunicorn worker with
four threads serves a follower for each, through a broker on SQLite or Redis; one load client is all followers
(answers_client.c). So the events cross from process to process twice, and four programs share the machine.

The table has the best round of each:

**Events a second**
    that all followers have received. A generator that is late makes its next event at once, so fewer than were due
    means that the machine, or the broker, is at its limit: such a row is marked with ``LATE``.
**Produce**
    the processor time of the process that produces, for each event, and what of that is over the generators' own cost.
    The latter is that of the same generators whose events go nowhere, in the first row.
**Serve, Redis**
    the processor time of the server's processes, and of Redis, for each event received.
**Latency**
    from the ``yield`` of an event to its receipt by the follower.
**Stop**
    from the call of ``stop_run`` in a third process to the ``GeneratorExit`` in the generator, while all the others
    go on. A generator learns of it when it yields, which here adds up to the time between two events.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from .answers_servers import is_late
from .channel_servers import redis_running
from .fanout_tools import CACHE, compiled
from .runs_servers import Trial, alone
from .timing import machine, versions

DISTRIBUTIONS = ["gunicorn", "flask", "redis"]
KINDS = {"runs": "runs", "publish": "one by one"}
_COLUMNS = [
    ("events/s", "events", ",.0f"),
    ("produce µs", "produce", ",.1f"),
    ("over", "over", ",.1f"),
    ("serve µs", "serve", ",.1f"),
    ("Redis µs", "redis", ",.1f"),
    ("late p50", "late_p50", ",.1f"),
    ("p99 ms", "late_p99", ",.1f"),
    ("stop p50", "stop_p50", ",.1f"),
    ("most ms", "stop_most", ",.1f"),
]

Row = dict[str, Any]


def line(row: Row) -> str:
    """The line of a row in its table."""
    if row["faults"]:
        return f"  {row['name']:20}  {row['faults']}"
    cells = [format(row[name], form) if row.get(name) is not None else "" for _, name, form in _COLUMNS]
    return f"  {row['name']:20}" + "".join(f" {cell:>10}" for cell in cells) + ("  LATE" if row["late"] else "")


def best(rows: list[Row], due: float) -> Row:
    """The round that counts: with as many events as were due, or the most, and the least processor time."""
    well = [row for row in rows if not row["faults"]]
    return min(well or rows, key=lambda row: (-min(row.get("events", 0), 0.99 * due), row.get("produce", 0)))


def measure(options: argparse.Namespace, brokers: dict[str, tuple[str, int | None]]) -> list[Row]:
    """Measure the generators alone, then runs and publishing through each broker, round by round."""
    found: dict[str, list[Row]] = {}
    for each in range(options.rounds):
        rows = [{"name": "generators alone", **alone(options.runs, options.rate, options.seconds)}]
        for broker, (url, redis) in brokers.items():
            for kind in options.kinds:
                row: Row = {"name": f"{broker}, {KINDS[kind]}", "load": os.getloadavg()[0]}
                with Trial(row["name"], kind, url.format(f"{each}{kind}"), redis) as trial:
                    row |= trial.run(options.runs, options.rate, options.seconds, options.stops)
                if not row["faults"]:
                    row["over"] = row["produce"] - rows[0]["produce"]
                rows.append(row)
        for row in rows:
            row["late"] = not row["faults"] and is_late(row, options.runs, options.rate)
            found.setdefault(row["name"], []).append(row)
    return [best(rows, options.runs * options.rate) for rows in found.values()]


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runs", description=__doc__.partition(":")[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--rate", type=float, default=50.0, help="events a second of each")
    parser.add_argument("--seconds", type=float, default=6.0, help="that are measured")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--stops", type=int, default=20, help="runs that are stopped")
    parser.add_argument("--brokers", nargs="+", choices=["SQLite", "Redis"], default=["SQLite", "Redis"])
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--json", type=Path, default=CACHE / "runs.json", help="where all figures go")
    options = parser.parse_args(arguments)
    print(machine())
    print(versions(DISTRIBUTIONS))
    if reason := compiled("answers_client")[1]:
        sys.exit(f"no load client, for want of {reason}")
    print(f"load average before: {' '.join(f'{each:.2f}' for each in os.getloadavg())}\n", flush=True)
    with redis_running() as redis, tempfile.TemporaryDirectory() as directory:
        brokers: dict[str, tuple[str, int | None]] = {}
        if "SQLite" in options.brokers:
            brokers["SQLite"] = f"sqlite:///{directory}/{{}}.db", None
        if "Redis" in options.brokers:
            if redis is None:
                print("left out: Redis, for want of redis-server")
            else:
                port = redis.redis_port  # type: ignore[attr-defined]
                brokers["Redis"] = f"redis://127.0.0.1:{port}/0?prefix={{}}", redis.pid
        rows = measure(options, brokers)
    print(f"{options.runs} runs, {options.rate:g} events a second each")
    print(f"  {'':20}" + "".join(f" {name:>10}" for name, _, _ in _COLUMNS))
    for row in rows:
        print(line(row))
    print(f"\nload average after: {' '.join(f'{each:.2f}' for each in os.getloadavg())}; all figures: {options.json}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"about": [machine(), versions(DISTRIBUTIONS)], "rows": rows}, indent=1))
    if any(row["faults"] for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
