"""Schedules by chance: whoever comes and goes, each client's events have no gap, or exactly one reset."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field

import pytest

from ssesync import Broker, CloseReason, Event, StreamClosed, Subscription, open_broker

from .conftest import Open
from .test_contract import place

CHANNELS = ("a", "b", "c:1", "c:2")
LOG = 6  # events of a channel that are kept


@dataclass
class Published:
    id: str
    channel: str


@dataclass
class Client:
    """One that reconnects with the last id it saw, and checks what it gets against what was published."""

    channels: tuple[str, ...]
    patterns: tuple[str, ...]
    subscription: Subscription | None = None
    last: str = ""
    expected: int = 0  # where in what was published its next event is looked for
    resets: int = 0
    events: list[Event] = field(default_factory=list)

    def wants(self, channel: str) -> bool:
        return channel in self.channels or any(channel.startswith(pattern[:-1]) for pattern in self.patterns)

    def is_lost(self, log: list[Published]) -> bool:
        """Whether the log can't have all that came after the client's last event."""
        missed = [each.channel for each in log[self.expected :] if self.wants(each.channel)]
        return any(missed.count(channel) > LOG for channel in set(missed))

    def check(self, event: Event, log: list[Published]) -> None:
        assert event.id
        if event.type == "reset":
            assert self.is_lost(log), "a reset for which there was no reason"
            self.resets += 1
            known = [n for n, each in enumerate(log) if each.id == event.id]
            self.expected = known[0] + 1 if known else 0
        else:
            while not self.wants(log[self.expected].channel):
                self.expected += 1
            assert event.id == log[self.expected].id, "a gap or a duplicate"
            self.expected += 1
        self.last = event.id


class Schedule:
    def __init__(self, broker: Broker, seed: int, steps: int) -> None:
        self.broker = broker
        self.random = random.Random(seed)
        self.steps = steps
        self.log: list[Published] = []
        self.clients = [
            Client(tuple(self.random.sample(CHANNELS, self.random.randint(1, 2))), ())
            if self.random.random() < 0.7
            else Client(("a",), ("c:*",))
            for _ in range(3)
        ]

    def run(self) -> None:
        for _ in range(self.steps):
            step = self.random.random()
            client = self.random.choice(self.clients)
            if step < 0.5:
                for _ in range(self.random.choice((1, 1, 2, 9))):
                    self.publish(self.random.choice(CHANNELS))
            elif step < 0.65:
                self.connect(client)
            elif step < 0.9:
                self.read(client)
            else:
                self.disconnect(client)
        for client in self.clients:
            self.connect(client)
            self.catch_up(client)
            self.disconnect(client)

    def publish(self, channel: str) -> None:
        self.log.append(Published(self.broker.publish(channel, str(len(self.log))), channel))

    def connect(self, client: Client) -> None:
        if client.subscription is not None:
            return
        client.subscription = self.broker.subscribe(
            *client.channels, patterns=client.patterns, last_event_id=client.last,
            max_pending_events=self.random.choice((2, 5, 100)), patience=self.random.choice((0, 60)),
        )  # fmt: skip
        if not client.last:
            client.expected = len(self.log)
        else:
            due, before = client.is_lost(self.log), client.resets
            # The log is read only now, and is as it was.
            self.take_one(client, 30 if due else 0)
            # Without patience, what comes live in between may end it; it is told so, and comes again.
            ended = client.subscription is None
            assert ended or client.resets == before + due, "events were lost, and nothing said so"

    def read(self, client: Client) -> None:
        while client.subscription is not None and self.random.random() < 0.8 and self.take_one(client, 0):
            pass

    def take_one(self, client: Client, timeout: float) -> bool:
        assert client.subscription is not None
        try:
            event = client.subscription.get(timeout)
        except StreamClosed as closed:
            client.subscription = None
            if closed.reason is not CloseReason.OVERFLOW:
                raise
            return False
        if event is not None:
            client.check(event, self.log)
        return event is not None

    def disconnect(self, client: Client) -> None:
        if client.subscription is not None:
            client.subscription.close()
            client.subscription = None

    def catch_up(self, client: Client) -> None:
        """Read until the last of its events."""
        deadline = time.monotonic() + 90
        while any(client.wants(each.channel) for each in self.log[client.expected :]):
            if client.subscription is None:
                self.connect(client)
            else:
                self.take_one(client, 0.05)
            assert time.monotonic() < deadline


@pytest.mark.slow
def test_five_hundred_schedules_in_memory() -> None:
    for seed in range(500):
        with open_broker("memory://", max_events=LOG) as broker:
            try:
                Schedule(broker, seed, steps=40).run()
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {error}") from error
            assert all(len(log.entries) <= LOG for log in broker._log.logs.values())  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
@pytest.mark.parametrize("seed", range(12))
def test_schedules_on_the_other_brokers(openers: Open, seed: int) -> None:
    Schedule(openers(max_events=LOG), seed, steps=40).run()


@pytest.mark.slow
def test_clients_that_come_and_go_while_many_publish(openers: Open) -> None:
    brokers = [openers(), openers()]
    start = brokers[0].publish("a", "start")
    per_thread, publishers = 150, 2

    def publish(number: int) -> None:
        for n in range(per_thread):
            brokers[number % 2].publish("ab"[n % 2], f"{number}:{n}")

    def follow(number: int) -> None:
        chance = random.Random(number)
        broker, last = brokers[number % 2], start
        seen = results[number]
        while len(seen) < per_thread * publishers:
            with broker.subscribe("a", "b", last_event_id=last, max_pending_events=chance.choice((3, 100))) as follower:
                for _ in range(chance.randint(1, 60)):
                    try:
                        event = follower.get(0.5)
                    except StreamClosed:
                        break
                    if event is None:
                        break
                    assert event.id
                    seen.append(event)
                    last = event.id

    results: list[list[Event]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=publish, args=(number,)) for number in range(publishers)]
    threads += [threading.Thread(target=follow, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    ids = [[event.id for event in seen] for seen in results]
    assert len(ids[0]) == per_thread * publishers
    assert ids == [ids[0]] * 4
    assert ids[0] == sorted(set(ids[0]), key=place)
