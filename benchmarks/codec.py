"""Decoding and encoding, compared with other Python libraries: ``python -m benchmarks.codec [--quick]``.

How each contestant is used: benchmarks/peers.py. What it is given: benchmarks/inputs.py. How it is timed:
benchmarks/timing.py. Every contestant must give exactly the events that the input holds before it is timed. A run is
over when the last event has been taken.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from time import process_time

from ssesync.wire import Decoder

from . import peers
from .inputs import CODEC, Input
from .timing import Run, machine, race, table, versions

QUICK = 40


def decoding(case: Input, chunks: list[bytes], how: str, rounds: int) -> str:
    """Check, time and tabulate the decoders on one way to cut one input."""
    runs: dict[str, Run] = {}
    for name, client in peers.decoders().items():
        peers.check(name, [client.fields(event) for event in client.events(chunks)], case.events)
        runs[name] = _drain(client.events, chunks)
    seconds = race(runs, dict.fromkeys(runs, len(case.events)), rounds, process_time)
    size = sum(map(len, chunks))
    title = f"decode, {case.name}, {how} ({len(case.events):,} events, {size / 1e6:.1f} MB)"
    return table(title, seconds, peers.OURS, len(case.events), size)


def encoding(case: Input, rounds: int) -> str:
    """Check, time and tabulate the encoders on the events of one input."""
    # An event says what changes: no type where clients see "message", no ID where there is none.
    events = [(data, None if type == "message" else type, id or None) for data, type, id in case.events]
    runs: dict[str, Run] = {}
    size = 0
    for name, make in peers.encoders().items():
        stream = b"".join(make(*event) for event in events)
        got = [(event.data or "", event.type, event.id or "") for event in Decoder().feed(stream)]
        peers.check(name, got, case.events)
        size = size or len(stream)
        runs[name] = _make_all(make, events)
    seconds = race(runs, dict.fromkeys(runs, len(events)), rounds, process_time)
    return table(f"encode, {case.name} ({len(events):,} events)", seconds, peers.OURS, len(events), size)


def _drain(events: Callable[[list[bytes]], Iterable[object]], chunks: list[bytes]) -> Run:
    def run() -> int:
        count = 0
        for _ in events(chunks):
            count += 1
        return count

    return run


def _make_all(
    make: Callable[[str, str | None, str | None], bytes], events: list[tuple[str, str | None, str | None]]
) -> Run:
    def run() -> int:
        count = 0
        for data, type, id in events:
            make(data, type, id)
            count += 1
        return count

    return run


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codec", description=__doc__.partition(":")[0])
    parser.add_argument("--quick", action="store_true", help="tiny inputs and one round: shows that it runs, no more")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--only", choices=list(CODEC), action="append", help="one input; may be given again")
    options = parser.parse_args(arguments)
    rounds = 1 if options.quick else options.rounds
    print(machine())
    print(versions(peers.DISTRIBUTIONS) + "\n")
    for key, (make, count) in CODEC.items():
        if options.only and key not in options.only:
            continue
        case = make(QUICK if options.quick else count)
        print(decoding(case, case.cut(), "64 kB chunks", rounds))
        print(decoding(case, case.blocks, "one event per chunk", rounds))
        if key != "crlf":  # the same events as "small"
            print(encoding(case, rounds))


if __name__ == "__main__":
    main()
