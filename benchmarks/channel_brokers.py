"""The brokers alone: in one process, without HTTP."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from ssesync import Broker, Subscription
from ssesync.channels.message import Message

from .channel_apps import SIZE

_WAIT = 60.0


@dataclass
class Result:
    """What came of one run."""

    late: list[float]
    """How late events came, in ms: the 50th, 95th and 99th hundredth."""
    rate: float
    """Events a second that came to subscribers, all together."""
    publish: float
    """What publishing an event costs, in µs."""


class Reader:
    """Takes a subscription's events on a thread of its own, as a server's thread does."""

    def __init__(self, subscription: Subscription, count: int) -> None:
        self.subscription, self.count = subscription, count
        self.late: list[float] = []
        self.texts: list[bytes] = []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        deadline = time.monotonic() + _WAIT
        while len(self.texts) < self.count and time.monotonic() < deadline:
            items = self.subscription.take(1.0)
            now = time.monotonic_ns()
            for item in items or ():
                if isinstance(item, Message):
                    data = item.partition(b"data: ")[2].split(b" ", 2)
                    self.texts.append(data[0])
                    self.late.append((now - int(data[1])) / 1e6)


def publish(broker: Broker, count: int, pause: float) -> tuple[float, float]:
    """Publish; when that began and how long it took."""
    start = due = time.monotonic()
    for number in range(count):
        broker.publish("benchmark", f"{number} {time.monotonic_ns()} ".ljust(SIZE, "x"))
        if pause:
            due += pause
            time.sleep(max(0.0, due - time.monotonic()))
    return start, time.monotonic() - start


def measure(broker: Broker, subscribers: int, paced: tuple[int, float], burst: int) -> Result:
    """Events at a pace, then as fast as it goes, to so many subscribers."""
    late, _, _ = _run(broker, subscribers, *paced)
    _, seconds, publishing = _run(broker, subscribers, burst, 0)
    parts = [late[min(len(late) - 1, len(late) * part // 100)] for part in (50, 95, 99)]
    return Result(parts, burst * subscribers / seconds, publishing / burst * 1e6)


def _run(broker: Broker, subscribers: int, count: int, pause: float) -> tuple[list[float], float, float]:
    readers = [Reader(broker.subscribe("benchmark"), count) for _ in range(subscribers)]
    time.sleep(0.2)
    start, publishing = publish(broker, count, pause)
    for reader in readers:
        reader.thread.join(_WAIT)
    seconds = time.monotonic() - start
    expected = [str(number).encode() for number in range(count)]
    for reader in readers:
        reader.subscription.close()
        if reader.texts != expected:
            raise AssertionError(f"{len(reader.texts)} of {count} events came, or not in order")
    return sorted(late for reader in readers for late in reader.late), seconds, publishing


def idle(broker: Broker, seconds: float) -> float:
    """The processor time of a process with one subscriber and no events, in ms a second."""
    with broker.subscribe("benchmark"):
        time.sleep(1)  # for the first announcement of presence
        before = time.process_time()
        time.sleep(seconds)
        return (time.process_time() - before) / seconds * 1e3
