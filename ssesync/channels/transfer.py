"""Detached subscribers that leave this process for another one, or come from one.

The law of this file: a client is one process's at a time. The process that gives a client away *freezes* it: it sends
the client nothing, and keeps its descriptor and its registration. The other process *prepares* to serve it, and then
acknowledges it. Only after that it *commits*, and sends. On the acknowledgement the first process *releases* the
client, without a byte to the connection; without one it *thaws* it, and reads from the log what was published
meanwhile.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..detached.connection import Connection
from ..detached.source import Position
from ..detached.transfer import FrozenConnection, plain_settings, settings_from
from ..errors import SSEError, excerpt
from .envelope import Envelope
from .policy import Policy, policy_of
from .source import Place

__all__ = ["Frozen", "FrozenClient", "Prepared", "Stay", "Wanted"]

#: Chooses among clients.
Wanted = Callable[[Connection], bool]


class Stay(enum.Enum):
    """Why a client can't be served by another process."""

    MEMORY = "the log of memory:// is in this process alone"
    COALESCE = "coalesce= is a function of this process"
    ERROR_EVENT = "error_event= is a function of this process"
    ON_CLOSE = "on_close= is called in this process"
    HELD = "the application still refers to the stream or its subscription, and may end it"
    """Also for some milliseconds, until the server's thread has released the stream."""


_POLICY = tuple(each.name for each in dataclasses.fields(Policy) if each.name != "coalesce")
_DEFAULT = Policy()
# The parts of an envelope that each version of this library knows. Later ones are sent if they have text, and a process
# that does not know them refuses the client.
_FIRST_PARTS = 3


@dataclass(slots=True)
class FrozenClient:
    """All that another process needs to serve a subscriber: plain values and a descriptor."""

    connection: FrozenConnection
    place: Place
    """``first`` is empty, and ``is_complete`` false."""

    def to_plain(self) -> dict[str, Any]:
        """Its values for JSON, without the descriptor and the unsent bytes, which are sent beside them.

        :return: the values by name; most that are the default are left out.
        """
        connection, place, policy = self.connection, self.place, self.place.policy
        plain: dict[str, Any] = {
            name: getattr(connection, name) for name in _CONNECTION if name not in ("fd", "settings", "unsent")
        }
        plain["settings"] = plain_settings(connection.settings)
        plain["policy"] = {
            name: value for name in _POLICY if (value := getattr(policy, name)) != getattr(_DEFAULT, name)
        }
        for name in _PLACE:
            if value := getattr(place, name):
                plain[f"place_{name}"] = value
        if place.envelope is not None:
            parts = [part.decode() for part in place.envelope]
            while len(parts) > _FIRST_PARTS and not parts[-1]:
                parts.pop()
            plain["envelope"] = parts
        return plain

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], fd: int, unsent: bytes) -> FrozenClient:
        """Undo :meth:`to_plain`.

        :param plain: the values. Names that this version does not know are ignored.
        :param fd: the client's descriptor.
        :param unsent: its unsent bytes.
        :return: the client.
        :raises ValueError: a value is missing or can't work (``SettingsError`` included). The message names it.
        """
        try:
            return cls(_connection_from(plain, fd, unsent), _place_from(plain))
        except ValueError:
            raise
        except (KeyError, TypeError, SSEError) as error:
            raise ValueError(f"a client can't be read from {excerpt(dict(plain), 300)}: {error!r}") from error


_CONNECTION = tuple(each.name for each in dataclasses.fields(FrozenConnection))
# The fields of a place that go as they are.
_PLACE = ("channels", "patterns", "key", "epoch", "cursor", "reads_log", "until", "closed")


def _connection_from(plain: Mapping[str, Any], fd: int, unsent: bytes) -> FrozenConnection:
    lifetime = plain["lifetime"]
    return FrozenConnection(
        fd=fd, chunked=bool(plain["chunked"]), name=_text(plain["name"]), key=_text(plain["key"]),
        settings=settings_from(plain["settings"]), orderly=bool(plain["orderly"]), unsent=unsent,
        age=float(plain["age"]), silent=float(plain["silent"]), stalled=float(plain["stalled"]),
        lifetime=None if lifetime is None else float(lifetime), events=int(plain["events"]), bytes=int(plain["bytes"]),
        keep_alives=int(plain["keep_alives"]),
    )  # fmt: skip


def _place_from(plain: Mapping[str, Any]) -> Place:
    envelope, key = plain.get("envelope"), plain.get("place_key")
    channels, patterns, until = (_texts(plain.get(f"place_{name}", ())) for name in ("channels", "patterns", "until"))
    if not channels and not patterns:
        raise ValueError("a client has at least one channel or pattern")
    return Place(
        channels=channels, patterns=patterns, policy=policy_of(_known(plain["policy"])),
        key=None if key is None else _text(key), epoch=_text(plain.get("place_epoch", "")),
        cursor=int(plain.get("place_cursor", 0)), reads_log=bool(plain.get("place_reads_log")), until=until,
        envelope=None if envelope is None else Envelope(*(part.encode() for part in _texts(envelope))),
        closed={_text(name): int(seq) for name, seq in plain.get("place_closed", {}).items()}, is_complete=False,
        first=b"", first_events=0,
    )  # fmt: skip


def _known(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in _POLICY}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {excerpt(value)}")
    return value


def _texts(values: object) -> tuple[str, ...]:
    if not isinstance(values, (list, tuple)):
        raise TypeError(f"expected a list of texts, got {excerpt(values)}")
    return tuple(map(_text, values))


class Frozen:
    """A client that this process has frozen, see :meth:`BroadcastGroups.freeze`. On the reactor's thread: one of the
    two methods, once.

    :param connection: the client's.
    :param client: its values.
    :param continue_from: serves it again, after this position; with true, later messages may be in the log alone.
    """

    def __init__(
        self, connection: Connection, client: FrozenClient, continue_from: Callable[[Position, bool], object]
    ) -> None:
        #: Its values.
        self.client = client
        self._connection = connection
        self._continue_from = continue_from

    def release(self) -> None:
        """Another process has acknowledged it: close the descriptor, and count the stream as closed with the reason
        ``transferred``."""
        self._connection.release()

    def thaw(self) -> None:
        """No other process serves it: serve it again. What was requested meanwhile (the end of its lifetime, a
        revocation, its end) is done now."""
        connection, place = self._connection, self.client.place
        if connection.thaw(self.client.connection.lifetime):
            self._continue_from(Position(place.epoch, place.cursor), place.reads_log)
            connection.carry_out_deferred()


class Prepared:
    """A client of another process that this one is ready to serve, see :meth:`BroadcastGroups.prepare`. Any thread: one
    of the two methods, once.

    :param commit: serves it.
    :param undo: forgets it.
    """

    def __init__(self, commit: Callable[[], object], undo: Callable[[], object]) -> None:
        self._commit, self._undo = commit, undo

    def commit(self) -> None:
        """It is acknowledged: serve it from now on."""
        self._commit()

    def undo(self) -> None:
        """It is not: forget it. Its descriptor is not closed."""
        self._undo()
