"""The application of ``deploys``, whose clients are moved from the process to the same process again and again, as they
are moved between two. So a series of no steps shows whether a client that is moved misses an event.

Environment: ``MOVE_SEED``, of the random choices.
"""

from __future__ import annotations

import functools
import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from ssesync.channels.transfer import Frozen, FrozenClient
from ssesync.detached.connections import connections
from ssesync.detached.source import Position

from .deploys import application, sse

__all__ = ["application"]

started = threading.Lock()


def on_reactor(do: Callable[[], Any]) -> Any:
    """Call a function on the reactor's thread."""
    future: Future[Any] = Future()

    def call() -> None:
        try:
            future.set_result(do())
        except BaseException as error:
            future.set_exception(error)

    connections().call_soon(call)
    return future.result(60)


def move(held: Frozen, since: Position) -> None:
    """Move a client from this process to itself."""
    client, fd = held.client, os.dup(held.client.connection.fd)
    plain = json.loads(json.dumps(client.to_plain()))
    try:
        prepared = sse.broker.broadcast_groups.prepare(
            FrozenClient.from_plain(plain, fd, client.connection.unsent), since
        )
    except RuntimeError:
        os.close(fd)
        on_reactor(held.thaw)
        return
    on_reactor(held.release)
    prepared.commit()
    print("a client was moved", file=sys.stderr, flush=True)


def freeze(most: int, size: int) -> tuple[list[Frozen], Position]:
    """On the reactor's thread."""
    dispatcher = sse.broker.dispatcher
    frozen = sse.broker.broadcast_groups.freeze(most, size)
    return frozen, Position(dispatcher.epoch, dispatcher.position)


def move_again_and_again() -> None:
    choice = random.Random(int(os.environ.get("MOVE_SEED", "1")))
    while True:
        time.sleep(choice.uniform(0.0, 0.2))
        most, size = choice.choice([1, 20, 250]), choice.choice([2000, 1_000_000])
        frozen, since = on_reactor(functools.partial(freeze, most, size))
        time.sleep(choice.choice([0.0, 0.0, 0.01, 0.2]))
        for held in frozen:
            if choice.random() < 0.25:
                on_reactor(held.thaw)
            else:
                move(held, since)


@application.before_request
def start_to_move() -> None:
    if started.acquire(blocking=False):
        threading.Thread(target=move_again_and_again, daemon=True).start()
