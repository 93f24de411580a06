"""Reading end to end over loopback, compared with other clients: ``python -m benchmarks.reader [--quick]``.

A server in a process of its own sends prebuilt bytes in chunked transfer coding as fast as they are taken. Every
contestant makes a request the way its own documentation does, follows the stream to its end and takes every event;
the time is that of all this, the request included. ``raw.read1`` is no client: it is the bare loop over
``response.raw.read1(65536)`` that gives the body's bytes promptly on any framing, with nothing decoded, and so what a
reader over requests would cost at the least if it did not take the chunks apart itself.

What each gives is checked against the events before it is timed. How it is timed: benchmarks/timing.py. The clock is
this process's processor time, the kernel's part of it included: what reading costs. The wall's clock (``--wall``) adds
the waiting for the server, which a busy machine makes longer; on an idle one with two cores the result is the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from time import perf_counter, process_time

from . import peers, server
from .inputs import Input
from .timing import Run, machine, race, table, versions

QUICK = 2
READ1 = "raw.read1, bytes only"


def reading(case: Input, url: str, how: str, rounds: int, clock: Callable[[], float]) -> str:
    """Check, time and tabulate the readers on one stream."""
    size = sum(map(len, case.blocks))
    runs: dict[str, Run] = {READ1: _read1(url)}
    expected = {READ1: size}
    for name, client in peers.readers().items():
        peers.check(name, [client.fields(event) for event in client.events(url)], case.events)
        runs[name] = _drain(client.events, url)
        expected[name] = len(case.events)
    seconds = race(runs, expected, rounds, clock)
    title = f"read, {how} ({len(case.events):,} events, {size / 1e6:.1f} MB)"
    return table(title, seconds, peers.OURS, len(case.events), size)


def _read1(url: str) -> Run:
    import requests

    def run() -> int:
        size = 0
        with requests.get(url, stream=True) as response:
            while data := response.raw.read1(65536):
                size += len(data)
        return size

    return run


def _drain(events: Callable[[str], Iterable[object]], url: str) -> Run:
    def run() -> int:
        count = 0
        for _ in events(url):
            count += 1
        return count

    return run


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reader", description=__doc__.partition(":")[0])
    parser.add_argument("--quick", action="store_true", help="tiny streams and one round: shows that it runs, no more")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--wall", action="store_true", help="time by the wall's clock")
    options = parser.parse_args(arguments)
    scale, rounds = (QUICK, 1) if options.quick else (5_000, options.rounds)
    clock = perf_counter if options.wall else process_time
    print(machine())
    print(versions(peers.DISTRIBUTIONS) + "\n")
    with server.running(scale) as base:
        for name, (case, _, how) in server.cases(scale).items():
            print(reading(case, f"{base}/{name}", how, rounds, clock))


if __name__ == "__main__":
    main()
