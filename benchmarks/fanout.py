"""One event to thousands of clients: ``python -m benchmarks.fanout [--clients 1000 5000 10000] [--rounds 3]``.

One process serves streams of one channel, one load client follows them all (benchmarks/fanout_client.c), and a request
to the server publishes within its process. The contestants are in benchmarks/fanout_servers.py, their applications in
benchmarks/fanout_apps.py.

**The floor** is a loop in C that calls ``send`` for every client and does nothing else (benchmarks/fanout_floor.c). It
has as many clients as each contestant, through a load client of its own, and the two take turns, event by event, so
that other load of the machine affects both. Ratios are the medians of those of single turns; "best" is that of the two
best ones. Figures in ms are medians too, with the least and the most.

**One event** of 200 bytes of data: from its first receipt to its last, and from its publishing to its last. **A burst**
of 100: from the first publishing to the last receipt of all. The floor knows them all before and calls ``send`` once a
client; "once an event" is the same program calling it once for each event and client, and with one event it is the
floor itself, so that its ratio there shows the variation of the measurement.

Every client must get every event, once, in order and with the same bytes. If a contestant lost some, its figures are
not shown.

Heads are awaited 64 at a time while connecting, and nothing is measured before an event has reached all clients. The
processor time is that of the server's processes for each event received, the kernel's part of sending included. Memory
is what the server's processes have (RSS; gunicorn's first process is one of them) before any client comes and with all
of them; "worker" is the largest process with all of them, and "peak" the most that all ever had, which bursts decide.
The kernel's memory for sockets is not included.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from .fanout_chart import draw
from .fanout_servers import CONTESTANTS, FLOOR, Arena, Contestant, memory
from .fanout_tools import CACHE, compiled, node_versions
from .timing import machine, versions

DISTRIBUTIONS = ["gunicorn", "gevent", "flask", "uvicorn", "uvloop", "httptools", "h11", "starlette", "sse-starlette"]
CLIENTS = [1_000, 5_000, 10_000]
BURST = 100
_SINGLES, _BURSTS = 10, 3
# Seconds after which no more of a kind are measured.
_ENOUGH = 12.0
_REST = 0.1

Row = dict[str, Any]


def turns(arena: Arena, floor: Arena, count: int, most: int) -> tuple[list[Row], list[Row]]:
    """Measure both by turns."""
    own: list[Row] = []
    lowest: list[Row] = []
    start = time.monotonic()
    while len(own) < most and (not own or time.monotonic() - start < _ENOUGH):
        pairs = [(arena, own), (floor, lowest)]
        for each, found in pairs if len(own) % 2 else pairs[::-1]:
            time.sleep(_REST)
            found.append(each.measure(count))
    return own, lowest


def spun(arena: Arena, floor: Arena) -> tuple[list[Row], list[Row]]:
    """One event at a time, while a thread of the same process computes."""
    found: list[list[Row]] = []
    for each in (arena, floor):
        each.spin(True)
        try:
            found.append([each.measure(1) for _ in range(_SINGLES)])
        finally:
            each.spin(False)
    return found[0], found[1]


def meet(contestant: Contestant, floor: Arena, *, quick: bool, spinner: bool) -> Row:
    """All that is measured of a contestant in a round."""
    with Arena(contestant, floor.clients) as arena:
        found: Row = {
            "busy": arena.busy,
            "connects": arena.connects,
            "connect_cpu": arena.connect_cpu,
            "idle": arena.idle,
            "full": arena.full,
        }
        found["one"], found["floor_one"] = turns(arena, floor, 1, 2 if quick else _SINGLES)
        found["burst"], found["floor_burst"] = turns(arena, floor, BURST, 1 if quick else _BURSTS)
        if spinner and contestant.spins:
            found["spun"], found["floor_spun"] = spun(arena, floor)
        found["strays"] = arena.strays(0.3)
        found["after"] = memory(arena.server.pid)
    return found


def summary(rounds: list[Row]) -> Row:
    """What the rounds say together."""

    def all_of(kind: str, figure: str) -> list[float]:
        return [each[figure] for found in rounds for each in found.get(kind, [])]

    def ratios(kind: str, figure: str, to: str) -> list[float]:
        return [
            own[figure] / max(other[figure], 1e-6)  # a nanosecond: one client has no first and last
            for found in rounds
            for own, other in zip(found.get(kind, []), found.get(to, []), strict=True)
        ]

    kinds = [f"{prefix}{kind}" for prefix in ("", "floor_") for kind in ("one", "burst", "spun")]
    faults = [each["faults"] for found in rounds for kind in kinds for each in found.get(kind, [])]
    faults += [found["strays"] for found in rounds]
    figures: Row = {"faults": "; ".join(sorted(set(filter(None, faults)))), "rounds": len(rounds)}
    if figures["faults"]:
        return figures
    for kind in ("one", "burst", "spun"):
        for figure in ("spread", "late", "rate", "cpu", "client_cpu"):
            values = all_of(kind, figure)
            if values:
                figures[f"{kind}_{figure}"] = median(values)
                figures[f"{kind}_{figure}_range"] = [min(values), max(values)]
        for figure in ("spread", "late"):
            found = ratios(kind, figure, f"floor_{kind}")
            if found:
                figures[f"{kind}_{figure}_ratio"] = median(found)
                figures[f"{kind}_{figure}_best_ratio"] = min(all_of(kind, figure)) / max(
                    min(all_of(f"floor_{kind}", figure)), 1e-6
                )
    if any("spun" in found for found in rounds):
        for kind in ("", "floor_"):
            figures[f"{kind}spun_to_quiet"] = median(all_of(f"{kind}spun", "late")) / median(
                all_of(f"{kind}one", "late")
            )
    figures["bytes"] = median(all_of("burst", "bytes"))
    figures["connects"] = median(found["connects"] for found in rounds)
    figures["connect_cpu"] = median(found["connect_cpu"] for found in rounds)
    for moment in ("idle", "full", "after"):
        for kind in ("rss", "largest", "pss", "peak"):
            figures[f"{moment}_{kind}"] = median(found[moment][kind] for found in rounds)
    return figures


def floor_rounds(rows: dict[str, list[Row]], floor: Row) -> list[Row]:
    """The floor's own line, of all turns it took."""
    lines = []
    for found in (each for all_rounds in rows.values() for each in all_rounds):
        own = {name: value for name, value in found.items() if name.startswith("floor_")}
        lines.append({**floor, **own, **{name.removeprefix("floor_"): value for name, value in own.items()}})
    return lines


