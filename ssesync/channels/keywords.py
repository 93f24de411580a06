"""The options of subscribing and of runs, for type checkers. The functions that take them document them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypedDict

from ..server.options import ProducerOptions, StreamOptions
from .policy import DeliveryOptions, PolicyOptions

__all__ = ["FollowOptions", "FollowerOptions", "RunKeywords", "RunViewOptions", "StartOptions", "SubscribeOptions"]


class FollowerOptions(PolicyOptions, total=False):
    """Those of :meth:`ssesync.Run.follow`, beside its own: of :meth:`ssesync.Broker.subscribe`."""

    since: str | None
    last: int | None
    until_type: str | Iterable[str] | None
    envelope: Sequence[str | bytes] | None
    key: str | None


class _ChannelOptions(StreamOptions, DeliveryOptions, total=False):
    """Those of a stream that follows channels."""


class SubscribeOptions(_ChannelOptions, total=False):
    """Those of the integrations' ``subscribe()``, beside its own."""

    name: str | None


class FollowOptions(_ChannelOptions, total=False):
    """Those of the integrations' ``follow_run()``, beside its own."""

    key: Any
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | None
    envelope: Sequence[str | bytes] | None
    last_event_id: str | None


class _OwnRunOptions(TypedDict, total=False):
    writer: bool
    max_events: int
    max_bytes: int
    max_seconds: float | None
    max_per_subject: int | None
    retain: float
    merge: float | None
    numbered: bool
    end_type: str


class RunKeywords(_OwnRunOptions, ProducerOptions, total=False):
    """Those of :class:`ssesync.channels.runs.options.RunOptions`."""


class StartOptions(RunKeywords, total=False):
    """Those of the integrations' ``start_run()``, beside its own."""

    restart: bool


class RunViewOptions(FollowOptions, _OwnRunOptions, total=False):
    """Those of the integrations' ``run()``, beside its own."""

    restart: bool
    authorize: Callable[..., object] | None
