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
from collections.abc import Callable

__all__ = ["AGAIN", "make_send"]

logger = logging.getLogger("ssesync")

#: What :func:`make_send`'s function answers where the client takes no more now.
AGAIN = (-errno.EAGAIN, -errno.EWOULDBLOCK, -errno.ENOBUFS, -errno.EINTR)

Send = Callable[[int, bytes, int], int]


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


def plain_send(fd: int, data: bytes, size: int) -> int:
    """The same where there is no ``ctypes``, for descriptors that don't block."""
    try:
        return os.write(fd, data)
    except OSError as error:
        return -(error.errno or errno.EIO)
