"""Answers a request with the stream of a run, for each web framework."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from ...errors import BrokerError, BrokerUnavailable, ChannelError, RunConflict, RunRefused, RunUnknown
from ...text import escape
from ...wire.http import get_last_event_id

if TYPE_CHECKING:
    from ..subscription import Subscription
    from .run import Run

__all__ = ["answer_run", "status_of"]

logger = logging.getLogger("ssesync")

Response = TypeVar("Response")

# Methods of requests that never start a producer: Flask calls a view of GET for HEAD, and Django calls any for both.
_SAFE = ("HEAD", "OPTIONS")
_STATUSES: tuple[tuple[type[BrokerError], int], ...] = (
    (RunUnknown, 404),
    (ChannelError, 404),  # no run can have this name
    (RunConflict, 409),
    (RunRefused, 503),
    (BrokerUnavailable, 503),
)


def status_of(error: BrokerError) -> int:
    """Choose the status of the response where a run could not be started, found or stopped.

    :param error: the error.
    :return: the status.
    :raises BrokerError: the error is none that a client should know of.
    """
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            if status == 503:
                logger.error("a client was refused, as its run could not be started or followed: %s", escape(error))
            return status
    raise error


def answer_run(
    environ: Mapping[str, Any],
    *,
    start: Callable[[], Run],
    find: Callable[[], Run],
    respond: Callable[[Subscription], Response],
    refuse: Callable[[int, Exception | None], Response],
    authorize: Callable[[Run], object] | None = None,
    last_event_id: str | None = None,
    **options: Any,
) -> Response:
    """See :meth:`ssesync.Broker.answer_run`."""
    last_event_id = get_last_event_id(environ) or last_event_id
    try:
        run = find() if last_event_id or environ.get("REQUEST_METHOD") in _SAFE else start()
        subscription = run.follow(last_event_id or None, **options)
    except BrokerError as error:
        return refuse(status_of(error), error)
    try:
        # After subscribing: revoke() would not end a subscription that is made between the check and the stream.
        if authorize is not None and not authorize(run):
            subscription.close()
            return refuse(404, None)
        return respond(subscription)
    except BaseException:
        subscription.close()
        raise
