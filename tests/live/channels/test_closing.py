"""What a client gets of a channel that is closed, by real servers: its last event and the end, and 204 when it returns.

The publisher is another process than the one that serves, as the server has several workers.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
import requests

from ssesync import Broker, EventSource, open_broker
from ssesync.wire import Decoder

from .followers import SOON
from .processes import TIMEOUT, Gunicorn

Serve = Callable[..., Gunicorn]


@pytest.fixture(
    params=[
        "sqlite-gthread-detached",
        "sqlite-sync-served",
        "redis-gthread-served",
        pytest.param("sqlite-gthread-served", marks=pytest.mark.matrix),
        pytest.param("sqlite-sync-detached", marks=pytest.mark.matrix),
        pytest.param("redis-gthread-detached", marks=pytest.mark.matrix),
    ]
)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(case: str, serve: Serve) -> Gunicorn:
    # gunicorn takes gthread for sync workers that have several threads. Served, each of these holds one client.
    kind, worker, _ = case.split("-")
    options = ("--workers", "2") if worker == "gthread" else ("--workers", "5", "--threads", "1")
    return serve(kind, *options, "--worker-class", worker)


@pytest.fixture
def broker(server: Gunicorn) -> Iterator[Broker]:
    with open_broker(server.broker) as broker:
        yield broker


@pytest.fixture
def url(case: str, server: Gunicorn) -> Callable[..., str]:
    def make(*channels: str, **options: Any) -> str:
        options["detach"] = "auto" if case.endswith("detached") else False
        query = [*(("channel", each) for each in channels), ("options", json.dumps(options))]
        return f"http://127.0.0.1:{server.port}/events?{urlencode(query)}"

    return make


def answer(url: str, last_event_id: str = "") -> tuple[int, list[str]]:
    """The status, and the data of the events up to the end, which must be a proper one."""
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_event_id} if last_event_id else {})}
    response = requests.get(url, headers=headers, timeout=TIMEOUT)
    if response.status_code != 200:
        return response.status_code, []
    events = Decoder().feed(response.content)
    return 200, [event.data or "" if event.type != "reset" else "reset" for event in events]


def test_each_client_gets_what_it_has_not_had_and_the_end(broker: Broker, url: Callable[..., str]):
    a, b, never = (f"{name}-{uuid.uuid4().hex[:8]}" for name in "abn")
    assert answer(url(a, known=True))[0] == 404
    numbers = [str(number) for number in range(250)]
    ids = [broker.publish(a, text) for text in numbers]
    sources = [EventSource(url(a), last_event_id=ids[-1], backoff=SOON) for _ in range(2)]
    both = EventSource(url(a, b), last_event_id=ids[-1], backoff=SOON)
    try:
        following = [iter(source) for source in (*sources, both)]
        broker.publish(a, "more")
        assert [next(each).data for each in following] == ["more"] * 3
        last = broker.publish(a, "last", final=True)
        # It gets the end, comes back with its last id, and is answered 204.
        for each in following[:2]:
            assert [event.data for event in each] == ["last"]
        assert next(following[2]).data == "last"
        broker.publish(b, "last of b", final=True)
        assert [event.data for event in following[2]] == ["last of b"]
    finally:
        for source in (*sources, both):
            source.close()
    everything = [*numbers, "more", "last"]
    assert answer(url(a), ids[100]) == (200, everything[101:])
    assert answer(url(a)) == (200, ["last"])
    assert answer(url(a, since="start", known=True)) == (200, everything)
    assert answer(url(a, last=3)) == (200, everything[-3:])
    assert answer(url(a), "unknown-1") == (200, ["reset", *everything])
    assert answer(url(a), last) == (204, [])
    assert answer(url(a, b), broker.position()) == (204, [])
    assert answer(url(a, never, known=True))[0] == 404


def test_an_event_of_a_type_ends_the_stream_for_good(broker: Broker, url: Callable[..., str]):
    channel = uuid.uuid4().hex
    first = broker.publish(channel, "1")
    with EventSource(url(channel, until_type="end"), last_event_id=first, backoff=SOON) as source:
        events = iter(source)
        broker.publish(channel, "2")
        assert next(events).data == "2"
        broker.publish(channel, "3", type="end")
        broker.publish(channel, "4")
        assert [event.data for event in events] == ["3"]