_HEADER = (
    f"{'one: ms, first to last':>25}  {'x floor':>7}  {'to last':>9}  {'x floor':>7}  {'best':>5}"
    f"  {'burst: ms':>9}  {'receipts/s':>11}  {'x floor':>7}"
    f"  {'µs: one':>7}  {'burst':>5}  {'MB: idle':>8}  {'full':>5}  {'worker':>6}  {'peak':>5}  {'conn/s':>6}"
)


def table(clients: int, rows: dict[str, Row]) -> str:
    """The lines for this number of clients."""
    lines = [f"{clients:,} clients", f"  {'':34}  {_HEADER}"]
    for name, row in rows.items():
        if row["faults"]:
            lines.append(f"  {name:34}  {row['faults']}")
            continue
        low, high = row["one_spread_range"]
        spread = f"{row['one_spread']:8.1f} ({low:.1f}-{high:.1f})"
        lines.append(
            f"  {name:34}  {spread:>25}  {row['one_spread_ratio']:7.2f}  "
            f"{row['one_late']:9.1f}  {row['one_late_ratio']:7.2f}  {row['one_late_best_ratio']:5.2f}  "
            f"{row['burst_late']:9,.0f}  {row['burst_rate']:11,.0f}  {row['burst_late_ratio']:7.2f}  "
            f"{row['one_cpu']:7.1f}  {row['burst_cpu']:5.2f}  {row['idle_rss']:8.0f}  {row['full_rss']:5.0f}  "
            f"{row['full_largest']:6.0f}  {row['after_peak']:5.0f}  {row['connects']:6,.0f}"
        )
    for name, row in rows.items():
        if "spun_to_quiet" in row and name != FLOOR.name:
            lines.append(
                f"  {name}, a thread computing: published to last {row['spun_late']:.1f} ms, "
                f"{row['spun_to_quiet']:.2f} times its quiet figure (floor: {row['floor_spun_to_quiet']:.2f})"
            )
    return "\n".join(lines) + "\n"


