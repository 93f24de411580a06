"""The process of benchmarks.runs that produces: ``python -m benchmarks.runs_producer KIND RUNS RATE``.

It has so many generators, each on a thread of its own. Each yields so many events a second. ``KIND`` says where the
events go:

alone
    Nowhere: what the generators cost by themselves.
publish
    To a channel for each generator: each event by a ``publish`` of its own. ``BENCH_BROKER`` names the broker.
runs
    To a run for each generator.

It prints ``ready`` when all are there, and answers each line of standard input with a line:

``go``
    The generators begin.
``read``
    How many events they have made, and the seconds of processor time of this process, as JSON.
``stopped``
    When which generators were closed, in ns of the monotonic clock, as JSON.

The end of standard input ends the generators and the process.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from ssesync import Broker, Settings, open_broker

from .fanout_apps import payload

#: Seconds after the last event within which the runs must have ended.
_END = 30.0


def name_of(number: int) -> str:
    """The name of a run, or of a channel."""
    return f"benchmark:{number}"


class Generators:
    """So many generators.

    :param count: how many there are.
    :param rate: the events a second of each.
    """

    def __init__(self, count: int, rate: float) -> None:
        self.made = [0] * count
        self.stopped: dict[int, int] = {}
        self.begun, self.over = threading.Event(), threading.Event()
        self._pause = 1 / rate

    def events(self, number: int) -> Iterator[str]:
        """The events of one. A generator that is late makes the next event at once."""
        self.begun.wait()
        due = time.monotonic() + random.Random(number).random() * self._pause
        time.sleep(max(0.0, due - time.monotonic()))
        try:
            for which in itertools.count():
                yield payload(which)
                self.made[number] += 1
                due += self._pause
                time.sleep(max(0.0, due - time.monotonic()))
                if self.over.is_set():
                    return
        except GeneratorExit:
            self.stopped[number] = time.monotonic_ns()
            raise


def _publish(generators: Generators, number: int, broker: Broker | None) -> None:
    channel = name_of(number)
    for text in generators.events(number):
        if broker is not None:
            broker.publish(channel, text)


def begin(kind: str, generators: Generators, broker: Broker | None) -> list[threading.Thread]:
    """Start what iterates the generators.

    :return: the threads, where they are not those of runs.
    """
    threads = []
    for number in range(len(generators.made)):
        if kind == "runs":
            assert broker is not None
            broker.start_run(name_of(number), generators.events, number, settings=Settings(max_producers=None))
        else:
            threads.append(threading.Thread(target=_publish, args=(generators, number, broker), daemon=True))
            threads[-1].start()
    return threads


def main() -> None:
    """Do what standard input requests."""
    kind, count, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    broker = None if kind == "alone" else open_broker(os.environ["BENCH_BROKER"])
    generators = Generators(count, rate)
    threads = begin(kind, generators, broker)
    print("ready", flush=True)
    for line in sys.stdin:
        found: Any = {"events": sum(generators.made), "cpu": time.process_time()}
        if line.strip() == "go":
            generators.begun.set()
        elif line.strip() == "stopped":
            found = dict(generators.stopped)
        print(json.dumps(found), flush=True)
    generators.over.set()
    generators.begun.set()
    deadline = time.monotonic() + _END
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if broker is not None:
        for number in range(count) if kind == "runs" else ():
            broker.get_run(name_of(number)).wait(max(0.0, deadline - time.monotonic()))
        broker.close()


if __name__ == "__main__":
    main()
