"""Streams that each have a producer of their own: ``python -m benchmarks.answers [--clients 200 1000] [--seconds 4]``.

Answers of models, agents and jobs are made for one client each. **Producers** are generators that send one or ten
events of 200 bytes a second; **relays** pass on what an upstream sends, ten chunks of 250 bytes a second, in plain text
or over TLS (benchmarks/answers_upstream.py). One process serves them; one load client follows all (answers_client.c).
The contestants are in benchmarks/answers_servers.py, their applications in answers_apps.py.

200 clients come in a second, evenly: 1,000 over five seconds. Then, a second after all have their first event:

**First event**
    from the begin of a client's connection to the receipt of its first event.
**Processor time**
    of the server's processes for each event received, the kernel's part included.
**Memory**
    what the server's processes have more than before, for each stream: RSS, and PSS, which divides shared pages. Ten
    streams have come and left before, so that what is loaded late is not counted.
**Delay**
    from the making of an event to its receipt.
**Plain view**
    in a second window: a request on a new connection every 50 ms. What it costs is not in the processor time.
**Lag**
    in that window too: how long calls from another thread wait for the loop, every 20 ms.

No stream may lose an event. If some did, or were not served, this is shown in place of the figures. ``LATE`` marks rows
in which fewer than nine of ten events that were due came: a processor was at its limit.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from importlib import util
from pathlib import Path
from typing import Any

from .answers_servers import ARRIVALS, CONTESTANTS, SCENARIOS, Contestant, Scenario, Trial, is_late
from .fanout import most_clients
from .fanout_chart import chart
from .fanout_tools import CACHE, compiled
from .timing import machine, versions

DISTRIBUTIONS = ["gunicorn", "flask", "requests", "uvicorn", "uvloop", "httptools", "starlette", "sse-starlette"]
DISTRIBUTIONS += ["httpx", "aiohttp"]
CLIENTS = [200, 1_000]
# Descriptors of a relay's server: the client's, the upstream's, and one that is duplicated meanwhile.
_DESCRIPTORS = 3
_COLUMNS = [
    ("first p50", "first_p50", ",.0f"),
    ("p99 ms", "first_p99", ",.0f"),
    ("most", "first_most", ",.0f"),
    ("CPU µs", "cpu", ",.0f"),
    ("delay p50", "delay_p50", ",.1f"),
    ("p99 ms", "delay_p99", ",.1f"),
    ("RSS kB", "rss", ",.1f"),
    ("PSS kB", "pss", ",.1f"),
    ("plain p50", "plain_p50", ",.1f"),
    ("p99 ms", "plain_p99", ",.1f"),
    ("lag p99", "lag_p99", ",.1f"),
]
_PANELS = [
    ("first event", "99th percentile, ms", "first_p99"),
    ("processor time", "µs an event", "cpu"),
    ("memory", "kB a stream, RSS", "rss"),
]

Row = dict[str, Any]


def line(row: Row) -> str:
    """The line of a row in its table."""
    if row["faults"]:
        return f"  {row['name']:30}  {row['faults']}"
    cells = [format(row[name], form) if row[name] is not None else "" for _, name, form in _COLUMNS]
    return f"  {row['name']:30}" + "".join(f" {cell:>9}" for cell in cells) + ("  LATE" if row["late"] else "")


def header(scenario: Scenario, clients: int) -> str:
    """The title of a table, and the names of its columns."""
    return f"{clients:,} {scenario.name}\n  {'':30}" + "".join(f" {name:>9}" for name, _, _ in _COLUMNS)


def trial(contestant: Contestant, scenario: Scenario, clients: int, seconds: float) -> Row:
    """Measure one contestant."""
    row: Row = {"name": contestant.name, "scenario": scenario.name, "clients": clients, "load": os.getloadavg()[0]}
    with Trial(contestant, scenario, clients) as running:
        row |= running.run(seconds)
    return {**row, "late": not row["faults"] and is_late(row, clients, scenario.rate)}


def draw(results: Row, scenario: str) -> str:
    """An SVG image of a scenario's rows with the most clients."""
    rows = [row for row in results["rows"] if row["scenario"] == scenario and not row["faults"]]
    most = max(row["clients"] for row in rows)
    rows = [row for row in rows if row["clients"] == most]
    panels = [(name, unit, [row[figure] for row in rows]) for name, unit, figure in _PANELS]
    title = f"{most:,} {scenario}, one process"
    return chart(title, results["about"][0], [row["name"] for row in rows], panels)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.answers", description=__doc__.partition(":")[0])
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS, help="200 of them come in a second")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each of the two windows")
    parser.add_argument("--kinds", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), help="producers and relays")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="contestants whose name has one of these in it")
    parser.add_argument("--json", type=Path, default=CACHE / "answers.json", help="where all figures go")
    parser.add_argument("--chart", type=Path, help="an SVG file, of the first kind with the most clients")
    options = parser.parse_args(arguments)
    about = [machine(), versions(DISTRIBUTIONS)]
    print("\n".join(about))
    if reason := compiled("answers_client")[1]:
        sys.exit(f"no load client, for want of {reason}")
    wanted = [each for each in CONTESTANTS if not options.only or any(name in each.name for name in options.only)]
    for each in wanted:
        if missing := each.missing():
            print(f"left out: {each.name}, for want of {missing}")
    scenarios = [SCENARIOS[kind] for kind in options.kinds]
    if util.find_spec("trustme") is None and any(each.tls for each in scenarios):
        print("left out: relays over TLS, for want of trustme")
        scenarios = [each for each in scenarios if not each.tls]
    most = most_clients() // _DESCRIPTORS
    print(f"load average before: {' '.join(f'{each:.2f}' for each in os.getloadavg())}\n", flush=True)
    results: Row = {"about": about, "arrivals": ARRIVALS, "rows": []}
    well = True
    for scenario in scenarios:
        for clients in options.clients:
            if clients > most:
                print(f"left out: {clients:,} clients; the limit of descriptors has room for {most:,}\n")
                continue
            print(header(scenario, clients), flush=True)
            for each in wanted:
                if each.missing() or clients > each.most or not each.is_in(scenario):
                    continue
                try:
                    row = trial(each, scenario, clients, options.seconds)
                except Exception:
                    well = well and not each.ours
                    print(f"{each.name} failed:", file=sys.stderr)
                    traceback.print_exc()
                    continue
                well = well and not (row["faults"] and each.ours)
                print(line(row), flush=True)
                results["rows"].append(row)
                options.json.parent.mkdir(parents=True, exist_ok=True)
                options.json.write_text(json.dumps(results, indent=1))
                time.sleep(0.5)
            print(flush=True)
    print(f"load average after: {' '.join(f'{each:.2f}' for each in os.getloadavg())}; all figures: {options.json}")
    if options.chart and results["rows"]:
        options.chart.write_text(draw(results, results["rows"][0]["scenario"]))
    if not well:
        sys.exit(1)


if __name__ == "__main__":
    main()
