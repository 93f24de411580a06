"""Liveness of one served stream: whether its client is connected and reads, and the stream's lifetime."""

from __future__ import annotations

import random
import weakref
from collections.abc import Mapping
from typing import Any, Protocol

from ..errors import CloseReason
from ..locks import make_lock
from ..reactor import Timer, reactor, reactor_if_any
from ..settings import Settings
from .wsgi_sockets import find_socket

__all__ = ["Liveness", "lifetime_of"]


class Watched(Protocol):
    """The part of a stream that is used here."""

    @property
    def reason(self) -> CloseReason | None:
        """Why the stream ended or is ending, ``None`` while it is not."""

    def cancel(self, reason: CloseReason) -> object:
        """End at once."""

    def stop(self, reason: CloseReason) -> object:
        """End after what waits."""


class Liveness:
    """Watches one stream from its opening to its end.

    The descriptor is the server's, and may be another connection's as soon as the stream has ended. So it is only used
    under the lock that :meth:`end` takes; every server calls ``close()`` before it closes the socket. The reference to
    the stream is weak, since the reactor refers to this object, and a stream that its server has dropped must be
    collected.

    :param stream: the stream.
    :param environ: the WSGI environ of the request.
    :param settings: the stream's.
    """

    def __init__(self, stream: Watched, environ: Mapping[str, Any], settings: Settings) -> None:
        self._stream = weakref.ref(stream)
        self._settings = settings
        self._lock = make_lock("server.liveness")
        self._ended = False
        self._sending_since: float | None = None
        self._lifetime: Timer | None = None
        if (seconds := lifetime_of(settings)) is not None:
            self._lifetime = reactor().call_later(seconds, self._stop)
        self._socket = find_socket(environ)
        #: Whether a client that leaves is noticed without writing to it.
        self.senses = False
        if self._socket is not None:
            # Later than send_timeout: if the kernel ends the connection, the client counts as gone and not as stalled.
            self._socket.expect_loss(None if settings.send_timeout is None else settings.send_timeout + 10)
            if settings.sense_disconnect:
                self.senses = reactor().watch(self._socket.fd, self._gone, half_close=settings.half_close_is_gone)

    def sending(self, now: float) -> None:
        """Note that the server has bytes to send."""
        self._sending_since = now

    def sent(self) -> None:
        """Note that the server has sent them."""
        self._sending_since = None

    def tick(self, now: float) -> None:
        """Cut the connection off if its client does not read."""
        timeout, since = self._settings.send_timeout, self._sending_since
        if since is None or self._socket is None:
            return
        stream = self._stream()
        # A subscriber that was too slow has ended, but the server's thread still sends to its client.
        given_up = stream is not None and stream.reason is CloseReason.OVERFLOW
        if given_up or (timeout is not None and now - since > timeout):
            if self._ended or self._sending_since != since:
                return
            # Not under the lock, as this calls foreign code. And before the shutdown: the server closes the stream as
            # soon as its send fails, with the reason that the client has left.
            self._cancel(CloseReason.STALLED)
            with self._lock:
                if not self._ended:
                    self._socket.shut()

    def end(self) -> None:
        """End: the descriptor is not used any more. Called when the stream has ended, any number of times."""
        with self._lock:
            self._ended = True
        if self._lifetime is not None:
            self._lifetime.cancel()
        if self.senses and self._socket is not None and (current := reactor_if_any()) is not None:
            current.unwatch(self._socket.fd, self._gone)

    def _stop(self) -> None:
        stream = self._stream()
        if stream is not None:
            stream.stop(CloseReason.LIFETIME)

    def _gone(self) -> None:
        self._cancel(CloseReason.CLIENT_GONE)

    def _cancel(self, reason: CloseReason) -> None:
        stream = self._stream()
        if stream is not None:
            stream.cancel(reason)


def lifetime_of(settings: Settings) -> float | None:
    """Choose the lifetime of a stream: ``max_lifetime`` plus or minus a tenth, at random, so that streams that began
    together don't end together.

    :param settings: the stream's.
    :return: seconds; ``None`` where there is no limit.
    """
    return None if settings.max_lifetime is None else settings.max_lifetime * random.uniform(0.9, 1.1)
