"""Every broker, by a factory that opens the same log as often as is asked for."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ssesync import Broker, Event, Subscription, open_broker
from tests.redis_server import RedisServer

from .clients import Client, Join, await_that

Open = Callable[..., Broker]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"), "--save", "", "--appendonly", "no")
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A log of this test's own."""
    if kind == "memory":
        return "memory://"
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/channels.db"
    return f"{request.getfixturevalue('redis_server').url}?prefix=test-{uuid.uuid4().hex}"


@pytest.fixture
def openers(url: str) -> Iterator[Open]:
    """Opens the test's log. In memory, where nobody else can open it, a second time is the first again."""
    opened: list[Broker] = []

    def open_it(**options: Any) -> Broker:
        if url == "memory://" and opened and not opened[-1]._closed:
            return opened[-1]
        opened.append(open_broker(url, **options))
        return opened[-1]

    yield open_it
    for broker in opened:
        broker.close()


@pytest.fixture
def broker(openers: Open) -> Broker:
    return openers()


@pytest.fixture
def memory() -> Iterator[Broker]:
    with open_broker("memory://") as broker:
        yield broker


@pytest.fixture
def join() -> Iterator[Join]:
    """Makes detached clients, and waits until their streams have ended."""
    clients: list[Client] = []

    def make(*args: Any, **options: Any) -> Client:
        clients.append(Client(*args, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
    for client in clients:
        await_that(lambda client=client: client.reason, "the stream has ended")  # type: ignore[misc]


def got(subscription: Subscription, count: int) -> list[Event]:
    """The next events, and that there are so many."""
    events = []
    for _ in range(count):
        event = subscription.get(30)
        assert event is not None, f"{len(events)} of {count} came"
        events.append(event)
    return events


def texts(subscription: Subscription, count: int) -> list[str | None]:
    return [event.data for event in got(subscription, count)]


def published(broker: Broker, channel: str, *data: str) -> list[str]:
    return [broker.publish(channel, text) for text in data]


def numbered(count: int, start: int = 0) -> list[str]:
    return list(map(str, itertools.islice(itertools.count(start), count)))
