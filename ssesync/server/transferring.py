"""The contract by which a process that stops moves its streams to another process, instead of ending them.

A :class:`Transfer` is not part of ``server``: the room ``keeper`` registers it. A drain (``shutdown.py``) begins it,
and ends no stream that it may still move. A stream that it has not moved within its time is ended, as without it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .detaching import Detached, Served

__all__ = ["Transfer", "abandon", "begin", "may_move", "register_transfer", "seconds_to_move"]


class Transfer(Protocol):
    """Moves streams to another process when this one stops. Any thread, no method waits."""

    def begin(self, since: float, over: Callable[[], object]) -> None:
        """Begin to move streams. Any number of times: the first call counts, and a call after :meth:`abandon` has no
        effect.

        :param since: when the process began to stop, on the monotonic clock.
        :param over: called on any thread when no more streams are moved.
        """
        ...

    def may_move(self, stream: Served | Detached) -> bool:
        """Whether a stream may still be moved, so that it must not be ended yet.

        :param stream: the stream.
        :return: false for all streams when no more are moved.
        """
        ...

    def abandon(self) -> None:
        """Move no more streams, as the process stops at once. In signal handlers too."""

    def seconds_to_move(self) -> float | None:
        """The time that it may take, from the first request to stop.

        :return: seconds; ``None``: it moves no streams, or no more.
        """
        ...


_transfers: list[Transfer] = []


def register_transfer(transfer: Transfer) -> None:
    """Register a transfer of this process. A forked child has none."""
    _transfers.append(transfer)


def begin(since: float, over: Callable[[], object]) -> None:
    """Begin all transfers, see :meth:`Transfer.begin`."""
    for transfer in _transfers:
        transfer.begin(since, over)


def may_move(stream: Served | Detached) -> bool:
    """Whether a transfer may still move a stream, see :meth:`Transfer.may_move`."""
    return any(transfer.may_move(stream) for transfer in _transfers)


def abandon() -> None:
    """End all transfers, see :meth:`Transfer.abandon`."""
    for transfer in _transfers:
        transfer.abandon()


def seconds_to_move() -> float | None:
    """The longest time of all transfers, see :meth:`Transfer.seconds_to_move`."""
    times = [seconds for transfer in _transfers if (seconds := transfer.seconds_to_move()) is not None]
    return max(times, default=None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_transfers.clear)
