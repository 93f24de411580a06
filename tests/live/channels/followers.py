"""Clients: each an EventSource on a thread of its own, whose events are compared with what the log says there was."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

import requests

from ssesync import Backoff, Event, EventSource, StatusError, Subscription, open_broker

from .processes import TIMEOUT, Gunicorn, await_that
from .publisher import END

#: Back soon, whatever the server says.
SOON = Backoff(initial=0.1, max_delay=0.5, max_retry_after=0.5)


class Follower:
    """Follows channels until it is stopped.

    :param before: called with each event, on the thread that reads, before it is counted.
    :param more: of the query.
    """

    def __init__(
        self,
        url: str,
        channels: Sequence[str] = (),
        patterns: Sequence[str] = (),
        *,
        key: str = "",
        last_event_id: str = "",
        before: Callable[[Event], object] = lambda event: None,
        session: requests.Session | None = None,
        **more: str,
    ) -> None:
        self.channels, self.patterns, self._before = channels, patterns, before
        #: What came, in order.
        self.events: list[Event] = []
        #: The worker behind each connection.
        self.workers: list[int] = []
        #: What ended it for good.
        self.error: Exception | None = None
        query = [("channel", each) for each in channels] + [("pattern", each) for each in patterns] + [("key", key)]
        query += more.items()
        self.source = EventSource(
            f"{url}?{urlencode(query)}",
            last_event_id=last_event_id,
            backoff=SOON,
            session=session,
            on_open=lambda response: self.workers.append(int(response.headers["X-Worker"])),
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for event in self.source:
                self._before(event)
                # The first event of a connection has the reconnection time that the stream opens with in its block.
                self.events.append(dataclasses.replace(event, retry=None))
        except StatusError as error:
            self.error = error

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    @property
    def data(self) -> list[str]:
        return [event.data or "" for event in self.events]

    @property
    def resets(self) -> list[int]:
        """Where among the events there are resets."""
        return [place for place, event in enumerate(self.events) if event.type == "reset"]

    def wants(self, data: str) -> bool:
        channel = data.partition(" ")[0]
        return channel in self.channels or any(channel.startswith(each.removesuffix("*")) for each in self.patterns)

    def stop(self) -> None:
        self.source.close()
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()


class Crowd:
    """Followers of one server, and all that there is to follow in this test."""

    def __init__(self, server: Gunicorn, prefix: str, count: int = 5) -> None:
        self.server = server
        #: The channels that are published to.
        self.channels = [f"{prefix}:{number}" for number in range(count)]
        #: One that has them all.
        self.pattern = f"{prefix}:*"
        self.followers: list[Follower] = []
        with open_broker(server.broker) as broker:
            #: The place in the log that everybody begins at.
            self.start = broker.position()

    def join(self, count: int, url: str = "", **options: Any) -> list[Follower]:
        """Let followers come, of one channel, of several, of a pattern, in turn; and wait until they are there."""
        new = []
        for number in range(count):
            names = [self.channels[(number + more) % len(self.channels)] for more in range(len(self.channels))]
            channels, patterns = [(names[:1], []), (names[:3], []), (names[:1], [self.pattern]), ([], [self.pattern])][
                number % 4
            ]
            new.append(
                Follower(url or self.server.url(), channels, patterns, last_event_id=self.start, **options)
            )  # fmt: skip
        self.followers += new
        await_that(lambda: all(each.workers for each in new), "all have connected")
        return new

    def spread(self) -> None:
        """Have every worker serve one of them at least."""
        for _ in range(200):
            serving = [follower.workers[-1] for follower in self.followers]
            if set(serving) >= set(self.server.workers()):
                return
            # One of those that the busiest has.
            moved = self.followers[serving.index(max(set(serving), key=serving.count))]
            connections = len(moved.workers)
            moved.source.restart()
            await_that(lambda: len(moved.workers) > connections, "it connects again")  # noqa: B023
        raise AssertionError("one worker gets no connection")

    def wait_for(self, count: int, followers: Sequence[Follower] | None = None) -> None:
        """Wait until each has so many events more."""
        wanted = [(each, len(each.events) + count) for each in (followers or self.followers)]
        await_that(lambda: all(len(each.events) >= least for each, least in wanted), f"{count} more events came")

    def wait_for_the_end(self) -> None:
        """Wait until each has the last event of each of its channels."""
        ends = [f"{channel} {END}" for channel in self.channels]

        def is_through(follower: Follower) -> bool:
            came = {text for text in follower.data[-200:] if text.partition(".")[0].endswith(END)}
            return all(any(text.startswith(end) for text in came) for end in ends if follower.wants(end))

        await_that(lambda: all(map(is_through, self.followers)), "the last events came")

    def log(self, after: str = "") -> list[Event]:
        """What the log has of these channels."""
        with (
            open_broker(self.server.broker) as broker,
            broker.subscribe(patterns=[self.pattern], last_event_id=after or self.start) as subscription,
        ):
            return up_to_the_end(subscription, len(self.channels))

    def check(self, *published: tuple[str, str]) -> list[Event]:
        """Fail unless each has all of its channels' events, in the order of the log, once, and all that was published
        is in the log; the log."""
        self.wait_for_the_end()
        log = self.log()
        assert not any(event.type == "reset" for event in log)
        known = {(event.id, event.data) for event in log}
        assert set(published) <= known, "an event that publish() returned for is not in the log"
        for follower in self.followers:
            check_same(follower.events, [event for event in log if follower.wants(event.data or "")])
            assert follower.source.last_event_id == follower.events[-1].id
        return log

    def stop(self) -> None:
        # All at once, so that none comes back meanwhile.
        for follower in self.followers:
            follower.source.close()
        for follower in self.followers:
            follower.stop()


def check_same(came: list[Event], expected: list[Event]) -> None:
    """As a comparison, with a message that can be read."""
    for place, (one, other) in enumerate(zip(came, expected, strict=False)):
        assert one == other, f"at {place}: {one} instead of {other}, after {came[place - 1] if place else 'nothing'}"
    assert len(came) == len(expected)


def up_to_the_end(subscription: Subscription, channels: int) -> list[Event]:
    events: list[Event] = []
    while channels:
        event = subscription.get(TIMEOUT)
        assert event is not None, f"the log ends after {events[-1:]}"
        events.append(event)
        channels -= (event.data or "").partition(" ")[2].partition(".")[0] == END
    return events
