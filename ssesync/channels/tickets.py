"""Tickets: a right to one stream, in its address, for pages whose EventSource can't send headers.

Addresses end up in histories and in logs of others. So a ticket is valid for seconds, and once. The framework signs it:
a ticket can be read, but neither forged nor changed.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from ..errors import TicketRefused

__all__ = ["Ticket", "Tickets"]

_LONGEST_LIFE = 60
# Seconds. Clocks of several machines may differ by as much: until then a ticket's use is remembered.
_SKEW = 60
_LONGEST = 4096


class Ticket(NamedTuple):
    """The subject and the channels of a ticket."""

    subject: str
    channels: tuple[str, ...]


class Tickets:
    """Issues and redeems tickets.

    :param sign: makes text, fit for an address, of a list that JSON can hold.
    :param unsign: returns the list of a text that ``sign`` made, ``None`` for any other.
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
        :return: the ticket, as text that fits into an address.
        :raises TypeError: the subject is no text, or the channels are no list.
        :raises ValueError: too many seconds, or more channels than an address should hold (4,096 characters).
        """
        if not isinstance(subject, str):
            raise TypeError(f"a ticket's subject is text, got {type(subject).__name__}")
        if isinstance(channels, str):
            raise TypeError("a ticket's channels are a list of names, got text")
        if not 0 < seconds <= _LONGEST_LIFE:
            raise ValueError(f"a ticket is good for up to {_LONGEST_LIFE} seconds, got {seconds!r}")
        ticket = self._sign([secrets.token_hex(8), round(time.time() + seconds, 2), subject, list(channels)])
        if len(ticket) > _LONGEST:
            raise ValueError("a ticket for so many channels makes too long an address")
        return ticket

    def redeem(self, text: str, *, use: bool = True) -> Ticket:
        """Redeem a ticket, which can be done once, in whatever process.

        :param text: the ticket.
        :param use: false: only check it.
        :return: what it was issued for.
        :raises TicketRefused: there is none, or it was used, has expired, or was not signed with this key.
        :raises BrokerError: the broker can't be asked whether it was used.
        """
        if not text:
            raise TicketRefused("there is none")
        if len(text) > _LONGEST:
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
