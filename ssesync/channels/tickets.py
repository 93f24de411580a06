"""Tickets: a right to one stream, in its address, for pages whose EventSource can't send headers.

An address ends up in histories and other people's logs. So a ticket is good for seconds, and once. What signs it is the
framework's; a ticket can be read by whoever has it, but neither forged nor changed.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from ..errors import TicketRefused

__all__ = ["Ticket", "Tickets"]

_LONGEST_LIFE = 60
# Clocks of several machines may differ by as much: until then its use is remembered.
_SKEW = 60
_LONGEST = 4096


class Ticket(NamedTuple):
    """What a ticket was issued for."""

    subject: str
    channels: tuple[str, ...]


class Tickets:
    """Issues and redeems tickets.

    :param sign: makes text, fit for an address, of a list that JSON can hold.
    :param unsign: gives the list of a text that ``sign`` made, ``None`` for any other.
    :param use_once: :meth:`Broker.use_once` of a broker that all processes share.
    """

    def __init__(
        self,
        sign: Callable[[list[Any]], str],
        unsign: Callable[[str], Any],
        use_once: Callable[[str, float], bool],
    ) -> None:
        self._sign = sign
        self._unsign = unsign
        self._use_once = use_once

    def issue(self, subject: str, channels: Collection[str] = (), seconds: float = 30) -> str:
        """A ticket for one stream, good for so many seconds, up to 60.

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
        """What a ticket was issued for. Each can be redeemed once, whatever process is asked.

        :param use: false only looks at it.
        :raises TicketRefused: there is none, or it was used, has expired, or is not ours.
        :raises BrokerError: nobody can tell whether it was used.
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
