"""Subscribing: where a subscription begins, and whether its client has everything already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ChannelError, CloseReason, SettingsError, excerpt
from ..validation import check_number
from .completion import types_of
from .dispatcher import Registration
from .envelope import envelope_of
from .message import check_channel, check_pattern, parse_id
from .options import checked_options
from .policy import Policy, policy_of
from .subscription import Subscription

if TYPE_CHECKING:
    from .broker import Broker

__all__ = ["subscribe"]


def subscribe(
    broker: Broker,
    channels: Iterable[str],
    patterns: Iterable[str],
    last_event_id: str | None,
    since: str | None,
    last: int | None,
    until_type: str | Iterable[str] | None,
    envelope: Sequence[str | bytes] | None,
    key: str | None,
    policy: dict[str, Any],
) -> Subscription:
    """See :meth:`Broker.subscribe`."""
    if isinstance(patterns, str):
        raise TypeError("patterns takes a list of patterns, got text")
    names = tuple(dict.fromkeys(map(check_channel, channels)))
    globs = tuple(dict.fromkeys(map(check_pattern, patterns)))
    if not names and not globs:
        raise ChannelError("subscribe() takes at least one channel or pattern")
    if key is not None and not isinstance(key, str):
        raise TypeError(f"a subscription's key is text, got {excerpt(key)}")
    checked = policy_of(checked_options(policy, {}, Policy.__dataclass_fields__))
    until, around = types_of(until_type), envelope_of(envelope)
    if last is not None:
        if since:
            raise SettingsError("since and last are two ways to say where to begin: give one of them")
        check_number("last", last, whole=True)
    if since is not None and not isinstance(since, str):
        raise TypeError(f"since takes 'start' or an event's id, got {excerpt(since)}")
    broker._ensure_listening()
    subscription = Subscription(broker, names, globs, checked, key, until, around)
    subscriber = subscription._subscriber
    broker.dispatcher.register(subscriber, Registration(names, globs, key, subscriber))
    broker._attached()
    # The log is asked after the subscriber was added to the dispatcher: earlier events are in the log, and later events
    # are offered.
    _start(broker, subscription, last_event_id or (since if since != "start" else None), None if since else last or 0)
    if broker.closed:
        subscription.cancel(CloseReason.SHUTDOWN)
    return subscription


def _start(broker: Broker, subscription: Subscription, event_id: str | None, last: int | None) -> None:
    """Set the position of a subscription.

    :param event_id: the id to go on from.
    :param last: without an id, how many events to begin with; ``None``: with the first one that the log has.
    """
    names, globs, source = subscription.channels, subscription.patterns, subscription._source
    subscriber = source.subscriber
    if event_id:
        position = parse_id(event_id) or ("", 0)
        if source.until and _was_last(broker, subscription, *position):
            source.complete()
            return
        subscriber.start(*position, from_log=True)
    else:
        epoch, seq, closed = broker.start_of(names, globs, last)
        if last == 0 and closed and not globs and len(closed) == len(names):
            last = 1  # nothing will be published: the client gets the final event
            epoch, seq, closed = broker.start_of(names, globs, last)
        subscriber.start(epoch, seq, from_log=last != 0, closed=closed, last=last)
        if last == 0:
            return
    source.read_ahead()


def _was_last(broker: Broker, subscription: Subscription, epoch: str, seq: int) -> bool:
    """Whether the event of an id was the last one of the subscription, because of its type."""
    message = broker.find(epoch, seq) if epoch else None
    if message is None or message.type not in subscription._source.until:
        return False
    return subscription.covers(message.channel)
