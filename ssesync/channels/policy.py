"""Policy: how much may wait for a subscriber, and what happens to a slow one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from ..errors import SettingsError, excerpt
from ..event import Event
from ..validation import check_number

__all__ = ["Policy", "policy_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How much may wait for a subscriber, and what happens to a slow one.

    :raises SettingsError: a value that can't work.
    """

    overflow: str = "disconnect"
    """``"disconnect"`` loses nothing: what there is no room for is read from the log later, and a subscriber that has
    read nothing for ``patience`` seconds by then is ended with the reason ``overflow``, to come back and resume.
    ``"drop_oldest"`` drops the oldest, and reports how many in an event of the type ``dropped_event``. ``"coalesce"``
    keeps the newest event of each key that ``coalesce`` returns."""

    coalesce: Callable[[Event], Any] | None = None
    """A function that returns what an event is about, for the policy of that name; ``None``: nothing that another event
    replaces. It is called on the thread that publishes or listens, or that serves all detached streams, while no lock
    is held: so it must be quick. It costs the decoding of each event for which there was no room."""

    max_pending_events: int = 256
    """Events that may wait."""

    max_pending_bytes: int = 1024 * 1024
    """Their bytes. One event larger than that still waits, alone."""

    patience: float = 10.0
    """Seconds without a read after which a subscriber that has no room is ended. ``0``: at once. Over a slow line
    seconds pass between two reads, as the system reports room by tens of kilobytes."""

    reset_event: str = "reset"
    """The type of the event that tells a client that it has lost events, and is to fetch anew what it shows. Its data
    is ``{"reason": …}``, one of ``unknown`` (the id is not of this log), ``trimmed`` (the log goes less far back) and
    ``restarted`` (the log was begun anew); its id is the position to go on from."""

    dropped_event: str = "dropped"
    """The type of the event that reports how many were dropped: ``{"count": …}``."""

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
        """Equal for policies that do the same: their clients can be one broadcast group."""
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


def policy_of(options: Mapping[str, Any]) -> Policy:
    """Make a policy, or take the one that was made of equal options: a view subscribes with the same ones each time.

    :param options: those of a call, of which the names are checked already.
    :return: the policy.
    :raises SettingsError: a value that can't work.
    """
    if options.get("coalesce") is None:  # else it would keep a function alive, with all that this refers to
        try:
            return _remembered(**options)
        except TypeError:  # of a value without a hash
            pass
    return Policy(**options)


@functools.lru_cache(maxsize=64, typed=True)
def _remembered(**options: Any) -> Policy:
    return Policy(**options)
