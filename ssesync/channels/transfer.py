"""Detached subscribers that leave this process for another one, or come from one.

The law of this file: a client is one process's at a time. The process that gives a client away *freezes* it: it sends
the client nothing, and keeps its descriptor and its registration. The other process *prepares* to serve it, and then
acknowledges it. Only after that it *commits*, and sends. On the acknowledgement the first process *releases* the client,
without a byte to the connection; without one it *thaws* it, and reads from the log what was published meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..detached.transfer import FrozenConnection
from .source import Place

__all__ = ["Frozen", "FrozenClient", "Prepared"]


@dataclass(slots=True)
class FrozenClient:
    """All that another process needs to serve a subscriber: plain values and a descriptor."""

    connection: FrozenConnection
    place: Place
    """``first`` is empty, and ``is_complete`` false."""

    def to_plain(self) -> dict[str, Any]:
        """Its values for JSON, without the descriptor and the unsent bytes, which are sent beside them.

        :return: the values by name; those that are the default are left out.
        """
        raise NotImplementedError

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], fd: int, unsent: bytes) -> FrozenClient:
        """Undo :meth:`to_plain`.

        :param plain: the values. Names that this version does not know are ignored.
        :param fd: the client's descriptor.
        :param unsent: its unsent bytes.
        :return: the client.
        :raises ValueError: a value is missing or can't work (``SettingsError`` included). The message names it.
        """
        raise NotImplementedError


class Frozen:
    """A client that this process has frozen, see :meth:`BroadcastGroups.freeze`. On the reactor's thread: one of the
    two methods, once."""

    client: FrozenClient
    """Its values."""

    def release(self) -> None:
        """Another process has acknowledged it: close the descriptor, and count the stream as closed with the reason
        ``transferred``."""
        raise NotImplementedError

    def thaw(self) -> None:
        """No other process serves it: serve it again, from the log. What was requested meanwhile (the end of its
        lifetime, a revocation, its end) is done now."""
        raise NotImplementedError


class Prepared:
    """A client of another process that this one is ready to serve, see :meth:`BroadcastGroups.prepare`. Any thread: one
    of the two methods, once."""

    def commit(self) -> None:
        """It is acknowledged: serve it from now on."""
        raise NotImplementedError

    def undo(self) -> None:
        """It is not: forget it. Its descriptor is not closed."""
        raise NotImplementedError
