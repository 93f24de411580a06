"""send(2) without waiting, and without letting go of the interpreter's lock.

``socket.send`` lets go of it round a call of some 10 µs. With one other thread that computes, the loop then stands in
line for it after each client, 5 ms at a time: in a prototype 2,000 clients took 2.4 to 6.5 s instead of 27 ms.
``ctypes.PyDLL`` keeps the lock for the call, which never waits: 35 to 71 ms.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import socket
from collections.abc import Callable, Iterable

__all__ = ["AGAIN", "make_send", "make_send_to_all"]

logger = logging.getLogger("ssesync")

#: What :func:`make_send`'s function answers where the client takes no more now.
AGAIN = (-errno.EAGAIN, -errno.EWOULDBLOCK, -errno.ENOBUFS, -errno.EINTR)

Send = Callable[[int, bytes, int], int]
SendToAll = Callable[[Iterable[int], bytes], list[tuple[int, int]]]


@functools.cache
def make_send() -> Send:
    """A function of descriptor, bytes and their number, which gives how many of them were taken, or ``-errno``."""
    try:
        return _make_holding()
    except (ImportError, OSError, AttributeError, TypeError):
        logger.debug("the C library's send() can't be had: with busy threads beside them, detached streams are slower")
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
        raise OSError("send() does not tell what is wrong")
    return send


@functools.cache
def make_send_to_all() -> SendToAll:
    """A function of descriptors and the bytes for each, which gives those that took less, each with what
    :func:`make_send`'s answers for it.

    What is the same for all is made for C once, and errno is asked for only where there is one: half the price of a
    call.
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
            # Once more, for errno. By now it may be taken.
            if sent != size and (sent >= 0 or (sent := send(fd, data, size)) != size):
                short.append((fd, sent))
        return short

    return send_to_all


def plain_send_to_all(fds: Iterable[int], data: bytes) -> list[tuple[int, int]]:
    """The same where there is no ``ctypes``."""
    size = len(data)
    return [(fd, sent) for fd in fds if (sent := plain_send(fd, data, size)) != size]


def plain_send(fd: int, data: bytes, size: int) -> int:
    """The same where there is no ``ctypes``, for descriptors that don't block."""
    try:
        return os.write(fd, data)
    except OSError as error:
        return -(error.errno or errno.EIO)