def contest(clients: int, wanted: list[Contestant], options: Any, keep: Callable[[str, Row], None]) -> bool:
    """Run all rounds with this number of clients. Returns whether those of this library succeeded."""
    well = True
    rows: dict[str, list[Row]] = {}
    with Arena(FLOOR, clients) as floor:
        bare = {"connects": floor.connects, "connect_cpu": floor.connect_cpu, "idle": floor.idle, "full": floor.full}
        for number in range(options.rounds):
            shift = number % len(wanted)
            for contestant in wanted[shift:] + wanted[:shift]:
                started = time.monotonic()
                try:
                    found = meet(contestant, floor, quick=options.quick, spinner=options.spinner)
                except Exception:
                    well = well and not contestant.ours
                    print(f"{contestant.name} failed with {clients:,} clients:", file=sys.stderr)
                    traceback.print_exc()
                    continue
                rows.setdefault(contestant.name, []).append(found)
                print(f"{clients:,}: {contestant.name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
        bare["after"], strays = memory(floor.server.pid), floor.strays(0.3)
    summaries = {FLOOR.name: summary([{**each, "strays": strays} for each in floor_rounds(rows, bare)])} if rows else {}
    summaries |= {each.name: summary(rows[each.name]) for each in wanted if each.name in rows}
    for name, row in summaries.items():
        keep(name, {"clients": clients, **row, "raw": rows.get(name, [])})
    print(table(clients, summaries), flush=True)
    return well and not any(row["faults"] for name, row in summaries.items() if name.startswith("ssesync"))


def most_clients() -> int:
    """The number of clients that the limit of descriptors allows."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY:
        hard = 1_048_576
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the servers inherit it
    return int(resource.getrlimit(resource.RLIMIT_NOFILE)[0] * 0.9) - 100


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fanout", description=__doc__.partition(":")[0])
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="contestants whose name has one of these in it")
    parser.add_argument("--spinner", action="store_true", help="also while a thread of the server computes")
    parser.add_argument("--quick", action="store_true", help="few events: shows that it runs, no more")
    parser.add_argument("--json", type=Path, default=CACHE / "fanout.json", help="where all figures go")
    parser.add_argument("--chart", type=Path, help="an SVG file, of the most clients")
    options = parser.parse_args(arguments)
    wanted = [each for each in CONTESTANTS if not options.only or any(name in each.name for name in options.only)]
    about = [machine(), versions(DISTRIBUTIONS), node_versions() if any("node" in each.name for each in wanted) else ""]
    print("\n".join(filter(None, about)))
    for program, what in (("fanout_client", "the load client"), ("fanout_floor", "the floor")):
        if reason := compiled(program)[1]:
            print(f"{what} is in Python, for want of {reason}")
    missing = {each.name: each.missing() for each in wanted}
    for name, what in missing.items():
        if what:
            print(f"left out: {name}, for want of {what}")
    results: Row = {"about": about, "burst": BURST, "rows": []}

    def keep(name: str, row: Row) -> None:
        results["rows"].append({"name": name, **row})
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1))

    well, most = True, most_clients()
    print(f"load average before: {' '.join(f'{each:.2f}' for each in os.getloadavg())}\n", flush=True)
    for clients in options.clients:
        if clients > most:
            print(f"left out: {clients:,} clients; the limit of descriptors has room for {most:,}\n")
            continue
        able = [each for each in wanted if not missing[each.name] and clients <= each.most]
        for each in wanted:
            if clients > each.most:
                print(f"left out with {clients:,} clients: {each.name}; it is tried with up to {each.most:,}")
        if able:
            well = contest(clients, able, options, keep) and well
    busy = [found["busy"] for row in results["rows"] for found in row["raw"]]
    if busy:
        others = f"{median(busy):.0%} of the processors, {max(busy):.0%} at most"
        print(f"while all was connected and nothing published, everything took {others}")
        print(f"all figures: {options.json}")
        if options.chart:
            options.chart.write_text(draw(results))
            print(f"chart: {options.chart}")
    if not well:
        sys.exit("ours has lost events, or failed")


if __name__ == "__main__":
    main()
