"""send(2) without waiting and without releasing the interpreter's lock, and the bytes that it did not take.

``socket.send`` releases the lock for a call of some 10 µs. With one other thread that computes, the reactor then waits
for the lock after each client, 5 ms at a time: in a prototype 2,000 clients took 2.4 to 6.5 s instead of 27 ms.
``ctypes.PyDLL`` keeps the lock for the call, which never waits: 35 to 71 ms.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable

__all__ = ["AGAIN", "PIECE", "Send", "SendToAll", "Unsent", "make_send", "make_send_to_all"]

logger = logging.getLogger("ssesync")

#: The results of :func:`make_send`'s function if the client accepts no more bytes now.
AGAIN = (-errno.EAGAIN, -errno.EWOULDBLOCK, -errno.ENOBUFS, -errno.EINTR)

#: Unsent bytes of a client that are passed to send() at a time. They are copied for the call; the unsent bytes
#: themselves are shared by all clients of a group.
PIECE = 65536

Send = Callable[[int, bytes, int], int]
SendToAll = Callable[[Iterable[int], bytes], list[tuple[int, int]]]


@functools.cache
def make_send() -> Send:
    """Make the function that sends.

    :return: a function of descriptor, bytes and their number, which returns how many were accepted, or ``-errno``.
    """
    try:
        return _make_holding()
    except (ImportError, OSError, AttributeError, TypeError):
        logger.debug("the C library's send() is not available: detached streams are slower while other threads compute")
        return plain_send


def _make_holding() -> Send:
    import ctypes

    native = ctypes.PyDLL(None, use_errno=True).send
    native.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
    native.restype = ctypes.c_ssize_t
    get_errno = ctypes.get_errno
    flags = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0)

    def send(fd: int, data: bytes, size: int) -> int:
        sent: int = native(fd, data, size, flags)
        return sent if sent >= 0 else -get_errno()

    if send(-1, b"", 0) != -errno.EBADF:
        raise OSError("send() does not report errors")
    return send


@functools.cache
def make_send_to_all() -> SendToAll:
    """Make the function that sends the same to many: half the cost of a call of :func:`make_send`'s for each, as the
    arguments are converted for C once, and errno is read only after an error.

    :return: a function of descriptors and bytes, which returns the descriptors that did not accept all, each with the
        result of :func:`make_send`'s function.
    """
    send = make_send()
    if send is plain_send:
        return plain_send_to_all
    import ctypes

    native = ctypes.PyDLL(None).send
    native.restype = ctypes.c_ssize_t
    flags = ctypes.c_int(socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0))

    def send_to_all(fds: Iterable[int], data: bytes) -> list[tuple[int, int]]:
        size, short = len(data), []
        text, length = ctypes.c_char_p(data), ctypes.c_size_t(size)
        for fd in fds:
            sent = native(fd, text, length, flags)
            # Once more, for errno. By now the socket may be writable.
            if sent != size and (sent >= 0 or (sent := send(fd, data, size)) != size):
                short.append((fd, sent))
        return short

    return send_to_all


def plain_send_to_all(fds: Iterable[int], data: bytes) -> list[tuple[int, int]]:
    """The same without ``ctypes``."""
    size = len(data)
    return [(fd, sent) for fd in fds if (sent := plain_send(fd, data, size)) != size]


def plain_send(fd: int, data: bytes, size: int) -> int:
    """The same without ``ctypes``, for descriptors that don't block."""
    try:
        return os.write(fd, data)
    except OSError as error:
        return -(error.errno or errno.EIO)


class Unsent:
    """The bytes that a client has not accepted yet. They are not copied: the clients that have not accepted a broadcast
    share its bytes."""

    __slots__ = ("pieces", "since", "taken", "timeout")

    def __init__(self, data: memoryview, timeout: float | None) -> None:
        self.timeout = timeout
        self.pieces = [data]
        self.since = time.monotonic()  # when it began to wait, or the client last accepted another 64 kB
        self.taken = 0  # bytes since then

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    def drop(self, size: int) -> None:
        """Remove bytes of the first piece, which the client has accepted.

        :param size: how many.
        """
        self.taken += size
        if self.taken >= PIECE:
            self.since, self.taken = time.monotonic(), 0
        first = self.pieces[0]
        if size < len(first):
            self.pieces[0] = first[size:]
        else:
            del self.pieces[0]

    def has_stalled(self, now: float) -> bool:
        """Whether the client has taken longer than ``send_timeout`` for 64 kB."""
        return self.timeout is not None and now - self.since > self.timeout
