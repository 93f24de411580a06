"""The part of a detached client's state that its connection knows, as plain values: for another process."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..settings import DEFAULTS, Settings

__all__ = ["FrozenConnection", "is_plain", "plain_settings", "settings_from"]


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


def is_plain(settings: Settings) -> bool:
    """Whether settings can be sent to another process. A subscription does not use ``error_event``.

    :param settings: a stream's.
    :return: whether they can.
    """
    raise NotImplementedError


def plain_settings(settings: Settings) -> dict[str, Any]:
    """The settings that differ from the defaults.

    :param settings: a stream's.
    :return: values for JSON, by name.
    """
    raise NotImplementedError


def settings_from(plain: Mapping[str, Any]) -> Settings:
    """Undo :func:`plain_settings`. The settings of equal values are one object, as thousands of clients share them.

    :param plain: the values. Names that this version does not know are ignored.
    :return: the settings.
    :raises SettingsError: a value that can't work.
    """
    raise NotImplementedError
