"""Answers a request with a subscription, for each web framework: subscribe, authorise, begin the response."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..errors import BrokerUnavailable, ChannelError
from ..settings import Settings
from ..text import escape
from ..wire.http import get_last_event_id

if TYPE_CHECKING:
    from ..server.stream import EventStream
    from .broker import Broker
    from .subscription import Subscription

__all__ = ["StreamResponse", "answer"]

logger = logging.getLogger("ssesync")


class StreamResponse(Protocol):
    """A framework's response that holds an event stream."""

    @property
    def event_stream(self) -> EventStream:
        """The stream."""
        ...


Response = TypeVar("Response", bound=StreamResponse)


def answer(
    broker: Broker,
    environ: Mapping[str, Any],
    channels: Iterable[str],
    *,
    respond: Callable[[Subscription], Response],
    refuse: Callable[[int, Exception | None], Response],
    settings: Settings,
    dumps: Callable[[Any], str | bytes],
    patterns: Iterable[str] = (),
    authorize: Callable[[str], object] | None = None,
    on_connect: Callable[[Subscription], Iterable[Any] | None] | None = None,
    key: str | None = None,
    last_event_id: str | None = None,
    known: bool = False,
    policy: dict[str, Any],
    **options: Any,
) -> Response:
    """See :meth:`Broker.answer`."""
    for name in ("max_pending_events", "max_pending_bytes"):
        policy.setdefault(name, getattr(settings, name))
    last_event_id = get_last_event_id(environ) or last_event_id
    try:
        subscription = broker.subscribe(
            *channels, patterns=patterns, last_event_id=last_event_id, key=key, **options, **policy
        )  # fmt: skip
    except ChannelError as error:
        if authorize is None:
            raise
        return refuse(404, error)
    except BrokerUnavailable as error:
        logger.error("a client could not subscribe and was refused: %s", escape(error))
        return refuse(503, error)
    try:
        # After subscribing: revoke() would not end a subscription that is made between the check and the stream.
        if authorize is not None and not subscription.allowed_by(authorize):
            subscription.close()
            return refuse(403, None)
        if known and not all(map(broker.has_channel, subscription.channels)):
            subscription.close()
            return refuse(404, None)
        response = respond(subscription)
        if on_connect is not None and not response.event_stream.closed:
            subscription.send_first(on_connect(subscription) or (), dumps)
        return response
    except BaseException:
        subscription.close()
        raise
