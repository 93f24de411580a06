"""Tickets: a right to one stream, in its URL, for pages whose EventSource can't send headers.

URLs are kept in browsers' histories and other servers' logs. So a ticket is valid for seconds, and once. The framework
signs it: everybody can read a ticket, and nobody can forge or change one.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from ..errors import TicketRefused

__all__ = ["Ticket", "Tickets"]

_MAX_SECONDS = 60
# Seconds by which the clocks of several machines may differ: the use of a ticket is remembered for so much longer.
_SKEW = 60
_MAX_LENGTH = 4096


class Ticket(NamedTuple):
    """The subject and the channels of a ticket."""

    subject: str
    channels: tuple[str, ...]


class Tickets:
    """Issues and redeems tickets.

    :param sign: encodes and signs a list, of values that JSON can hold, as text for a URL.
    :param unsign: returns the list of a text that ``sign`` made, ``None`` for any other text.
    :param use_once: :meth:`Broker.use_once` of a broker that all processes share.
    """

    def __init__(
        self, sign: Callable[[list[Any]], str], unsign: Callable[[str], Any], use_once: Callable[[str, float], bool]
    ) -> None:
        self._sign = sign
        self._unsign = unsign
        self._use_once = use_once

    def issue(self, subject: str, channels: Collection[str] = (), seconds: float = 30) -> str:
        """Issue a ticket for one stream.

        :param subject: whose ticket it is.
        :param channels: the channels that it is for.
        :param seconds: how long it is valid, up to 60.
        :return: the ticket, as text that needs no quoting in a URL.
        :raises TypeError: the subject is no text, or the channels are no list.
        :raises ValueError: too many seconds, or more channels than a URL should hold (4,096 characters).
        """
        if not isinstance(subject, str):
            raise TypeError(f"a ticket's subject is text, got {type(subject).__name__}")
        if isinstance(channels, str):
            raise TypeError("a ticket's channels are a list of names, got text")
        if not 0 < seconds <= _MAX_SECONDS:
            raise ValueError(f"a ticket is valid for up to {_MAX_SECONDS} seconds, got {seconds!r}")
        ticket = self._sign([secrets.token_hex(8), round(time.time() + seconds, 2), subject, list(channels)])
        if len(ticket) > _MAX_LENGTH:
            raise ValueError("a ticket for so many channels is too long for a URL")
        return ticket

    def redeem(self, text: str, *, use: bool = True) -> Ticket:
        """Redeem a ticket. Of all processes that share the broker, only the first call succeeds.

        :param text: the ticket.
        :param use: false: only check it.
        :return: its subject and channels.
        :raises TicketRefused: there is none, or it was used, has expired, or was not signed with this key.
        :raises BrokerError: the log, which has the used tickets, can't be reached or used.
        """
        if not text:
            raise TicketRefused("there is none")
        if len(text) > _MAX_LENGTH:
            raise TicketRefused("it is too long")
        found = self._unsign(text)
        if found is None:
            raise TicketRefused("it is forged, or was signed with another key")
        nonce, expires, subject, channels = found
        remaining = expires - time.time()
        if remaining <= 0:
            raise TicketRefused("it has expired")
        if use and not self._use_once(f"ticket:{nonce}", remaining + _SKEW):
            raise TicketRefused("it was used before")
        return Ticket(subject, tuple(channels))
