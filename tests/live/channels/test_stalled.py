"""One client that does not read, among nine that do: only it is given up, and only until it reads again."""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from requests.adapters import HTTPAdapter

from ssesync import Event, open_broker
from ssesync.channels.message import Message

from .followers import Follower, check_same
from .processes import Gunicorn, await_that

ONE = ("--workers", "1", "--worker-class", "gthread")
MB = 1024 * 1024
#: Events of a flood, and bytes of an event: 9 or 10 MB, more by far than may wait for a client.
FLOODS = {"memory": (5_000, 2_000), "sqlite": (1_500, 6_000)}


class SmallBuffers(HTTPAdapter):
    """The kernel takes megabytes for a client that does not read, unless it is told not to."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        options["socket_options"] = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)]
        super().init_poolmanager(*args, **options)  # type: ignore[no-untyped-call]


class Flooded(Gunicorn):
    """One process that publishes and serves, with a log that all of it fits into."""

    published = 0
    count, size = 0, 0

    def flood(self, count: int) -> float:
        """Publish; the seconds that it took."""
        path = f"/flood?first={self.published}&count={count}&size={self.size}"
        self.published += count
        return float(json.loads(self.fetch(path, post=True))["seconds"])

    def memory(self) -> float:
        (worker,) = self.workers()
        return float(psutil.Process(worker).memory_info().rss) / MB


@pytest.fixture(params=FLOODS)
def server(request: pytest.FixtureRequest, tmp_path: Path, broker_url: Callable[[str], str]) -> Iterator[Flooded]:
    url = "memory://" if request.param == "memory" else broker_url(request.param)
    url += f"{'&' if '?' in url else '?'}max_bytes={100 * MB}&max_events=100000"
    server = Flooded(tmp_path / "server", url, *ONE, send_buffer=32_768)
    server.count, server.size = FLOODS[request.param]
    try:
        server.start()
        yield server
    finally:
        server.stop()


def test_nine_clients_lose_nothing_by_one_that_stalls_and_that_one_catches_up(server: Flooded):
    stalls, goes_on = threading.Event(), threading.Event()

    def stall(event: Event) -> None:
        if event.data and event.data.startswith(f"{server.count // 2} "):
            stalls.set()
            goes_on.wait(300)

    def await_all(of: list[Follower]) -> None:
        await_that(lambda: all(len(each.events) == server.published for each in of), "all events came")

    with requests.Session() as session:
        session.mount("http://", SmallBuffers())
        live = [Follower(server.url(), ["flood"], key="live") for _ in range(9)]
        stalled = Follower(server.url(), ["flood"], key="stalled", before=stall, session=session)
        try:
            await_that(lambda: all(each.workers for each in [*live, stalled]), "all have connected")
            undisturbed = 2 * server.flood(server.count // 2)
            await_all([*live, stalled])
            before = server.memory()
            disturbed = server.flood(server.count)
            assert stalls.wait(90)
            await_all(live)
            while not server.state()["broker"]["disconnected"]:
                # What the log has anyway counts only against one that has not looked for a second.
                server.flood(10)
                await_all(live)
            after, pending = server.memory(), server.state()["most_pending"]
            assert len(stalled.events) == server.count // 2
            goes_on.set()
            await_all([stalled])
        finally:
            goes_on.set()
            for each in [*live, stalled]:
                each.stop()
    numbers = [(event.data or "").partition(" ")[0] for event in stalled.events]
    assert numbers == [str(number) for number in range(server.published)]
    for follower in live:
        check_same(follower.events, stalled.events)
    assert next(iter(server.state()["reasons"]["stalled"])) == "overflow"
    assert len(stalled.workers) >= 2  # more, if it is so slow again while it catches up
    assert disturbed < 5 * undisturbed + 2
    assert pending <= 1 * MB + server.size
    # Ten times what may wait for a client, or be a page of the log, and the memory broker's log; and not all that was
    # published ten times.
    assert after - before < 40


def test_a_burst_does_not_count_against_one_that_waited_for_it():
    """It has not polled for long, as there was nothing to see."""
    with open_broker("memory://") as broker:
        subscription = broker.subscribe("a", max_pending_events=2, patience=0.01)
        came: list[object] = []
        reader = threading.Thread(target=lambda: came.extend(subscription.take(60) or ()))
        reader.start()
        await_that(lambda: subscription._subscriber._polled == math.inf, "it waits")
        time.sleep(0.02)
        # At once, so that it has no chance to poll before the burst is over.
        assert subscription._subscriber.offer([Message.make(broker.dispatcher.epoch, seq, "a", b"data: x\n\n")
                                               for seq in range(1, 6)]) is None  # fmt: skip
        # None of them is in the log, which therefore has nothing for it.
        await_that(lambda: subscription._subscriber._polled == math.inf, "it waits again")
        broker.publish("a", "published")
        assert not subscription.closed
        subscription.close()
        reader.join()
