"""A client that leaves at a certain step of the hand-over, and the next on the same server is none the worse."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.apps.line import Line
from tests.live.frameworks.switchboard import Switchboard
from tests.servers import Kind, eventually

from ..apps.texts import echo, event_data
from .crowd import Crowd
from .lasting import ALL, Lasting

#: Where the server's thread waits while the client leaves. The head goes out with the first chunk, the socket is taken
#: when the second is asked for.
STAGES = ["before headers", "before step 1", "before step 2", "at the end", "before close", "after close"]
WAYS = ["fin", "rst", "half"]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_whenever_a_client_leaves_its_stream_is_closed_and_the_next_client_gets_all_of_its_own(
    kind: Kind, serve: Callable[..., Lasting], crowd_of: Callable[..., Crowd], switchboard: Switchboard
):
    server = serve(kind)
    crowd = crowd_of(server)
    [steady] = crowd.gather(1, "/events?channel=all&key=steady")
    wanted = {"opened": 1, "closed": 0}
    descriptors = server.state()["descriptors"]
    # A server sees the same of the first and the last, until it writes.
    ways = WAYS if kind.name == "gthread" else WAYS[1:]
    number = 0
    for stage in STAGES:
        for how in ways:
            where = f"{kind.name}, {stage}, {how}"
            [leaver] = crowd.join(
                1, f"/events?channel=all&key=leaver&stage={stage.replace(' ', '%20')}&line={switchboard.port}",
                returns=False,
            )  # fmt: skip
            with next_call(crowd, switchboard) as line:
                assert line.hear() is not None, where
                leaver.leave(how)
                if server.kind.name != "sync":
                    # Something is published between the swaps, and another is served.
                    number += 1
                    server.fetch(f"/publish?channel=all&first={number}")
                line.say(go="on")
            crowd.until(lambda: leaver.state == "away", f"the client is gone, {where}")  # noqa: B023
            number += 1
            server.fetch(f"/publish?channel=all&first={number}")
            assert server.fetch(f"/echo?number={number}&size=5000").encode() == echo(number, 5000), where
            wanted = {name: count + 1 for name, count in wanted.items()}
            assert eventually(lambda: counted(server) == wanted), (where, counted(server), wanted)  # noqa: B023
    crowd.until(lambda: steady.data[-1:] == [event_data("all", number)], "the last event came")
    assert steady.data == [event_data("all", each) for each in range(1, number + 1)]
    assert eventually(lambda: server.state()["descriptors"] <= descriptors), (descriptors, server.state())
    # A client that is gone before it is looked at is no reason to speak of the server.
    assert "WARNING ssesync" not in server.log()
    state = server.state()
    assert state["closed"] == {"client_gone": len(STAGES) * len(ways)}
    assert state["reasons"] == {"leaver": state["closed"]}
    assert state["subscriptions"] == state["broker"]["subscribers"] == 1


def next_call(crowd: Crowd, switchboard: Switchboard) -> Line:
    """The next call of the server's thread, which comes when the crowd has asked."""
    calls: list[Line] = []
    thread = threading.Thread(target=lambda: calls.append(switchboard.answer()))
    thread.start()
    crowd.until(lambda: calls, "the server's thread is there")
    thread.join()
    return calls[0]


def counted(server: Lasting) -> dict[str, int]:
    # A client that is gone before it is looked at is no reason to speak of the server.
    assert "WARNING ssesync" not in server.log()
    state = server.state()
    return {"opened": state["opened"], "closed": sum(state["closed"].values())}
