"""Holders: what may take detached clients from this process, in the background, while it goes on.

A client is always served by this process first. A holder is notified of it, and moves it to another process some
milliseconds later, so no request waits for that process, and none fails because of it. The room ``keeper`` registers
what finds the holder of a broker's clients. Without one, nothing is done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Holder", "holder_of", "register_holders"]


class Holder(Protocol):
    """See the module. Any thread."""

    def added(self) -> object:
        """A client was detached, and may be moved. This never waits."""
        ...

    def reserve(self, key: str, limit: int) -> bool:
        """Reserve a place for one more stream of a key, which is about to be opened. Waits a fraction of a second at
        most.

        :param key: the key.
        :param limit: how many streams the key may have.
        :return: whether the stream is allowed; true, too, if the other process does not answer.
        """
        ...


#: Finds the holder of a broker's clients in this process; ``None``: there is none.
Find = Callable[[Any], Holder | None]

_finders: list[Find] = []


def register_holders(find: Find) -> None:
    """Register the function that finds holders, in place of the previous one.

    :param find: called with a broker, once in each process.
    """
    _finders[:] = [find]


def holder_of(broker: Any) -> Holder | None:
    """Find the holder of a broker's clients.

    :param broker: the broker.
    :return: the holder; ``None``: the clients stay in this process.
    """
    return _finders[0](broker) if _finders else None
