"""Batches: the messages that a broadcast group sends at a time, if not all clients have the same channels.

Messages are in the order of the log, each for the clients that have its channel. Clients that have the same subset of a
batch's channels get the same bytes. So a batch is divided by these subsets, and all its messages for a client are one
send.
"""

from __future__ import annotations

import itertools
import operator
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator

from ..detached.pieces import SEND
from .message import Message

__all__ = ["next_batch"]

# Messages of a batch, and sends beyond those of its first channel: the reactor's thread has other tasks too.
_MESSAGES, _SENDS = 1000, 2000

FdsOf = Callable[[str], Collection[int]]
Part = tuple[list[Message], Collection[int]]
"""Messages in the order of the log, and the descriptors of the clients that get exactly these."""


def next_batch(
    waiting: deque[Message], fds_of: FdsOf, ends_clients: Callable[[Message], bool] | None = None
) -> tuple[list[Message], list[Part]]:
    """Take the next messages, at least one, and divide them.

    Each channel has at most ``SEND`` bytes in it, unless one message is longer.

    :param waiting: the messages that wait; not empty.
    :param fds_of: returns the descriptors of all clients of a channel. The parts may contain the collection itself.
    :param ends_clients: whether a message is the last one for a client. Then it is the last one of the batch.
    :return: the messages, and the parts. A descriptor is in one part at most; a message of a channel without clients
        is in none.
    """
    messages: list[Message] = []
    found: dict[str, tuple[Collection[int], list[Message]]] = {}
    sizes: dict[str, int] = {}
    sends = 0
    while waiting and len(messages) < _MESSAGES:
        message = waiting[0]
        channel = message.channel
        if channel in found:
            if sizes[channel] + len(message) > SEND:
                break
        else:
            fds = fds_of(channel)
            sends += len(fds)
            if found and sends > _SENDS:
                break
            found[channel], sizes[channel] = (fds, []), 0
        found[channel][1].append(message)
        sizes[channel] += len(message)
        messages.append(waiting.popleft())
        if ends_clients is not None and ends_clients(message):
            break
    return messages, list(_divided([each for each in found.values() if each[0]]))


def _divided(found: list[tuple[Collection[int], list[Message]]]) -> Iterator[Part]:
    if not found:
        return
    # The largest first: if it is the only one, no client is examined.
    found.sort(key=lambda each: len(each[0]), reverse=True)
    most = found[0][0]
    if all(fds == most for fds, _ in found):
        yield _in_order([messages for _, messages in found]), most
        return
    # A number for each client, with a bit for each of these channels.
    channels = dict.fromkeys(most, 1)
    for number, (fds, _) in enumerate(found[1:], 1):
        bit = 1 << number
        for fd in fds:
            channels[fd] = channels.get(fd, 0) | bit
    parts: defaultdict[int, list[int]] = defaultdict(list)
    for fd, bits in channels.items():
        parts[bits].append(fd)
    for bits, members in parts.items():
        those = []
        while bits:
            last = bits & -bits
            those.append(found[last.bit_length() - 1][1])
            bits ^= last
        yield _in_order(those), members


def _in_order(lists: list[list[Message]]) -> list[Message]:
    if len(lists) == 1:
        return lists[0]
    return sorted(itertools.chain.from_iterable(lists), key=operator.attrgetter("seq"))
