"""Tickets: a right to one stream, in its address, for pages whose EventSource can't send headers.

An address ends up in histories and other people's logs. So a ticket is of use for seconds, and once.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Collection
from hashlib import sha256
from typing import NamedTuple, NoReturn

from flask import Flask
from itsdangerous import BadData, URLSafeSerializer
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized

from ssesync import Broker

__all__ = ["Ticket", "issue", "redeem"]

logger = logging.getLogger("ssesync")

_LONGEST_LIFE = 60.0
# Clocks of several machines may differ by as much: until then its use is remembered.
_SKEW = 60.0
_LONGEST = 4096


class Ticket(NamedTuple):
    """What a ticket was issued for."""

    subject: str
    channels: tuple[str, ...]


def issue(app: Flask, subject: str, channels: Collection[str], seconds: float) -> str:
    """See :meth:`ssesync_flask.SSE.issue_ticket`."""
    if not isinstance(subject, str):
        raise TypeError(f"a ticket's subject is text, got {type(subject).__name__}")
    if isinstance(channels, str):
        raise TypeError("a ticket's channels are a list of names, got text")
    if not 0 < seconds <= _LONGEST_LIFE:
        raise ValueError(f"a ticket is of use for up to {_LONGEST_LIFE:.0f} seconds, got {seconds!r}")
    expires = time.time() + seconds
    ticket: str = _serializer(app).dumps([secrets.token_hex(8), round(expires, 2), subject, list(channels)])
    if len(ticket) > _LONGEST:
        raise ValueError("a ticket for so many channels makes too long an address")
    return ticket


def redeem(app: Flask, broker: Broker, text: str) -> Ticket:
    """See :meth:`ssesync_flask.SSE.redeem_ticket`."""
    if not text:
        _refuse("there is none")
    if len(text) > _LONGEST:
        _refuse("it is too long")
    try:
        nonce, expires, subject, channels = _serializer(app).loads(text)
    except BadData:
        _refuse("it is forged, or was signed with another key")
    remaining = expires - time.time()
    if remaining <= 0:
        _refuse("it has expired")
    if not broker.use_once(f"ticket:{nonce}", remaining + _SKEW):
        _refuse("it was used before")
    return Ticket(subject, tuple(channels))


def _serializer(app: Flask) -> URLSafeSerializer:
    if not app.secret_key:
        raise RuntimeError("tickets are signed: set the application's SECRET_KEY")
    # The last one signs; those before it are honoured too.
    keys = [*(app.config.get("SECRET_KEY_FALLBACKS") or ()), app.secret_key]
    return URLSafeSerializer(keys, salt="ssesync.ticket", signer_kwargs={"digest_method": sha256})


def _refuse(why: str) -> NoReturn:
    # Never with the ticket in it, nor what it says.
    logger.info("a ticket was refused: %s", why)
    raise Unauthorized(
        "A ticket is needed that is not used, expired or changed.", www_authenticate=WWWAuthenticate("ticket")
    )
