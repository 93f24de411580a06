"""Policy: how many events are queued for a subscriber, and the action when a queue is full."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Literal, TypedDict

from ..errors import SettingsError, excerpt
from ..event import Event, ReceivedEvent
from ..settings import QueueOptions
from ..validation import check_number

__all__ = ["DeliveryOptions", "Policy", "PolicyOptions", "policy_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How many events are queued for a subscriber, and the action when its queue is full.

    :raises SettingsError: a value that can't work.
    """

    overflow: Literal["disconnect", "drop_oldest", "coalesce"] = "disconnect"
    """``"disconnect"`` loses nothing: events that the full queue can't take are read from the log later. A subscriber
    that has read nothing for ``patience`` seconds by then is ended with the reason ``overflow``; its client reconnects
    and resumes. ``"drop_oldest"`` drops the oldest events, and reports their number in an event of the type
    ``dropped_event``. ``"coalesce"`` keeps the newest event of each key that ``coalesce`` returns."""

    coalesce: Callable[[ReceivedEvent], Any] | None = None
    """For ``overflow="coalesce"``: a function that returns an event's key; a newer event with the same key replaces it.
    ``None`` as a key: no other event replaces it. It is called on the thread that publishes or listens, or that serves
    all detached streams, while no lock is held: so it must be quick. Each event that the full queue could not take is
    decoded for it."""

    max_pending_events: int = 256
    """The most events in the queue."""

    max_pending_bytes: int = 1024 * 1024
    """The most bytes in the queue. A single event may be larger."""

    patience: float = 10.0
    """Seconds without a read after which a subscriber whose queue is full is ended. ``0``: at once. Over a slow line
    seconds pass between two reads, as the system reports a writable socket by tens of kilobytes."""

    reset_event: str = "reset"
    """The type of the event that is sent to a client that has lost events and must fetch its state anew. Its data is
    ``{"reason": …}``, one of ``unknown`` (the id is not of this log), ``trimmed`` (the log has dropped events after the
    id) and ``restarted`` (the log was begun anew); its id is the position to continue from."""

    dropped_event: str = "dropped"
    """The type of the event that reports how many events were dropped: ``{"count": …}``."""

    def __post_init__(self) -> None:
        if self.overflow not in ("disconnect", "drop_oldest", "coalesce"):
            raise SettingsError(
                f"overflow takes 'disconnect', 'drop_oldest' or 'coalesce', got {excerpt(self.overflow)}"
            )
        if (self.coalesce is not None) != (self.overflow == "coalesce"):
            raise SettingsError("overflow='coalesce' and coalesce=, a function of an event, go together")
        check_number("max_pending_events", self.max_pending_events, above=0, whole=True)
        check_number("max_pending_bytes", self.max_pending_bytes, above=0, whole=True)
        check_number("patience", self.patience)
        for name in ("reset_event", "dropped_event"):
            Event(type=getattr(self, name))

    @property
    def grouping_key(self) -> object:
        """Equal for policies with the same effect: their clients can be in one broadcast group."""
        function: Any = self.coalesce
        if function is None:
            return self
        # A view makes a new function of a lambda in each call. Without this each of its clients would be a group.
        if isinstance(function, FunctionType):
            if not (function.__closure__ or function.__defaults__ or function.__kwdefaults__):
                function = (function.__code__, id(function.__globals__))
        elif function.__hash__ is None:
            function = id(function)
        return (function, *(getattr(self, name) for name in self.__dataclass_fields__ if name != "coalesce"))


class DeliveryOptions(TypedDict, total=False):
    """The options of :class:`Policy` that are no settings, for type checkers."""

    overflow: Literal["disconnect", "drop_oldest", "coalesce"]
    coalesce: Callable[[ReceivedEvent], Any] | None
    patience: float
    reset_event: str
    dropped_event: str


class PolicyOptions(DeliveryOptions, QueueOptions, total=False):
    """The options of :class:`Policy`, for type checkers."""


def policy_of(options: Mapping[str, Any]) -> Policy:
    """Make a policy, or return the cached one of equal options: a view subscribes with the same options each time.

    :param options: the options of a call. Their names were checked.
    :return: the policy.
    :raises SettingsError: a value that can't work.
    """
    if options.get("coalesce") is None:  # else the cache would keep a function alive, with all that it refers to
        try:
            return _cached_policy(**options)
        except TypeError:  # of a value without a hash
            pass
    return Policy(**options)


@functools.lru_cache(maxsize=64, typed=True)
def _cached_policy(**options: Any) -> Policy:
    return Policy(**options)
