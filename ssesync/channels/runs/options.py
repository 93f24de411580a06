"""The options of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...errors import SettingsError, UnknownOption, excerpt
from ...event import Event
from ...server.checks import check_callbacks
from ...server.producer import Scope
from ...settings import DEFAULTS, Settings
from ...validation import check_choice, check_number, suggest

__all__ = ["RunOptions", "options_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options of a run. A run that passes one of its bounds fails, with the bound's name as the reason.

    :raises SettingsError: a value that can't work.
    """

    writer: bool = False
    """The producer is a function that is given a :class:`ssesync.Writer` before its other arguments, and writes to it.
    Else it is a function that returns an iterable of events, such as a generator function, or a :class:`ssesync.Relay`,
    or what :func:`ssesync.from_async` returns, or it is one of these itself."""

    max_events: int = 100_000
    """Events of the run."""

    max_bytes: int = 16 * 1024 * 1024
    """Bytes of its events."""

    max_seconds: float | None = None
    """Seconds for which it may be produced. ``None``: any time."""

    max_per_subject: int | None = 100
    """Runs of one subject that may be queued or running at a time, over which a start is refused. A run without a
    subject is not counted. ``None``: any number."""

    retain: float = 3600.0
    """Seconds for which the run is kept after its end."""

    merge: float | None = None
    """Seconds for which text waits for more text of the same type, which is joined to it as one event: for models that
    give a few characters at a time. It holds for what a producer writes or yields as text, and not for an
    :class:`ssesync.Event` or JSON. ``None``: each text is one event."""

    numbered: bool = False
    """Give each event whose data is a JSON object a member ``sequence_number``: the event's number in the run, from 1.
    A client that has all of a run's events has got as many as the final event has in ``events``."""

    end_type: str = "end"
    """The type of the final event."""

    dumps: Callable[[Any], str | bytes] | None = None
    """The JSON encoder for items that are neither :class:`ssesync.Event` nor text."""

    scope: Scope | None = None
    """A function whose context manager is entered on the producer's thread round all that it does: an application's
    context, for one."""

    after_step: Callable[[], object] | None = None
    """Called on the producer's thread after each of its writes."""

    settings: Settings = DEFAULTS
    """The settings, of which a run uses ``max_producers``, ``error_event``, and ``drain_timeout``: so long it may go on
    when its process stops, unless ``drain`` is ``"end"``."""

    def __post_init__(self) -> None:
        check_choice("writer", self.writer, True, False)
        check_choice("numbered", self.numbered, True, False)
        check_number("max_events", self.max_events, above=0, whole=True)
        check_number("max_bytes", self.max_bytes, above=0, whole=True)
        check_number("max_seconds", self.max_seconds, above=0, optional=True)
        check_number("max_per_subject", self.max_per_subject, above=0, whole=True, optional=True)
        check_number("retain", self.retain, above=0)
        check_number("merge", self.merge, above=0, most=60, optional=True)
        check_callbacks(dumps=self.dumps, scope=self.scope, after_step=self.after_step)
        Event(type=self.end_type)
        if self.end_type in ("", "error", "message"):
            raise SettingsError(
                f"end_type takes the type of an event of its own, got {excerpt(self.end_type)}: an EventSource has "
                "a use of its own for that name"
            )


def options_of(given: dict[str, Any]) -> RunOptions:
    """Check the options of a run.

    :param given: those of a call.
    :return: the options.
    :raises SettingsError: a name that is no option (the nearest is named), or a value that can't work.
    """
    for name in given:
        if name not in RunOptions.__dataclass_fields__:
            raise UnknownOption(f"unknown option {name!r} of a run: {suggest(name, RunOptions.__dataclass_fields__)}")
    return RunOptions(**given)
