"""A producer that reads its request's body when its stream has left the server, or stays there."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import ssesync

#: Seconds that a producer waits for its stream to be detached.
_HAND_OVER = 0.5

Read = Callable[[], bytes]


def produce(name: str, read: Read) -> Iterator[dict[str, Any]]:
    """Read, and send what was read as one event, with the serving mode of the stream.

    :param name: of the stream.
    :param read: returns the body.
    """
    yield {"begun": True}
    deadline = time.monotonic() + _HAND_OVER
    tier = ""
    while tier != "detached" and time.monotonic() < deadline:
        time.sleep(0.01)
        tier = next(each["tier"] for each in ssesync.streams.snapshot()["streams"] if each["name"] == name)
    time.sleep(0.05)  # so that the server is done with the request
    data = read()
    yield {"tier": tier, "length": len(data), "digest": hashlib.sha256(data).hexdigest()}


def options_of(query: dict[str, str]) -> dict[str, Any]:
    """Return the options of a stream that the query asks for."""
    return {
        "name": query["name"],
        "detach": {"true": True, "false": False}.get(query.get("detach", ""), "auto"),
        "max_request_body": int(query.get("most", 16 * 1024 * 1024)),
    }
