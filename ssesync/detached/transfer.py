"""The part of a detached client's state that its connection knows, as plain values: for another process."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..event import Event
from ..settings import DEFAULTS, Settings

__all__ = ["FrozenConnection", "is_plain", "plain_settings", "settings_from"]

_FIELDS = tuple(each.name for each in dataclasses.fields(Settings))


@dataclass(slots=True)
class FrozenConnection:
    """A client to which this process sends nothing for now. Times are durations: clocks of two processes may differ."""

    fd: int
    """The client's socket. It stays this process's until another one has acknowledged the client."""
    chunked: bool
    """Whether the response has the chunked transfer coding."""
    name: str
    """The stream's name in log lines."""
    key: str
    """The stream's key, for ``max_streams_per_key``."""
    settings: Settings
    orderly: bool
    """Whether the client can resume, so that its response may end as a complete one does."""
    unsent: bytes = field(repr=False)
    """The bytes to be sent first, as they go over the connection. The last message in them is complete."""
    age: float
    """Seconds since the stream was made."""
    silent: float
    """Seconds since bytes were last sent to the client."""
    stalled: float
    """Seconds for which the client has not accepted 64 kB of its unsent bytes; 0 without these."""
    lifetime: float | None
    """Seconds until the stream ends because of ``max_lifetime``; ``None``: no limit."""
    events: int
    """How many events the client was sent."""
    bytes: int
    """How many bytes."""
    keep_alives: int
    """How many keep-alives."""


def is_plain(settings: Settings, *, orderly: bool) -> bool:
    """Whether settings can be sent to another process.

    :param settings: a stream's.
    :param orderly: whether its client can resume. Such a client is never sent ``error_event``.
    :return: whether they can.
    """
    return orderly or not callable(settings.error_event)


def plain_settings(settings: Settings) -> dict[str, Any]:
    """Find the settings that differ from the defaults.

    :param settings: a stream's.
    :return: values for JSON, by name.
    """
    plain: dict[str, Any] = {}
    for each in _FIELDS:
        value = getattr(settings, each)
        if value == getattr(DEFAULTS, each):
            continue
        if each == "error_event":
            if callable(value):
                continue  # see is_plain()
            value = {"data": value.data, "type": value.type, "id": value.id, "retry": value.retry}
        plain[each] = list(value) if isinstance(value, tuple) else value
    return plain


def settings_from(plain: Mapping[str, Any]) -> Settings:
    """Undo :func:`plain_settings`. Equal settings are one object, as thousands of clients have them.

    :param plain: the values. Names that this version does not know are ignored.
    :return: the settings.
    :raises SSEError: a value that can't work, such as ``SettingsError``.
    :raises TypeError: a value of a wrong type.
    """
    return _cached(json.dumps({name: plain[name] for name in _FIELDS if name in plain}))


@functools.lru_cache(maxsize=64)
def _cached(text: str) -> Settings:
    values = json.loads(text)
    if (event := values.get("error_event")) is not None:
        values["error_event"] = Event(**event)
    return DEFAULTS.replace(**values)
