"""What a stream begins and ends with, beside its events."""

from __future__ import annotations

import random

from ..settings import Settings

__all__ = ["come_back", "opening_of"]

# Milliseconds after which a browser comes back that was told no time: Chromium and Safari 3 s, Firefox 5.
_USUAL = 3000
# Milliseconds that clients of an ended stream are told to wait, where the stream has no reconnection time of its own.
_COME_BACK = 2000


def opening_of(settings: Settings, *, told_before: bool = False) -> bytes:
    """The first chunk. Headers leave with it, so it can't wait for an event. No blank line: see KEEP_ALIVE.

    :param told_before: this client may have been told a long reconnection time when it was refused, which it is to
        forget.
    """
    retry = _USUAL if settings.retry is None and told_before else settings.retry
    opening = b":ok\n" if retry is None else b"retry: %d\n" % retry
    return b":%s\n%s" % (b" " * settings.padding, opening) if settings.padding else opening


def come_back(settings: Settings) -> bytes:
    """The reconnection time at the end of a stream: the stream's own, and up to twice that by chance, so that clients
    which are ended together don't come back together."""
    base = settings.retry or _COME_BACK
    return b"retry: %d\n" % random.randint(base, 2 * base)
