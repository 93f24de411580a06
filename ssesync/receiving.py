"""recv(2) without waiting and without releasing the interpreter's lock; see ``detached/sending.py`` for why."""

from __future__ import annotations

import errno
import functools
import logging
import os
import socket
from collections.abc import Callable

__all__ = ["AGAIN", "PIECE", "Receive", "make_receive"]

logger = logging.getLogger("ssesync")

#: The results of :func:`make_receive`'s function if there is nothing to receive now.
AGAIN = (-errno.EAGAIN, -errno.EWOULDBLOCK, -errno.EINTR)
#: Bytes that are received at a time.
PIECE = 65536

Receive = Callable[[int], "bytes | int"]


@functools.cache
def make_receive() -> Receive:
    """Make the function that receives. For one thread at a time: the reactor's.

    :return: a function of a descriptor, which returns the next bytes, at most :data:`PIECE`, ``b""`` if the peer has
        ended, or ``-errno``.
    """
    try:
        return _make_holding()
    except (ImportError, OSError, AttributeError, TypeError):
        logger.debug("the C library's recv() is not available: relays are slower while other threads compute")
        return plain_receive


def _make_holding() -> Receive:
    import ctypes

    native = ctypes.PyDLL(None, use_errno=True).recv
    native.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    native.restype = ctypes.c_ssize_t
    get_errno, flags = ctypes.get_errno, socket.MSG_DONTWAIT
    buffer = ctypes.create_string_buffer(PIECE)
    address, view = ctypes.addressof(buffer), memoryview(buffer).cast("B")

    def receive(fd: int) -> bytes | int:
        size: int = native(fd, address, PIECE, flags)
        return view[:size].tobytes() if size >= 0 else -get_errno()

    if receive(-1) != -errno.EBADF:
        raise OSError("recv() does not report errors")
    return receive


def plain_receive(fd: int) -> bytes | int:
    """The same without ``ctypes``, for descriptors that don't block."""
    try:
        return os.read(fd, PIECE)
    except OSError as error:
        return -(error.errno or errno.EIO)
