"""The preamble and the trailer of a stream: the bytes before and after its events."""

from __future__ import annotations

import random

from ..settings import Settings

__all__ = ["make_preamble", "make_trailer"]

# Milliseconds after which a browser reconnects without a reconnection time: Chromium and Safari 3 s, Firefox 5.
_USUAL_RETRY = 3000
# Milliseconds to wait for the clients of a stream that was ended, where it has no reconnection time of its own.
_TRAILER_RETRY = 2000


def make_preamble(settings: Settings, *, reset_retry: bool = False) -> bytes:
    """Make the first chunk. The headers are sent with it, so it can't wait for an event. No blank line: see KEEP_ALIVE.

    :param settings: the stream's.
    :param reset_retry: this client may have been sent a long reconnection time when it was refused: set a usual one.
    :return: lines of an event stream.
    """
    retry = _USUAL_RETRY if settings.retry is None and reset_retry else settings.retry
    preamble = b":ok\n" if retry is None else b"retry: %d\n" % retry
    return b":%s\n%s" % (b" " * settings.padding, preamble) if settings.padding else preamble


def make_trailer(settings: Settings) -> bytes:
    """Make the last line for a client that resumes: a reconnection time between the stream's own and twice that, at
    random, so that the clients of streams that end together don't reconnect together.

    :param settings: the stream's.
    :return: a line of an event stream.
    """
    base = settings.retry or _TRAILER_RETRY
    return b"retry: %d\n" % random.randint(base, 2 * base)
