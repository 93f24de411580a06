"""The options of a stream, before it is served."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import CloseReason
from ..settings import Settings
from .factory import SourceFactory
from .producer import Scope
from .stats import StreamStats

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["StreamSpec"]


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """The options of an :class:`ssesync.EventStream`, which documents them. They are the same each time it is
    served."""

    factory: SourceFactory
    name: str
    settings: Settings
    headers: tuple[tuple[str, str], ...]
    finished: Callable[[str], object] | None = None
    on_close: Callable[[CloseReason, StreamStats], object] | None = None
    dumps: Callable[[Any], str | bytes] | None = None
    scope: Scope | None = None
    on_start: Callable[[], object] | None = None
    after_step: Callable[[], object] | None = None
    max_of_view: int | None = None
    key: str | Callable[[WSGIEnvironment], str | None] | None = None
