"""Tickets, signed with the project's key; see :class:`ssesync.Tickets`."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection
from inspect import iscoroutinefunction
from typing import Any

from django.core import signing
from django.http import HttpRequest

from ssesync import BrokerUnavailable, Ticket, TicketRefused, Tickets
from ssesync.wire import escape

from .channels import get_broker
from .keys import key_of
from .response import refusal, unavailable
from .views import find_request

__all__ = ["issue_ticket", "ticket_required"]

logger = logging.getLogger("ssesync")

_SALT = "ssesync.ticket"


def issue_ticket(subject: Any, *, channels: Collection[str] = (), seconds: float = 30) -> str:
    """Issue a ticket for one stream: text that a page adds to the URL as ``?ticket=``, if it can't send headers.

    It is signed with ``SECRET_KEY``, so it can't be forged or changed, but can be read.

    :param subject: its user, or text.
    :param channels: the channels that it is valid for.
    :param seconds: the time for which it is valid, up to 60.
    :return: the ticket.
    """
    return _tickets().issue(key_of(subject), channels, seconds)


def ticket_required(view: Callable[..., Any]) -> Callable[..., Any]:
    """Accept only requests that have a ticket in their URL, each ticket once in all processes.

    ::

        @ticket_required
        def events(request):
            return subscribe(request, *request.ticket.channels, key=request.ticket.subject)

    ``request.ticket`` has the ticket's subject and channels. Without a ticket, or with one that was used before, has
    expired or is not this project's, the response is 401. It is also 401 when a browser reconnects by itself: its page
    then requests another ticket, and resumes after its last event id with ``?lastEventId=``.

    :param view: the view.
    :return: the view that requires a ticket.
    :raises TypeError: the view is asynchronous.
    """
    if iscoroutinefunction(view):
        raise TypeError(f"ticket_required takes a synchronous view, got {view!r}: use def instead of async def")

    @functools.wraps(view)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        _, request = find_request(args)
        try:
            request.ticket = _redeem(request)  # type: ignore[attr-defined]
        except TicketRefused as refused:
            # Without the ticket and its contents, which are confidential.
            logger.info("a ticket was refused: %s", escape(refused))
            return refusal(request, "401 Unauthorized", "a ticket is needed", {}, ("WWW-Authenticate", "ticket"))
        except BrokerUnavailable as error:
            logger.error("a ticket could not be used: %s", escape(error))
            return unavailable(request, {})
        return view(*args, **kwargs)

    return wrapper


def _redeem(request: HttpRequest) -> Ticket:
    # HEAD opens no stream, and does not use the ticket.
    return _tickets().redeem(request.GET.get("ticket", ""), use=request.method != "HEAD")


def _tickets() -> Tickets:
    return Tickets(functools.partial(signing.dumps, salt=_SALT), _unsign, get_broker().use_once)


def _unsign(text: str) -> Any:
    try:
        return signing.loads(text, salt=_SALT)
    except signing.BadSignature:
        return None
