"""The options of streams, for type checkers. :class:`ssesync.EventStream` documents and checks them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from ..settings import SettingsOptions

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from ..errors import CloseReason
    from ..settings import Settings
    from .producer import Scope
    from .stats import StreamStats

__all__ = ["EventStreamOptions", "ProducerOptions", "ResponseOptions", "StreamOptions", "ViewOptions"]


class ProducerOptions(TypedDict, total=False):
    """Those of a producer, also of a run's."""

    settings: Settings | None
    dumps: Callable[[Any], str | bytes] | None
    scope: Scope | None
    after_step: Callable[[], object] | None


class StreamOptions(SettingsOptions, ProducerOptions, total=False):
    """Those of every stream, without its name and key."""

    finished: Callable[[str], object] | None
    on_close: Callable[[CloseReason, StreamStats], object] | None
    on_start: Callable[[], object] | None


class ResponseOptions(StreamOptions, total=False):
    """Those of ``EventStreamResponse``, beside its headers."""

    key: str | Callable[[WSGIEnvironment], str | None] | None
    name: str | None


class ViewOptions(ResponseOptions, total=False):
    """Those of ``event_stream`` and ``event_writer``."""

    headers: Mapping[str, str] | Iterable[tuple[str, str]] | None


class EventStreamOptions(ViewOptions, total=False):
    """Those of :class:`ssesync.EventStream`."""

    environ: WSGIEnvironment | None
