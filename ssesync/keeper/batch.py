"""Clients that another process has sent, until this one serves them or has forgotten them.

The law of this file: a client is served after its process was sent the acknowledgement, and never before. If that can't
be sent, the other process serves its clients again, so they are forgotten here. But if that process has ended, and its
token is not set, it has not served them again, and no other process has them: they are served here.
"""

from __future__ import annotations

import logging
import os
import select
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..channels.transfer import FrozenClient, Prepared
from ..detached.source import Position
from ..errors import BrokerError, excerpt
from ..executor import logged
from ..server.descriptors import division, duplicate
from .framing import Frame, Link, LinkError, LinkLost
from .message import close_all

if TYPE_CHECKING:
    from ..channels.broker import Broker

__all__ = ["Batch"]

logger = logging.getLogger("ssesync")

# Seconds to wait for the end of a process that has closed a link, or for its token. The kernel closes the descriptors
# of a process one after the other: the link's may be among the first.
_END_TIMEOUT = 5.0


class Batch:
    """The clients of one message ``take``. One thread, and as a context manager: clients that are not served at its end
    are forgotten.

    :param frame: the message. Its descriptors are the token, see ``exporting.py``, and the clients'.
    :param pidfd: the descriptor of the process that has sent it; -1 if there is none.
    :raises LinkError: it is no such message.
    """

    def __init__(self, frame: Frame, pidfd: int) -> None:
        self._clients = _clients_of(frame)
        #: Up to where the other process has handled the log.
        self.since = Position(frame.head["epoch"], frame.head["position"])
        self._blob = frame.blob
        self._pidfd = pidfd
        self._fds = frame.claim()
        self._token = self._fds.pop(0)
        self._prepared: dict[int, Prepared] = {}  # by their index
        #: Why clients are refused, by their index.
        self.refused: dict[int, str] = {}
        #: How many clients are served here.
        self.taken = 0
        #: How many of these are, although they could not be acknowledged.
        self.recovered = 0

    def prepare(self, broker: Broker | None, refusing: str = "") -> None:
        """Prepare to serve the clients, and refuse each that can't be served.

        :param broker: the broker of their log; ``None``: all are refused.
        :param refusing: the reason for that.
        """
        errors = self._raise_numbers()
        end = 0
        for index, plain in enumerate(self._clients):
            begin, end = end, end + plain["unsent"]
            try:
                if broker is None:
                    raise RuntimeError(refusing)
                if index in errors:
                    raise errors[index]
                client = _client_from(plain, self._fds[index], self._blob[begin:end])
                self._prepared[index] = broker.broadcast_groups.prepare(client, self.since)
            except (ValueError, BrokerError, OSError, RuntimeError) as error:
                self.refused[index] = str(error)
            except Exception as error:
                logger.exception("a client of another process can't be served here, and stays there")
                self.refused[index] = repr(error)

    def _raise_numbers(self) -> dict[int, RuntimeError]:
        """Give the descriptors numbers above the floor of detached sockets, where the kernel has not put them. First of
        all, as the other numbers are the server's and the application's; and from the highest on, as these may be above
        the floor already.

        :return: the errors by the index of the client.
        """
        floor, errors = division().floor, {}
        for index in reversed(range(len(self._fds))):
            low = self._fds[index]
            if low < floor:
                try:
                    self._fds[index] = duplicate(low)
                    os.close(low)
                except OSError as error:
                    errors[index] = RuntimeError(f"this process has no free descriptor for it: {error.strerror}")
        return errors

    def acknowledge(self, link: Link) -> None:
        """Send the acknowledgement, and serve the prepared clients.

        :param link: the link.
        :raises LinkLost: it could not be sent. The clients are served here if no other process has them.
        """
        try:
            link.send({"op": "taken", "refused": self.refused})
        except LinkLost:
            if self._prepared and self._is_left_behind():
                self.recovered = len(self._prepared)
                self._commit()
            raise
        self._commit()

    def _commit(self) -> None:
        self.taken = len(self._prepared)
        while self._prepared:
            index, prepared = self._prepared.popitem()
            self._fds[index] = -1  # the connection closes it
            logged(prepared.commit)

    def _is_left_behind(self) -> bool:
        """Whether the process that has sent the clients has ended, without having served them again."""
        if self._pidfd < 0:
            return False
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        poll.register(self._token, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(_END_TIMEOUT * 1000)}
        # Once more: the process may have set its token between the two, and ended.
        return self._pidfd in ready and self._token not in {fd for fd, _ in poll.poll(0)}

    def close(self) -> None:
        """Forget the clients that are not served here, and close all descriptors. Any number of times."""
        while self._prepared:
            logged(self._prepared.popitem()[1].undo)
        self._fds.append(self._token)
        self._token = -1
        close_all([fd for fd in self._fds if fd >= 0])
        self._fds.clear()

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _client_from(plain: Mapping[str, Any], fd: int, unsent: bytes) -> FrozenClient:
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        raise ValueError("a client's descriptor is no socket")
    os.set_blocking(fd, False)
    return FrozenClient.from_plain(plain, fd, unsent)


def _clients_of(frame: Frame) -> list[dict[str, Any]]:
    """Check a message.

    :return: its clients.
    :raises LinkError: it is not as it must be.
    """
    head = frame.head
    clients = head.get("clients")
    if not isinstance(clients, list) or type(head.get("epoch")) is not str or type(head.get("position")) is not int:
        raise LinkError(f"a batch without clients or position: {excerpt(head, 200)}")
    sizes: list[Any] = [each.get("unsent") if isinstance(each, dict) else None for each in clients]
    if not all(type(size) is int and size >= 0 for size in sizes) or sum(sizes) != len(frame.blob):
        raise LinkError(f"a batch whose clients have not the {len(frame.blob):,} unsent bytes that it has")
    if len(frame.fds) != len(clients) + 1:
        raise LinkError(f"a batch of {len(clients)} clients has {len(frame.fds)} descriptors")
    return clients
