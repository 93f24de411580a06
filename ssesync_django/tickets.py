"""Tickets: a right to one stream, in its address, for pages whose EventSource can't send headers.

An address ends up in histories and other people's logs. So a ticket is good for seconds, and once.
"""

from __future__ import annotations

import functools
import logging
import math
import secrets
import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from django.core import signing
from django.http import HttpRequest

from ssesync import BrokerUnavailable

from .channels import get_broker
from .response import key_of, refusal
from .views import find_request

__all__ = ["Ticket", "issue_ticket", "ticket_required"]

logger = logging.getLogger("ssesync")

_SALT = "ssesync.ticket"
_LONGEST_LIFE = 60
# Clocks of several machines may differ by as much: until then its use is remembered.
_SKEW = 60
_LONGEST = 4096


class Ticket(NamedTuple):
    """What a ticket was issued for."""

    subject: str
    channels: tuple[str, ...]


def issue_ticket(subject: Any, *, channels: Collection[str] = (), seconds: float = 30) -> str:
    """A ticket for one stream: text that a page puts into the address as ``?ticket=``, where it can't send headers.

    It is signed with ``SECRET_KEY``, so it can't be forged or changed, but can be read.

    :param subject: whom it is for: a user, or text.
    :param channels: which channels it is for.
    :param seconds: how long it may be used, up to 60.
    """
    if isinstance(channels, str):
        raise TypeError("a ticket's channels are a list of names, got text")
    if not 0 < seconds <= _LONGEST_LIFE:
        raise ValueError(f"a ticket is good for up to {_LONGEST_LIFE} seconds, got {seconds!r}")
    ticket = signing.dumps(
        [secrets.token_hex(8), round(time.time() + seconds, 2), key_of(subject), list(channels)], salt=_SALT
    )
    if len(ticket) > _LONGEST:
        raise ValueError("a ticket for so many channels makes too long an address")
    return ticket


def ticket_required(view: Callable[..., Any]) -> Callable[..., Any]:
    """Let requests through that have a ticket in their address, and let each ticket through once, in all processes.

    ::

        @ticket_required
        def events(request):
            return subscribe(request, *request.ticket.channels, key=request.ticket.subject)

    ``request.ticket`` is what it was issued for. Without one, or with one that was used before, has expired or is not
    of this project, the answer is 401. So is that to a browser that comes back by itself: its page then gets another
    ticket, and goes on from the last id it has seen with ``?lastEventId=``.
    """

    @functools.wraps(view)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        _, request = find_request(args)
        try:
            request.ticket = _redeem(request)  # type: ignore[attr-defined]
        except _Refused as refused:
            # Never with the ticket in it, nor what it says.
            logger.info("a ticket was refused: %s", refused)
            return refusal(request, "401 Unauthorized", "a ticket is needed", {}, ("WWW-Authenticate", "ticket"))
        except BrokerUnavailable as error:
            logger.error("a ticket could not be used: %s", error)
            return refusal(request, "503 Service Unavailable", "try again", {}, ("Retry-After", "5"))
        return view(*args, **kwargs)

    return wrapper


class _Refused(Exception):
    pass


def _redeem(request: HttpRequest) -> Ticket:
    text = request.GET.get("ticket", "")
    if not text:
        raise _Refused("there is none")
    if len(text) > _LONGEST:
        raise _Refused("it is too long")
    try:
        nonce, expires, subject, channels = signing.loads(text, salt=_SALT, max_age=_LONGEST_LIFE)
    except signing.SignatureExpired:
        raise _Refused("it has expired") from None
    except signing.BadSignature:
        raise _Refused("it is forged, or was signed with another key") from None
    remaining = expires - time.time()
    if remaining <= 0:
        raise _Refused("it has expired")
    # Who only asks for the headers has no stream yet.
    if request.method != "HEAD" and not get_broker().use_once(f"ticket:{nonce}", math.ceil(remaining) + _SKEW):
        raise _Refused("it was used before")
    return Ticket(subject, tuple(channels))
