"""The end of a worker that has a keeper: its streams are moved there before they would be ended.

Most are the keeper's already. This is for those that came in the last moments, or that the keeper has not taken yet. If
no keeper can be used, they are moved to another worker (``moving.py``), or ended.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..channels.channel_source import ChannelSource
from ..channels.dispatcher import Registration
from ..detached.connection import Connection
from ..locks import Once
from ..reactor import run_foreign
from ..server.detaching import Detached, Served
from ..server.registry import streams
from ..server.shutdown import RESERVE
from ..server.wsgi_server import gunicorn_worker
from ..text import escape

if TYPE_CHECKING:
    from .mover import Mover

__all__ = ["KeeperTransfer"]

logger = logging.getLogger("ssesync")

# Seconds that it may take at most, and that a client may take from its admission to its group.
_SECONDS, _ARRIVAL = 10.0, 1.0
# Seconds between two checks.
_POLL = 0.02


class KeeperTransfer:
    """See the module, and :class:`ssesync.server.transferring.Transfer`.

    :param movers: those of a broker, one for each keeper.
    """

    def __init__(self, movers: Sequence[Mover]) -> None:
        self._movers = movers
        self._once = Once()
        self._calls: list[Callable[[], object]] = []
        self._began = self._until = 0.0
        # Each of the two is set once, by any thread, and a signal handler may set the second one.
        self._is_begun = self._is_over = False

    def begin(self, since: float, over: Callable[[], object]) -> None:
        """See :class:`ssesync.server.transferring.Transfer`."""
        self._calls.append(over)
        self._began = self._began or time.monotonic()
        self._is_begun = True  # also where another thread is in the next steps: then this one waits for their result
        if not self._once():
            return
        worker = gunicorn_worker()
        seconds = _SECONDS if worker is None else min(_SECONDS, worker.cfg.graceful_timeout - RESERVE)
        self._until = since + seconds
        if time.monotonic() >= self._until:
            self._is_over = True
            return
        for mover in self._movers:
            mover.hurry()
        if not self._goes_on():
            self._is_over = True
            return
        try:
            threading.Thread(target=self._run, name="ssesync-moving", daemon=True).start()
        except RuntimeError as error:
            self._is_over = True
            text = escape(error)
            run_foreign(
                lambda: logger.warning(
                    "no event stream is moved to the keeper, as no thread can be started: %s", escape(text)
                )
            )

    def may_move(self, stream: Served | Detached) -> bool:
        """See :class:`ssesync.server.transferring.Transfer`."""
        if not self._is_moving:
            return False
        is_early = time.monotonic() - self._began < _ARRIVAL
        if not isinstance(stream, Connection):
            return is_early and streams.is_leaving(stream)
        sink = stream.registration.sink if isinstance(stream.registration, Registration) else None
        if not isinstance(sink, ChannelSource) or not sink.may_move(stream, later=is_early):
            return False
        return any(mover.takes(stream) for mover in self._movers)

    def abandon(self) -> None:
        """See :class:`ssesync.server.transferring.Transfer`."""
        self._is_over = True

    def seconds_to_move(self) -> float | None:
        """See :class:`ssesync.server.transferring.Transfer`."""
        return _SECONDS if self._is_moving else None

    @property
    def _is_moving(self) -> bool:
        return self._is_begun and not self._is_over

    def _goes_on(self) -> bool:
        return (
            self._is_moving
            and time.monotonic() < self._until
            and any(not mover.is_away for mover in self._movers)
            and any(stream.reason is None and self.may_move(stream) for stream in streams.all())
        )

    def _run(self) -> None:
        try:
            while self._goes_on():
                time.sleep(_POLL)
        except Exception:
            logger.exception("moving event streams to the keeper failed; those that are left are ended")
        finally:
            self._is_over = True
            for call in self._calls:
                call()
