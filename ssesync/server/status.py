"""The public properties of an ``EventStream``, served or detached."""

from __future__ import annotations

import time
from typing import Any

from ..errors import CloseReason
from ..settings import Settings
from ..text import shown
from .detaching import Detached
from .ending import Ending
from .lifecycle import Lifecycle
from .liveness import Liveness
from .output import Output
from .source import Source
from .spec import StreamSpec
from .stats import StreamStats, describe

__all__ = ["StreamStatus"]


class StreamStatus:
    """The properties of an :class:`EventStream`. Any thread may read them."""

    _spec: StreamSpec
    _lifecycle: Lifecycle
    _output: Output
    _ending: Ending
    _source: Source | None
    _liveness: Liveness | None
    _detached: Detached | None

    @property
    def settings(self) -> Settings:
        """The stream's settings."""
        return self._spec.settings

    def __repr__(self) -> str:
        reason = "" if self.reason is None else f" ({self.reason.value})"
        state = "ended" if self.closed else self._lifecycle.state.value
        return shown(self, self.name, state=f"{state}{reason}")

    @property
    def name(self) -> str:
        """The stream's name, in log lines and of the producer's thread."""
        return self._spec.name

    @property
    def closed(self) -> bool:
        """Whether the stream has ended."""
        return self._lifecycle.is_over if self._detached is None else self._detached.closed

    @property
    def reason(self) -> CloseReason | None:
        """Why the stream ended or is ending, ``None`` while it is not."""
        if self._detached is not None:
            return self._detached.reason
        return None if self._source is None else self._source.reason

    @property
    def finishes(self) -> bool:
        """Whether the stream continues to its own end, for a limited time, when the process stops
        (``Settings.drain``)."""
        return self._ending.finishes(self._source) if self._detached is None else self._detached.finishes

    @property
    def senses_disconnect(self) -> bool:
        """Whether a client that leaves is noticed at once; else by failing keep-alives."""
        if self._detached is not None:
            return self.settings.sense_disconnect
        return self._liveness is not None and self._liveness.senses

    @property
    def stats(self) -> StreamStats:
        """The stream's figures so far."""
        if self._detached is not None:
            return self._detached.stats
        output, events = self._output, 0 if self._source is None else self._source.events
        return StreamStats(events, output.bytes, output.keep_alives, time.monotonic() - output.created)

    def describe(self) -> dict[str, Any]:
        """Describe the stream.

        :return: its part of ``streams.snapshot()``.
        """
        now = time.monotonic()
        pending = (0, 0) if self._source is None else self._source.pending
        last = self._output.last_write
        return describe(self, now - self._output.created, pending, None if last is None else now - last, "served")
