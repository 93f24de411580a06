"""How a run ends, and its final event."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from ...errors import CloseReason
from ...event import Event
from ...json_encoder import dump_json
from ...server.ending import encode_error
from ...settings import Settings
from ...wire.decoder import Decoder
from ...wire.encoder import encode
from ..entry import Entry, Outcome
from .record import RunRecord, RunState

__all__ = ["SHUTDOWN", "Ending", "bound_passed", "error_of", "final_entry"]

#: The reason of a run that was interrupted since its process was to stop.
SHUTDOWN = "shutdown"
# The messages for clients.
_MESSAGES = {
    "max_events": "The run has more events than it may have.",
    "max_bytes": "The run has more bytes than it may have.",
    "max_seconds": "The run has taken longer than it may.",
}


class Ending(NamedTuple):
    """How a run ends."""

    state: RunState
    reason: str = ""
    error: Mapping[str, Any] | None = None
    """The failure, for clients."""

    @property
    def closes_with(self) -> CloseReason:
        """Why the producer's writer is closed."""
        if self.state is RunState.DONE:
            return CloseReason.DONE
        if self.reason == SHUTDOWN:
            return CloseReason.SHUTDOWN
        if self.reason == "max_seconds":
            return CloseReason.LIFETIME
        return CloseReason.CANCELLED


def bound_passed(bound: str) -> Ending:
    """Make the ending of a run that has passed a bound.

    :param bound: the bound's name.
    :return: the ending.
    """
    return Ending(RunState.FAILED, bound, {"message": _MESSAGES[bound], "type": "server_error", "code": bound})


def error_of(settings: Settings, error: BaseException, name: str) -> Mapping[str, Any]:
    """Describe a producer's failure for clients, as ``error_event`` does: without the exception's text by default.

    :param settings: the run's.
    :param error: what the producer has raised.
    :param name: the run's, for the log.
    :return: the error, as JSON has it.
    """
    [event] = Decoder().feed(encode_error(settings, CloseReason.ERROR, error, name))
    try:
        data = json.loads(event.data or "")
    except ValueError:
        return {"message": event.data}
    if not isinstance(data, dict):
        return {"message": data}
    inner = data.get("error")
    return inner if isinstance(inner, dict) else data


def final_entry(record: RunRecord, ending: Ending, *, owner: str, events: int | None = None) -> Entry:
    """Make the final event of a run.

    :param record: the run.
    :param ending: how it ends.
    :param owner: the process that has to own it for that; ``""``: any.
    :param events: how many events come before, where that is known.
    :return: the entry for the log.
    """
    state, reason, error = ending
    data: dict[str, Any] = {"state": state.value}
    if events is not None:
        data["events"] = events
    if reason:
        data["reason"] = reason
    if error is not None:
        data["error"] = error
    body = encode(Event(dump_json(data), type=record.end_type))
    # With its number it is refused if the log has lost events before it: the run would look complete.
    number = 0 if events is None else events + 1
    return Entry(record.name, body, final=True, number=number, outcome=Outcome(state.value, reason), owner=owner)
