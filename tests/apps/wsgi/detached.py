"""Subscriptions whose streams leave the server, in plain WSGI."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import ssesync
from ssesync import EventStream, get_last_event_id
from tests.apps import facts
from tests.apps.subscriptions import options_of, publish

from . import in_json, text

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

broker = ssesync.open_broker("memory://")


def bare(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    query = facts.query(environ)
    _, kind, *rest = environ["PATH_INFO"].split("/")
    if kind == "events":
        options = options_of(rest[0], query)
        options.pop("on_connect", None)
        key = options.pop("key")
        subscription = broker.subscribe(
            *query.get("channel", rest[0]).split(","), last_event_id=get_last_event_id(environ), key=key
        )
        return EventStream(subscription, key=key, name=environ["PATH_INFO"], **options)(environ, start_response)
    if kind == "publish":
        data = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        return in_json(publish(broker.publish, query["channel"], data))(environ, start_response)
    return text("pong")(environ, start_response)
