"""A keeper, workers, and clients that follow what is published."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ssesync import open_broker
from tests.live.channels.followers import Follower
from tests.live.channels.processes import Publisher, await_that

from .keepers import KeeperProcess, Workers

ALL = [f"a:{number}" for number in range(4)]


class Site:
    """See the module."""

    def __init__(self, folder: Path, broker: str) -> None:
        self.folder = folder
        self.broker = broker
        self.keeper = KeeperProcess(folder / "k", self.broker)
        self.stack = contextlib.ExitStack()
        with open_broker(self.broker) as broker:
            self.start = broker.position()
        self.followers: list[Follower] = []

    def workers(self, *options: str, keeper: str | None = None, **environment: str) -> Workers:
        path = self.keeper.path if keeper is None else keeper
        workers = Workers(self.folder / "w", self.broker, *options, SSESYNC_KEEPER=path, **environment)
        self.stack.callback(workers.stop)
        return workers

    def start_keeper(self) -> KeeperProcess:
        self.stack.callback(self.keeper.stop)
        return self.keeper.start()

    def follow(self, workers: Workers, count: int) -> list[Follower]:
        """Let clients come, of one channel each or of all."""
        new = [
            Follower(workers.url(), [ALL[number % 4]] if number % 2 else ALL, last_event_id=self.start)
            for number in range(count)
        ]
        for follower in new:
            self.stack.callback(follower.stop)
        await_that(lambda: all(each.workers for each in new), "all have connected")
        self.followers += new
        return new

    def publish(self, *options: str) -> Publisher:
        publisher = Publisher(self.folder, self.broker, *ALL, "--pause", "0.01", *options)
        self.stack.callback(publisher.kill)
        return publisher

    def check(self, publisher: Publisher, *, connections: int | None = 1) -> None:
        """Have everything published, and compare what each client got with it, and how often it connected."""
        published = publisher.finish()
        for follower in self.followers:
            expected = [data for _, data in published if follower.wants(data)]
            await_that(lambda: follower.data[-1:] == expected[-1:], "the last event comes", 30)  # noqa: B023
            got = [each for each in follower.data if each]
            assert got == expected[-len(got) :]
            assert len(set(got)) == len(got)
            if connections is not None:
                assert len(follower.workers) == connections
