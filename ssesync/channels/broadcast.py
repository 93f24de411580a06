"""The broadcast groups of a broker: its detached clients in this process, and their channels.

All clients of a broker with the same policy and keep-alives are one group, whatever their channels. The group is
one sink of the dispatcher, which offers it each event once, and an index has the clients of the event's channel.
Clients that have the same subset of a batch's channels get the same bytes, joined once, in one send for each client in
sync. A lagging client has a subscriber of its own: the dispatcher offers messages to the group, and the group to these
subscribers.

A group for each set of channels took 6.3 kB for each client with a channel of its own, and an event for all clients
took an offer, a batch and a call to send for each of them.

Everything runs on the reactor's thread, except :meth:`BroadcastGroups.hand_over` and the methods that the dispatcher
calls. Logs are read on other threads.
"""

from __future__ import annotations

import functools
import logging
import threading
from typing import Any, Protocol

from ..detached.broadcast import BroadcastGroup
from ..detached.connection import Connection, Handover, Record
from ..detached.connections import connections
from ..detached.holder import Holder, holder_of
from ..detached.source import Position
from ..errors import BrokerClosed, BrokerUnavailable
from ..executor import logged
from ..server.record import ReceivedRecord
from ..server.registry import streams
from ..wire.encoder import encode_keep_alive
from .channel_source import ChannelSource
from .dispatcher import Closable, Registration
from .envelope import splice
from .log import ProcessBroker
from .reentry import entered
from .revocations import Revocations
from .source import Place
from .transfer import Frozen, FrozenClient, Prepared, Stay, Wanted

__all__ = ["BroadcastGroups"]

logger = logging.getLogger("ssesync")


class GroupsBroker(ProcessBroker, Protocol):
    """A broker, as its broadcast groups use it."""

    revocations: Revocations

    def _ensure_listening(self) -> None:
        """See :class:`ssesync.channels.broker.Broker`."""

    def _attached(self) -> None:
        """See :class:`ssesync.channels.backend.Backend`."""


