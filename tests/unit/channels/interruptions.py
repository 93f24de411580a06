"""A broker is called again at each step of each of its operations, as by a signal handler: ``python -m
tests.unit.channels.interruptions URL EVERY``, which tries one in so many steps.

A trace function is called between two lines of the thread that it is set for, which is where signal handlers run. So
each place is tried, once. Prints what came of it, and ends with an error as soon as something is wrong or hangs.
"""

from __future__ import annotations

import faulthandler
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

from ssesync import Broker, BrokerBusy, BrokerClosed, ChannelFeed, StreamClosed, Subscription, open_broker

# Files all lines of which are tried, and those of which one in so many is: a command of redis-py has 700.
EACH, SOME = "/ssesync/", ("/redis/", "/threading.py", "/queue.py", "/contextlib.py", "/logging/")
STRIDE = 31


class Step:
    """Calls something at the n-th line of what is run with it."""

    def __init__(self, number: int, call: Callable[[], object]) -> None:
        self._left = number
        self._others = 0
        self._call = call
        self.reached = False

    def run(self, operation: Callable[[], object]) -> None:
        sys.settrace(self._trace)
        try:
            operation()
        finally:
            sys.settrace(None)

    def _trace(self, message: FrameType, event: str, arg: object) -> Any:
        """For each call: how the lines of the function that is called are traced."""
        name = message.f_code.co_filename
        if EACH in name:
            return self._each
        return self._some if any(part in name for part in SOME) else None

    def _each(self, message: FrameType, event: str, arg: object) -> Any:
        if event == "line" and not self.reached:
            self._left -= 1
            if self._left < 0:
                self.reached = True
                sys.settrace(None)  # the rest takes less time without
                self._call()
        return self._each

    def _some(self, message: FrameType, event: str, arg: object) -> Any:
        if event == "line":
            self._others += 1
            if self._others % STRIDE == 0:
                self._each(message, event, arg)
        return self._some


class Trial:
    """A broker and a subscriber, and what is known to be published."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.broker = open_broker(url)
        self.outcomes: Counter[str] = Counter()
        self.others: list[Broker | ChannelFeed] = []
        self.begin()

    def begin(self) -> None:
        self.subscription = self.broker.subscribe("a", patience=60)
        self.start = self.broker.publish("other", "start")
        self.published: list[str] = []
        self.seen: list[str | None] = []

    def again(self) -> None:
        """Begin anew where the broker or its subscriber was closed."""
        if self.broker._closed:
            self.broker = open_broker(self.url)
            self.begin()
        elif self.subscription.closed:
            self.begin()

    # What is interrupted.

    def publish(self) -> None:
        self.published.append(self.broker.publish("a", "x"))

    def subscribe(self) -> None:
        self.broker.subscribe("b", key="b").close()

    def revoke(self) -> None:
        self.broker.revoke("nobody")

    def get(self) -> None:
        event = self.subscription.get(0)
        if event is not None:
            self.seen.append(event.id)

    def replay(self) -> None:
        with self.broker.subscribe("a", last_event_id=self.start) as subscription:
            subscription.get(0)

    def ask(self) -> None:
        self.broker.position()
        self.broker.subscriber_count("a")
        self.broker.use_once(f"{id(self)}{len(self.published)}", 1)
        self.broker.snapshot()

    def coalesce(self) -> None:
        with self.broker.subscribe("a", overflow="coalesce", coalesce=lambda event: 1, max_pending_events=1):
            self.published.append(self.broker.publish("a", "x"))
            self.published.append(self.broker.publish("a", "x"))

    def open_and_close(self) -> None:
        broker = open_broker(self.url)
        self.others.append(broker)
        broker.subscribe("a")
        broker.close()

    def feed(self) -> None:
        feed = ChannelFeed(self.broker, "fed", lambda: iter(()), exclusive=False)
        self.others.append(feed)
        feed.start()
        feed.stop()

    # What interrupts.

    def close_the_subscription(self) -> None:
        self.subscription.close()
        assert self.subscription.closed

    def close(self) -> None:
        self.broker.close()
        self.broker.close()

    def close_the_others(self) -> None:
        while self.others:
            other = self.others.pop()
            other.close() if isinstance(other, Broker) else other.stop()

    def outcome_of(self, call: Callable[[], object]) -> None:
        """What is called in the middle of something either works or raises one error, and goes by the other's steps."""
        try:
            call()
        except (BrokerBusy, BrokerClosed) as error:
            self.outcomes[type(error).__name__] += 1
        else:
            self.outcomes["done"] += 1

    def check(self) -> None:
        """Nothing that was published is lost, doubled, or out of order, be it live or in the log."""
        if self.subscription.closed:
            return
        while len(self.seen) < len(self.published):
            event = self.subscription.get(10)
            assert event is not None, "an event is lost"
            self.seen.append(event.id)
        assert self.seen == sorted(self.published, key=lambda each: int(each.rpartition("-")[2]))
        self.check_log(self.broker.subscribe("a", last_event_id=self.start))

    def check_log(self, subscription: Subscription) -> None:
        with subscription:
            for each in self.published:
                event = subscription.get(10)
                assert event is not None
                assert event.id in self.published, each


def run(url: str, every: str) -> None:
    trial = Trial(url)
    operations = [
        trial.publish, trial.subscribe, trial.revoke, trial.get, trial.replay, trial.ask, trial.coalesce,
        trial.open_and_close, trial.feed,
    ]  # fmt: skip
    interruptions = [
        trial.publish, trial.subscribe, trial.revoke, trial.close_the_subscription, trial.close, trial.close_the_others,
    ]  # fmt: skip
    steps = 0
    number = 0
    # How often in a row an operation ended before so many steps. One that did so each of many times is done; but how
    # many it takes to get and to replay depends on what was published, so these are tried as long as any other. Each
    # time is an operation that is traced and not interrupted: where few steps are tried, a third of the times will do.
    short: Counter[int] = Counter()
    many = 30 if every == "1" else 10
    varying = {operations.index(trial.get), operations.index(trial.replay)}
    while (going_on := {place for place in range(len(operations)) if short[place] < many} | varying) > varying:
        for place in sorted(going_on):
            operation = operations[place]
            # Each step is interrupted by one after the other, as all at each would take six times as long.
            call = interruptions[(number + place) % len(interruptions)]
            step = Step(number, lambda call=call: trial.outcome_of(call))  # type: ignore[misc]
            faulthandler.dump_traceback_later(90, exit=True)
            try:
                step.run(operation)
            except (BrokerClosed, StreamClosed):
                assert trial.broker._closed or trial.subscription.closed or operation == trial.open_and_close
            if step.reached:
                steps += 1
                short[place] = 0
                if number % 7 == 0:
                    trial.check()
            else:
                short[place] += 1
            trial.again()
        number += int(every)
    trial.check()
    faulthandler.cancel_dump_traceback_later()
    trial.broker.close()
    print(steps, dict(trial.outcomes))


if __name__ == "__main__":
    run(*sys.argv[1:])
