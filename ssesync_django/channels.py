"""Channels: publish, subscribe and revoke, through the broker that ``settings.SSESYNC_BROKER`` names."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from django.conf import settings as project
from django.core.signals import setting_changed
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.dispatch import receiver
from django.http import HttpRequest

from ssesync import Broker, Settings, Subscription, open_broker
from ssesync.options import SubscribeOptions, check_names

from .apps import app_settings
from .encoder import dump_json
from .keys import key_of, own_key
from .response import (
    EventStreamResponse,
    is_tested,
    refusal,
    runs_event_loop,
    unavailable,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["broker_url", "get_broker", "keeper_sockets", "publish", "revoke", "subscribe"]

logger = logging.getLogger("ssesync")

_opened: dict[str, Broker] = {}


def broker_url() -> str:
    """The value of ``settings.SSESYNC_BROKER``."""
    url: str = getattr(project, "SSESYNC_BROKER", "memory://")
    return url


def keeper_sockets() -> str | None:
    """The value of ``settings.SSESYNC_KEEPER``; ``None``: the environment variable of the same name counts."""
    paths: str | None = getattr(project, "SSESYNC_KEEPER", None)
    return paths


def get_broker() -> Broker:
    """The broker that ``settings.SSESYNC_BROKER`` names, ``memory://`` without it: the same one for the whole process.

    It connects, opens files and starts its thread with the first publishing or subscription.
    ``settings.SSESYNC_KEEPER`` names the socket of a keeper for its clients (see :attr:`ssesync.Broker.keeper`).

    :return: the broker.
    :raises ssesync.SettingsError: the URL is empty or names no broker, or an option that does not exist; the socket has
        no absolute path; or there is an unknown setting ``SSESYNC_…``.
    """
    url = broker_url()
    if url not in _opened:
        Settings.check_keys(dir(project))
        made = open_broker(url)
        made.keeper = keeper_sockets()
        # Without a lock, which a fork could leave locked: of two brokers that are made at the same time one is used,
        # and the other has opened nothing yet.
        return _opened.setdefault(url, made)
    return _opened[url]


def publish(
    channel: str,
    event: Any,
    *,
    type: str | None = None,
    final: bool = False,
    on_commit: bool = True,
    using: str | None = None,
) -> str | None:
    """Publish an event to a channel, from a view, a model's ``save()``, a signal, a command or a task.

    Within an atomic block the event is published when the transaction is committed, and not at all if that is rolled
    back. It is checked and encoded here all the same, so that errors are raised here and later changes to it have no
    effect. If the broker fails after the commit, the failure is logged as an error to the logger ``ssesync``
    and not raised, as the transaction is committed, and other callbacks of the transaction must still be called.

    :param channel: the channel.
    :param event: an :class:`ssesync.Event` without an id, text, or a value that ``DjangoJSONEncoder`` encodes.
    :param type: the event's type, if ``event`` is no :class:`ssesync.Event`.
    :param final: close the channel: the streams of its subscribers end after this event.
    :param on_commit: ``False`` publishes at once, even if the transaction is rolled back later.
    :param using: the database whose transaction it is.
    :return: the event's id; ``None`` if it waits for a commit.
    :raises ssesync.BrokerError: it was to be published at once, and could not be.
    :raises ssesync.ChannelError: no channel can have this name.
    :raises ssesync.EventError: the event has an id, or no data, or can't be written.
    """
    send = get_broker().prepare(channel, event, type=type, final=final, dumps=dump_json)
    if not (on_commit and _in_transaction(using)):
        return send()

    def send_or_log() -> None:
        try:
            send()
        except Exception:
            logger.exception("an event for the channel %r was not published after the commit", channel)

    transaction.on_commit(send_or_log, using=using)
    return None


def _in_transaction(using: str | None) -> bool:
    connection = connections[using or DEFAULT_DB_ALIAS]
    # Without autocommit, on_commit() itself raises that it can't be used.
    return connection.in_atomic_block or (connection.connection is not None and not connection.autocommit)


def subscribe(
    request: HttpRequest | Any,
    *channels: str,
    patterns: Iterable[str] = (),
    authorize: Callable[[Any, str], object] | None = None,
    on_connect: Callable[[Subscription], Iterable[Any] | None] | None = None,
    key: Any = None,
    last_event_id: str | None = None,
    since: str | None = None,
    last: int | None = None,
    until_type: str | Iterable[str] | None = None,
    envelope: Sequence[str | bytes] | None = None,
    known: bool = False,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
    **options: Unpack[SubscribeOptions],
) -> EventStreamResponse:
    """Answer a request with the events that are published to channels from now on.

    ::

        def events(request, room):
            return subscribe(request, f"room:{room}", authorize=may_read)

    A browser that reconnects sends the id of the last event it saw, and first gets the events that it has missed.

    :param request: the request, Django's or that of REST framework.
    :param channels: the channels.
    :param patterns: more channels, also ones that don't exist yet: in ``"room:*"`` the ``*`` stands for any characters.
    :param authorize: called with the request and each of the channels and patterns. If one is refused the response is
        403 and no channel is read, live or for replay. **Pass it if the client chooses any part of a channel's name.**
        With it, the response to a name that no channel can have is 404.
    :param on_connect: called with the :class:`ssesync.Subscription`, within the request, when the stream begins; the
        events that it returns, if any, are sent first: the state, for example, that later events change. If it was
        called, ``on_close`` among the options is called once when the stream has ended.
    :param key: the owner of the stream, for :func:`revoke` and ``max_streams_per_key``: a user or text. By default the
        logged-in user, if any.
    :param last_event_id: where to begin, if the client sends no id (``Last-Event-ID`` or ``?lastEventId=``): for
        example the value of ``get_broker().position()`` that the page has.
    :param since: where a client begins that sends no id: ``"start"``, with the first event that the log has, or
        after the event of an id.
    :param last: with how many of the last events a client begins that sends no id.
    :param until_type: a type of events, or several: the stream ends after the first event of such a type, and a
        client that comes back with its id is answered 204.
    :param envelope: text around the data of each event for this client, see :meth:`ssesync.Broker.subscribe`.
    :param known: answer 404 if the log does not have one of the channels: nothing was published to it, or the
        limits have dropped it. For channels that are closed, as nothing more comes if they were dropped.
    :param headers: more response headers.
    :param options: those of :class:`ssesync.EventStream`, and the policy for slow clients: ``overflow``, ``coalesce``,
        ``patience``, ``reset_event``, ``dropped_event``; ``max_pending_events`` and ``max_pending_bytes`` limit the
        queue. See :class:`ssesync.channels.policy.Policy`.
    :return: the response.
    :raises ssesync.ChannelError: no channel can have this name.
    :raises ssesync.SettingsError: an option that does not exist or can't work.
    :raises TypeError: ``authorize`` is asynchronous.

    While the broker can't be reached the client is refused, see the setting ``refusal``. A subscription takes no thread
    of its own and holds no database connection. In an asynchronous view all of this, ``authorize`` and ``on_connect``
    too, is done on another thread when Django renders the response (see :class:`EventStreamResponse`), so that the
    event loop is not blocked.
    """
    check_names(subscribe, options.keys(), SubscribeOptions)
    subscribing = functools.partial(
        _subscribe, request, *channels, patterns=patterns, authorize=authorize, on_connect=on_connect, key=key,
        last_event_id=last_event_id, headers=headers, known=known,
        begin={"since": since, "last": last, "until_type": until_type, "envelope": envelope}, **options,
    )  # fmt: skip
    return EventStreamResponse.later(subscribing) if runs_event_loop() else subscribing()


def _subscribe(
    request: HttpRequest | Any,
    *channels: str,
    patterns: Iterable[str],
    authorize: Callable[[Any, str], object] | None,
    on_connect: Callable[[Subscription], Iterable[Any] | None] | None,
    key: Any,
    last_event_id: str | None,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | None,
    known: bool,
    begin: dict[str, Any],
    **options: Any,
) -> EventStreamResponse:
    plain: HttpRequest = getattr(request, "_request", request)  # REST framework's wraps Django's
    broker = get_broker()
    key = own_key(request) if key is None else key_of(key)
    if key is not None:
        options.setdefault("key", key)
    if not is_tested(plain.META):  # wsgi.multiprocess is set in the test client's environ
        broker.warn_once(plain.META)

    def refuse(status: int, error: Exception | None) -> EventStreamResponse:
        return unavailable(plain, options) if status == 503 else refusal(plain, *_REFUSALS[status], options)

    response: EventStreamResponse = broker.answer(
        plain.META,
        channels,
        options=options,
        respond=lambda subscription: EventStreamResponse(subscription, request=plain, headers=headers, **options),
        refuse=refuse,
        settings=options.get("settings") or app_settings(),
        dumps=dump_json,
        patterns=patterns,
        authorize=None if authorize is None else functools.partial(authorize, request),
        on_connect=on_connect,
        key=key,
        last_event_id=last_event_id,
        known=known,
        **begin,
    )
    return response


_REFUSALS = {403: ("403 Forbidden", "not for you"), 404: ("404 Not Found", "there is no such channel")}


def revoke(who: Any, channel: str | None = None) -> None:
    """End the streams of a user, in all processes.

    Revoke the permission first, so that :func:`subscribe` refuses the clients when they reconnect.

    :param who: the user, or a key as text.
    :param channel: end only the streams that read this channel.
    :raises ssesync.BrokerError: other processes can't be reached. In this one the streams are ended.
    """
    get_broker().revoke(key_of(who), channel)


@receiver(setting_changed)
def _close_brokers(*, setting: str, **_: Any) -> None:
    # Tests change settings: a test must not get events of another test.
    if setting in ("SSESYNC_BROKER", "SSESYNC_KEEPER"):
        while _opened:
            _opened.popitem()[1].close()