class BroadcastGroups:
    """The broadcast groups of a broker in this process.

    :param broker: the broker.
    :param lock: the broker's, held for single steps only.
    """

    def __init__(self, broker: GroupsBroker, lock: threading.Lock) -> None:
        self._broker = broker
        self._lock = lock
        self._sources: dict[Any, ChannelSource] = {}
        self._holder: dict[None, Holder | None] = {}

    @property
    def holder(self) -> Holder | None:
        """See :class:`ssesync.channels.source.Groups`."""
        # Found without a lock, as that may log and import modules. The first one counts; others have no thread yet.
        if not self._holder:
            try:
                found = holder_of(self._broker)
            except Exception:
                # The reactor serves the client already, so its request must not fail.
                logger.exception("no keeper can be used, so the clients stay in this process")
                found = None
            self._holder.setdefault(None, found)
        return self._holder[None]

    def hand_over(self, handover: Handover, place: Place, record: Record, replaces: Closable) -> Connection:
        """See :class:`ssesync.channels.source.Groups`."""
        connection, source, place = self._register(handover, place, record, replaces)
        connection.registration.is_held = True
        record.began(connection)
        head, rest_of_place = handover.head, place._replace(first=b"")
        if place.first:
            head += connection.counted(place.first, place.first_events)
        detached = connections()
        if place.reads_log or place.is_complete:
            detached.call_soon(lambda: source.admit(connection, head, rest_of_place))
        else:
            detached.admit(connection, head, lambda rest: source.admit(connection, rest, rest_of_place))
        if (holder := self.holder) is not None:
            logged(holder.added)  # the reactor serves the client, so nothing may fail from now on
        return connection

    def _register(
        self, handover: Handover, place: Place, record: Record, replaces: Closable | None
    ) -> tuple[Connection, ChannelSource, Place]:
        """Make the connection of a client, and have the dispatcher offer its messages to the client's group.

        :return: the connection, the source of its group, and its place.
        """
        detached = connections()
        # Clients with envelopes get bytes of their own, and are not counted together: they are a group by themselves.
        seconds, keep_alive = handover.settings.keep_alive, encode_keep_alive(handover.settings.keep_alive_event)
        key = (place.policy.grouping_key, seconds, keep_alive, place.envelope is not None)
        with entered(), self._lock:
            source = self._sources.get(key)
            if source is None:
                release = functools.partial(self._release, key)
                joiner = None if place.envelope is None else splice
                group_of = functools.partial(
                    BroadcastGroup, detached, seconds, splice=joiner, keep_alive_data=keep_alive
                )
                source = ChannelSource(self._broker, place.policy, group_of, detached, self._lock, release)
                self._sources[key] = source
            source.clients += 1
        registration = Registration(
            place.channels, place.patterns, place.key, source, place.until, place.envelope
        )  # fmt: skip
        connection = Connection(detached, handover, source.group, record, registration)
        epoch, position = self._broker.dispatcher.register(connection, registration, replaces)
        if place.epoch != epoch or place.cursor < position:
            place = place._replace(reads_log=True)  # the group may not have been offered the events in between
        try:
            source.start()
            if self._broker.closed:
                raise BrokerClosed("the broker is closed")  # perhaps before this client was registered
        except BaseException:
            self._forget(connection, source)
            raise
        return connection, source, place

    def _forget(self, connection: Connection, source: ChannelSource) -> None:
        """Undo :meth:`_register`."""
        self._broker.dispatcher.remove(connection)
        if source.release():
            connections().call_soon(source.end)

    # Clients of other processes, see ``transfer.py``.

    def freeze(self, most: int, size: int, wanted: Wanted | None = None) -> list[Frozen]:
        """Freeze clients for another process, as far as that is possible now. On the reactor's thread.

        :param most: how many at most.
        :param size: about how many unsent bytes they may have together.
        :param wanted: which of them; ``None``: any.
        :return: the clients. Each has to be released or thawed.
        """
        frozen: list[Frozen] = []
        try:
            for source in list(self._sources.values()):
                for connection in source.movable_members(wanted):
                    if len(frozen) >= most or size <= 0:
                        return frozen
                    if (held := source.freeze(connection)) is not None:
                        frozen.append(held)
                        size -= len(held.client.connection.unsent)
        except BaseException:
            for each in frozen:
                logged(each.thaw)
            raise
        return frozen

    def movable(self, wanted: Wanted | None = None) -> int:
        """Count the clients that :meth:`freeze` may give, now or soon. On the reactor's thread.

        :param wanted: which of them; ``None``: any.
        :return: how many there are, those that are being registered included.
        """
        return sum(
            sum(1 for _ in source.movable_members(wanted)) + max(0, source.clients - len(source.group))
            for source in list(self._sources.values())
        )

    def staying(self) -> dict[Stay, str]:
        """Find the reasons for which clients stay in this process. On the reactor's thread.

        :return: the name of one of the streams for each reason.
        """
        found: dict[Stay, str] = {}
        for source in list(self._sources.values()):
            for connection in source.group.members():
                if (reason := source.why_it_stays(connection)) is not None:
                    found.setdefault(reason, connection.name)
        return found

    def prepare(self, client: FrozenClient, since: Position) -> Prepared:
        """Prepare to serve a client that another process has frozen. Any thread.

        :param client: the client.
        :param since: up to where the other process has handled the log: later revocations may concern the client.
        :return: the prepared client.
        :raises BrokerError: the log can't be reached or used, or is not the one of the client's process.
        :raises OSError: there are no more descriptors.
        :raises RuntimeError: this process stops or is full, has no thread left, or the client was revoked.
        """
        self._broker._ensure_listening()
        frozen, place = client.connection, client.place
        if not self._broker.is_shared or since.epoch != self._broker.dispatcher.epoch:
            raise BrokerUnavailable(f"this process has not the log {since.epoch}")
        handover = Handover(
            frozen.fd, frozen.chunked, b"", frozen.name, frozen.settings, 0.0, 0, frozen.orderly
        )  # fmt: skip
        record = ReceivedRecord(frozen.key)
        connection, source, place = self._register(handover, place, record, None)
        try:
            connection.restore(frozen)
            if self._broker.revocations.include(connection.registration, since):
                raise RuntimeError("the client was revoked")
            record.began(connection)
            self._broker._attached()  # SQLite's listener polls twice a second without subscribers
        except BaseException:
            self._forget(connection, source)
            raise

        def undo() -> None:
            streams.withdraw(connection, frozen.key)
            self._forget(connection, source)

        return Prepared(lambda: connections().call_soon(lambda: source.adopt(connection, frozen, place)), undo)

    def _release(self, key: Any) -> bool:
        with entered(), self._lock:
            source = self._sources[key]
            source.clients -= 1
            if source.clients:
                return False
            del self._sources[key]
            return True
