"""Messages divided into sends."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from .source import Numbered

__all__ = ["SEND", "split"]

#: About how many bytes one send has: half of the kernel's buffer for a client (see head.py), so that one send fits.
SEND = 32768


def split(messages: Sequence[Numbered]) -> tuple[Sequence[Numbered], Sequence[Numbered]]:
    """Divide messages after as many as fit into one send, at least one.

    :param messages: one or more.
    :return: the messages of the send, and the others.
    """
    size = len(messages[0])
    for index, message in enumerate(itertools.islice(messages, 1, None), 1):
        size += len(message)
        if size > SEND:
            return messages[:index], messages[index:]
    return messages, messages[:0]
