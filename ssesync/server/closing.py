"""How a stream ends: by its server, by whoever cancels or stops it, by the reactor, and by having been dropped."""

from __future__ import annotations

import contextvars
import functools
import logging
from collections.abc import Callable
from typing import Any, cast

from ..cancel import CancelToken
from ..detached.connection import Connection
from ..detached.handover import Takeover
from ..errors import CloseReason
from ..executor import callers
from ..locks import Once, foreign
from ..reactor import reactor_if_any, run_foreign
from ..settings import Settings
from ..text import escape
from .ending import Ending
from .liveness import Liveness
from .producer import Inline, Producer, Pump, Source
from .registry import Streams
from .stats import StreamStats

__all__ = ["Closable"]

logger = logging.getLogger("ssesync")

# Seconds after which a stream that was opened is no longer expected to be asked for its first bytes: a server does so
# at once, unless an error took the place of the response and something keeps that, a debugger's page say.
_FORSAKEN = 30


class Closable:
    """The ways in which an :class:`EventStream` ends. All lead to :meth:`_end`, which runs once."""

    settings: Settings
    name: str
    cancelled: CancelToken
    _streams: Streams
    _ending: Ending
    _source: Any
    _produce: Producer | None
    _driver: Source | None
    _guard: Liveness | None
    _takeover: Takeover | None
    _detached: Connection | None
    _admitted: str | None
    _rest: bytes | memoryview
    _started: bool
    _ended: bool
    _on_close: Callable[[CloseReason, StreamStats], object] | None
    _context: contextvars.Context

    def __init__(self) -> None:
        self._end_once = Once()
        self._inside = self._closing = False
        self._opened: float | None = None
        # How it was asked to end, perhaps before it was opened: to be stopped with last bytes, to be cancelled without.
        self._early: tuple[CloseReason, bytes | None] | None = None

    @property
    def stats(self) -> StreamStats:
        """What the stream came to so far."""
        raise NotImplementedError

    def _enter(self) -> bool:
        """The server's thread is in here from now on. Another thread, or a signal handler that has interrupted this
        one, then leaves it to this thread to close the stream."""
        outer, self._inside = self._inside, True
        return outer

    def _leave(self, outer: bool) -> None:
        """It is no more."""
        self._inside = outer
        if self._closing and not outer:
            self._close()

    def cancel(self, reason: CloseReason | str = CloseReason.CANCELLED) -> None:
        """End the stream at once, from any thread: what waits is dropped, its producer gets ``StreamClosed``."""
        if not self._ended:
            self._cancel(CloseReason(reason))
        elif self._detached is not None:
            self._detached.cancel(reason)

    def stop(self, reason: CloseReason | str = CloseReason.SHUTDOWN, last: bytes = b"") -> None:
        """End the stream, from any thread: what waits is sent, then ``last``. The producer gets ``StreamClosed``.

        A client that can resume (``Settings.resumable``) gets a reconnection time: the stream's, and up to twice that
        by chance, so that clients which are ended together don't come back together. Any other gets an error event
        and an incomplete answer.
        """
        if not self._ended:
            reason = CloseReason(reason)
            self._early = self._early or (reason, last)  # before the look: _end_early() looks in the other order
            if self._driver is not None:
                self._driver.stop(reason, last)
            self.cancelled._set(reason, run_foreign)
        elif self._detached is not None:
            self._detached.stop(reason, last)

    @property
    def _is_stopped(self) -> bool:
        """Whether the stream was asked to end by :meth:`stop`, before anything else ended it."""
        return self._early is not None and self._early[1] is not None

    def _end_early(self) -> None:
        """Do what was asked before there was a driver to be asked."""
        if self._early is not None and self._driver is not None:
            reason, last = self._early
            if last is None:
                self._driver.cancel(reason)
            else:
                self._driver.stop(reason, last)

    def tick(self, now: float) -> None:
        """Look at lifetime and stalling. For the reactor's thread alone."""
        if (busy := self._guard or self._takeover) is not None:
            busy.tick(now)
        if self._opened is not None and now - self._opened > _FORSAKEN:
            self._opened = None
            # One that runs step by step does not run while nobody asks.
            if not self._started and not isinstance(self._driver, Inline):
                callers().ask(self._forsaken)

    def _forsaken(self) -> None:
        logger.warning(
            "the event stream %s was opened %d s ago and nothing of it was asked for, so it ends: an error page or "
            "another response was sent instead, and something keeps this one",
            escape(self.name),
            _FORSAKEN,
        )
        self.close()

    def close(self) -> None:
        """What every server calls when it is done with the answer, early if the client left. Any number of times.

        From a thread that is not the server's it is as :meth:`cancel` while that is in here: it ends the stream as it
        gets out. Else the stream has ended, and ``on_close`` was called, when this returns.
        """
        # In this order, and in _leave() in the other, one of the two sees what the other did.
        self._closing = True
        if not self._inside:
            self._close()
        elif not self._ended:
            self.cancel(self._reason_to_close)

    @property
    def _reason_to_close(self) -> CloseReason:
        # A server that closes before the end could not send: its client is gone.
        reason = CloseReason.CLIENT_GONE if self._started else CloseReason.CANCELLED
        return (self._driver.reason if self._driver is not None else None) or reason

    def _close(self) -> None:
        if self._takeover is not None:
            self._takeover.close()
        self._ending.close()
        if not self._ended:
            self._end(self._reason_to_close)

    def _end(self, reason: CloseReason) -> None:
        if not self._end_once():
            return
        self._ended = True
        if self._guard is not None:
            self._guard.end()
        if reason is not CloseReason.DONE:
            self._cancel(reason)
        if isinstance(self._driver, (Pump, Inline)):
            self._driver.close()
        if self._produce is None:
            cast(Source, self._source).cancel(CloseReason.CANCELLED)
        elif (self._driver is None or hasattr(self._source, "produce")) and hasattr(self._source, "close"):
            # An upstream, or a generator that was never run, which is ours to close all the same.
            self._source.close()
        self._streams.unlocked(functools.partial(self._settle, reason))

    def _settle(self, reason: CloseReason) -> None:
        if self._admitted is not None:
            self._streams.leave(cast(Any, self), self._admitted, reason)
        if self._on_close is not None and self._driver is not None:
            foreign("on_close")
            try:
                self._context.run(self._on_close, reason, self.stats)
            except Exception:
                logger.exception("on_close of the event stream %s failed", escape(self.name))

    def _cancel(self, reason: CloseReason) -> None:
        if self._rest:
            self._rest, self._ending.torn = b"", True
        self._early = self._early or (reason, None)  # before the look, as in stop()
        if self._driver is not None:
            self._driver.cancel(reason)
        self.cancelled._set(reason, run_foreign)

    def __del__(self) -> None:
        # Made, and then dropped by what should have served it: the producer must not wait for ever. Garbage is
        # collected in the middle of anything, perhaps with a lock held: so this only asks for the end.
        if not getattr(self, "_ended", True) and (self._driver is not None or self._produce is None):
            current = reactor_if_any()
            if current is not None:
                current.call_from_signal(functools.partial(callers().ask, self.close))
            else:
                self.close()
