"""Thousands who come and go in every way there is, while others stay and ordinary requests are answered."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.servers import Kind, eventually

from ..apps.texts import echo, event_data
from .clients import Came, Client, Leaving
from .crowd import Crowd, Requests
from .lasting import ALL, Lasting, check_detached

STAYING = 20
#: Those who leave, and how many of them are there at once.
COMING = {"gthread": 900, "sync": 700, "werkzeug": 400, "runserver": 300}
AT_ONCE = 40


def ordinary(seed: int) -> Requests:
    """Requests without end whose answers are of all sizes, and compared byte by byte."""
    dice = random.Random(seed)
    for number in itertools.count(seed * 1_000_000):
        size = dice.choice([1, 10, 300, 5_000, 70_000, 300_000])
        expected = echo(number, size)

        def check(body: bytes, expected: bytes = expected) -> None:
            assert body == expected, f"{len(body)} bytes instead of {len(expected)}: {body[:200]!r}"

        yield f"/echo?number={number}&size={size}", check


def publishing(published: list[Came], over: list[bool]) -> Requests:
    """Requests that publish an event each, until it is over."""
    for number in itertools.count():
        if over:
            return
        data = event_data("all", number, 50)
        yield (
            f"/publish?channel=all&first={number}&size=50",
            lambda body, data=data: published.append(Came(body.decode(), "", data)),
        )


def leavings(dice: random.Random) -> Iterator[Leaving]:
    while True:
        yield Leaving(
            dice.choice(["connected", "half asked", "asked", "asked", "asked", "answered", "answered", "served"]),
            dice.choice([0, 0, 0.0005, 0.002, 0.005, 0.02]),
            dice.choice(["fin", "rst", "rst", "half"]),
        )


def come_and_go(crowd: Crowd, count: int, path: str, known: list[Came] | None = None) -> None:
    """Have so many come and leave, never too many at once: some with an id of those that are known, some with HTTP/1.0,
    some with more to say than anybody wants to hear."""
    dice = crowd.dice
    ways = leavings(dice)
    present: list[Client] = []
    for _ in range(count):
        [client] = crowd.join(
            1, path, leaving=next(ways), version=dice.choice(["1.1", "1.1", "1.0"]),
            since=dice.choice(known).id if known and dice.random() < 0.4 else "",
            chatter=b"GET /echo?number=1&size=10 HTTP/1.1\r\nHost: localhost\r\n\r\n" if dice.random() < 0.2 else b"",
        )  # fmt: skip
        present.append(client)
        while len(present) >= AT_ONCE:
            crowd.turn()
            present = [client for client in present if client.state != "away" or not client.connections]
    crowd.until_all(lambda client: client.state == "away" and client.connections, "they have left", present)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_clients_that_connect_and_leave_leak_no_resources_and_do_not_disturb_others(
    kind: Kind, serve: Callable[..., Lasting], crowd_of: Callable[..., Crowd]
):
    server = serve(kind)
    crowd = crowd_of(server, seed=20_261)
    path = "/events?channel=all&options={%22keep_alive%22:60}"
    # So that the process has all of its threads.
    over: list[bool] = []
    crowd.call(publishing([], over))
    come_and_go(crowd, 30, path)
    over.append(True)
    crowd.hang_up()
    assert eventually(lambda: not server.state()["streams"])
    before = server.state()
    begun = len(crowd.clients)

    staying = crowd.gather(STAYING, path)
    check_detached(server, STAYING)
    published: list[Came] = []
    over = []
    callers = [crowd.call(ordinary(seed)) for seed in range(3)] + [crowd.call(publishing(published, over))]
    come_and_go(crowd, COMING[kind.name], path, published)
    over.append(True)
    crowd.hang_up()
    crowd.until_all(lambda client: client.data[-1:] == [published[-1].data], "the last event came", staying)
    crowd.check(published, staying)
    crowd.leave(staying)

    after: dict[str, Any] = {}

    def nothing_stays() -> bool:
        after.update(server.state())
        held = len(after["streams"]) + after["subscriptions"] + after["broker"]["subscribers"]
        logged = after["reasons"].get("") == after["closed"]
        return not held and logged and bool(after["descriptors"] <= before["descriptors"])

    assert eventually(nothing_stays), (before, after)
    assert after["opened"] == sum(after["closed"].values())
    assert set(after["closed"]) == {"client_gone"}
    assert after["refused"] == 0
    ours = [name for name in after["threads"] if name.startswith("ssesync")]
    pools = (f"ssesync-{kind}_{number}" for kind in ("reader", "caller") for number in range(4))
    # The thread of the links to other workers, where there are hooks.
    assert set(ours) <= {"ssesync-reactor", "ssesync-links", *pools}
    # Pools may have grown, the server's and that of our helpers.
    assert len(after["threads"]) <= len(before["threads"]) + 8
    # Those who left before there was an answer may not have come to be a stream.
    assert after["opened"] - before["opened"] >= 0.3 * (len(crowd.clients) - begun)
    assert min(caller.calls for caller in callers) >= 5
    if kind.name in ("gthread", "runserver"):
        assert min(caller.kept for caller in callers) > 0
    assert "Traceback" not in server.log() or kind.name not in ("gthread", "sync")
