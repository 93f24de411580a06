"""The worker's side of keepers: moves a broker's clients to them, and asks them for reservations."""

from __future__ import annotations

import functools
import zlib
from typing import TYPE_CHECKING

from ..channels.transfer import Stay
from ..server.transferring import register_transfer
from .draining import KeeperTransfer
from .mover import Mover
from .reserving import Reserving

if TYPE_CHECKING:
    from ..channels.broker import Broker
    from ..detached.connection import Connection

__all__ = ["KeeperClient"]


class KeeperClient:
    """See the module, and :class:`ssesync.detached.holder.Holder`. One for each broker of a process.

    With several keepers, all streams of a key with ``max_streams_per_key`` go to the same one, which counts them. Other
    streams are divided by their descriptors.

    :param broker: the broker.
    :param paths: of the keepers' sockets.
    """

    def __init__(self, broker: Broker, paths: tuple[str, ...]) -> None:
        self._count = len(paths)
        several = self._count > 1
        logged: set[Stay] = set()
        self._movers = [
            Mover(broker, path, functools.partial(self._is_at, index) if several else None, logged)
            for index, path in enumerate(paths)
        ]
        register_transfer(KeeperTransfer(self._movers))
        self._reserving = [Reserving(broker, path) for path in paths]

    def added(self) -> None:
        """See :class:`ssesync.detached.holder.Holder`."""
        for mover in self._movers:
            mover.wake()

    def reserve(self, key: str, limit: int) -> bool:
        """See :class:`ssesync.detached.holder.Holder`."""
        return self._reserving[self._index_of_key(key)].reserve(key, limit)

    def _index_of_key(self, key: str) -> int:
        return zlib.crc32(key.encode("utf-8", "surrogatepass")) % self._count  # the same in all processes

    def _is_at(self, index: int, connection: Connection) -> bool:
        """Whether a keeper is the one of a client."""
        if connection.settings.max_streams_per_key is None:
            return connection.fd % self._count == index
        return self._index_of_key(connection.record.key) == index
