"""Tickets, signed with the application's key; see :class:`ssesync.Tickets`."""

from __future__ import annotations

import logging
from hashlib import sha256
from typing import Any

from flask import Flask, abort
from itsdangerous import BadData, URLSafeSerializer
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized

from ssesync import Broker, BrokerUnavailable, Ticket, TicketRefused, Tickets
from ssesync.wire import escape

from .response import unavailable
from .state import state_of

__all__ = ["redeem", "tickets_of"]

logger = logging.getLogger("ssesync")


class _Challenge(WWWAuthenticate):
    """A scheme without parameters (RFC 9110, section 11.3), after which Werkzeug 3.0 writes a space."""

    def to_header(self) -> str:
        """The header's value."""
        return super().to_header().strip()


def tickets_of(app: Flask, broker: Broker) -> Tickets:
    """The application's tickets.

    :param app: the application.
    :param broker: its broker, which ensures single use.
    :return: the tickets.
    :raises RuntimeError: it has no ``SECRET_KEY``.
    """
    if not app.secret_key:
        raise RuntimeError("tickets are signed: set the application's SECRET_KEY")
    # The last key signs; the others are accepted too.
    keys = [*(app.config.get("SECRET_KEY_FALLBACKS") or ()), app.secret_key]
    serializer = URLSafeSerializer(keys, salt="ssesync.ticket", signer_kwargs={"digest_method": sha256})

    def unsign(text: str) -> Any:
        try:
            return serializer.loads(text)
        except BadData:
            return None

    return Tickets(serializer.dumps, unsign, broker.use_once)


def redeem(app: Flask, broker: Broker, text: str, *, use: bool) -> Ticket:
    """See :meth:`ssesync_flask.SSE.redeem_ticket`."""
    try:
        return tickets_of(app, broker).redeem(text, use=use)
    except TicketRefused as refused:
        # Without the ticket and its contents, which are confidential.
        logger.info("a ticket was refused: %s", escape(refused))
        raise Unauthorized(
            "A ticket is needed that is not used, expired or changed.", www_authenticate=_Challenge("ticket")
        ) from None
    except BrokerUnavailable as error:
        logger.error("a ticket could not be used: %s", escape(error))
        abort(unavailable(state_of(app).settings, error))
