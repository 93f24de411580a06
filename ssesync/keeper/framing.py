"""Messages between two processes of one host, with descriptors, over a unix socket. ``message.py`` has their format.

A reader takes bytes of one message at a time, so all descriptors that arrive meanwhile are this message's.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from ..locks import Once
from .message import (
    MAX_BLOB,
    MAX_DESCRIPTORS,
    MAX_HEAD,
    DescriptorsLost,
    Frame,
    Incoming,
    LinkError,
    LinkLost,
    LinkTimeout,
    MessageTooLarge,
    close_all,
    encode,
)

__all__ = [
    "MAX_BLOB",
    "MAX_DESCRIPTORS",
    "MAX_HEAD",
    "DescriptorsLost",
    "Frame",
    "Link",
    "LinkError",
    "LinkLost",
    "LinkTimeout",
    "MessageTooLarge",
    "close_in_child",
]

#: Seconds in which a message must be sent, and must arrive after its first byte. The other process may be suspended.
MESSAGE_TIMEOUT = 10.0

# Bytes of one system call: about as much as the kernel buffers for a unix socket by default.
_PIECE = 256 * 1024
# Seconds between two attempts to send descriptors while as many of this user's are underway as the kernel allows.
_RETRY = 0.01
# Descriptors are not inherited by programs that this process starts. Other systems have no such flag.
_FLAGS = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
# An application may have set SIGPIPE to its default, which ends the process.
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)
_ANCILLARY = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize) if hasattr(socket, "CMSG_SPACE") else 0


class Link:
    """A connection to another process. One thread at a time sends or receives; :meth:`cancel` and :meth:`close` are for
    any thread and signal handler. A forked child has the link closed.

    :param sock: a connected unix stream socket. The link owns it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._incoming = Incoming()
        self._error: LinkError | None = None  # since then no message is received
        self._is_torn = False  # whether a part of a message was sent
        self._closed = False
        self._calls: list[None] = []  # an item for each call in progress, and each hold
        #: The other process's hello, see ``peer.py``; empty before it.
        self.peer: Mapping[str, Any] = {}
        #: The version that both processes use; 0 before the hello.
        self.version = 0
        #: The number of the other process, as the kernel has it; 0 where it is not known.
        self.pid = 0
        self._pidfds: list[int] = []
        self._released = Once()
        _links.add(self)

    def send(
        self,
        head: Mapping[str, Any],
        blob: bytes = b"",
        fds: Sequence[int] = (),
        *,
        timeout: float | None = None,
    ) -> None:
        """Send a message. After an error no further message can be sent, and the other process has not received this
        one as a whole.

        :param head: values for JSON, with ``op``, and without ``fds``, which is set here.
        :param blob: bytes.
        :param fds: descriptors. They remain the caller's, and may be closed after this returns.
        :param timeout: seconds; ``None``: ``MESSAGE_TIMEOUT``.
        :raises LinkLost: the link is closed or broken. :class:`LinkTimeout`: the other process does not receive.
        :raises MessageTooLarge: nothing was sent, and the link can be used.
        """
        data = encode(head, blob, fds)
        with self.hold():
            if self._is_torn:
                raise LinkLost(errno.EPIPE, "an earlier message could not be sent to its end")
            deadline = time.monotonic() + (MESSAGE_TIMEOUT if timeout is None else timeout)
            self._is_torn = True
            left = memoryview(data)
            while left:
                sent = self._send_piece(left[:_PIECE], fds, deadline)
                left = left[sent:]
                if sent:
                    fds = ()
            self._is_torn = False

    def receive(self, timeout: float | None) -> Frame:
        """Receive the next message.

        :param timeout: seconds; 0: only what has arrived; ``None``: without a limit. A message that has begun to arrive
            must arrive within ``MESSAGE_TIMEOUT`` seconds.
        :return: the message.
        :raises LinkLost: the link is closed or broken. :class:`LinkTimeout`: no message in time; a part of one is kept
            for the next call.
        :raises LinkError: it is no message. :class:`DescriptorsLost`: it came without its descriptors.
        """
        with self.hold():
            if self._error is not None:
                raise self._error
            try:
                return self._received(None if timeout is None else time.monotonic() + timeout)
            except DescriptorsLost:
                raise
            except LinkError as error:
                self._error = error
                self._incoming.close()
                raise

    def cancel(self) -> None:
        """Abort: nothing more is sent or arrives, also for the other process. Calls in progress raise
        :class:`LinkLost`. What has arrived can still be received. Any number of times."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the link. Calls in progress raise :class:`LinkLost`, and the last of them releases the descriptor, as
        the number could become another file's. Any number of times."""
        self._closed = True
        if not self._calls:
            self._release()
        else:
            self.cancel()

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the link's descriptors meanwhile: a :meth:`close` only cancels the link, so what has arrived can be
        received. Can be nested.

        :return: a context manager.
        :raises LinkLost: the link is closed.
        """
        is_outermost = not self._calls
        self._calls.append(None)  # before the check, as close() sets the flag before its own
        try:
            if self._closed and is_outermost:
                raise LinkLost(errno.EBADF, "the link is closed")
            yield
        finally:
            self._calls.pop()
            if self._closed and not self._calls:
                self._release()

    @property
    def pidfd(self) -> int:
        """A descriptor of the other process, which is readable when that has ended; -1 where it is not known. The link
        owns it."""
        return self._pidfds[0] if self._pidfds else -1

    def set_pidfd(self, fd: int) -> None:
        """Set :attr:`pidfd`, and close the previous one.

        :param fd: the descriptor; -1: none.
        """
        close_all(self._pidfds)
        if fd >= 0:
            self._pidfds.append(fd)

    def _release(self) -> None:
        if self._released():
            self._sock.close()
            close_all(self._pidfds)

    def _send_piece(self, piece: memoryview, fds: Sequence[int], deadline: float) -> int:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        while True:
            self._limit(deadline)
            try:
                return self._sock.sendmsg([piece], ancillary, _NO_SIGNAL)
            except (BlockingIOError, TimeoutError) as error:
                raise LinkTimeout(errno.ETIMEDOUT, "the other process does not receive messages") from error
            except OSError as error:
                # As many of this user's descriptors are underway as it may have open files: to other processes too.
                if error.errno != errno.ETOOMANYREFS or time.monotonic() >= deadline:
                    raise LinkLost(error.errno, f"the link is lost: {error}") from error
            time.sleep(_RETRY)

    def _received(self, deadline: float | None) -> Frame:
        incoming = self._incoming
        while incoming.missing:
            limit = deadline
            if incoming.began:
                stalled = incoming.began + MESSAGE_TIMEOUT
                limit = stalled if deadline is None else min(stalled, deadline)
            self._limit(limit)
            try:
                data, ancillary, flags, _ = self._sock.recvmsg(min(incoming.missing, _PIECE), _ANCILLARY, _FLAGS)
            except (BlockingIOError, TimeoutError) as error:
                if incoming.began and time.monotonic() >= incoming.began + MESSAGE_TIMEOUT:
                    raise LinkError(f"a message did not arrive within {MESSAGE_TIMEOUT:g} s") from error
                raise LinkTimeout(errno.ETIMEDOUT, "the other process has sent no message in time") from error
            except OSError as error:
                incoming.close()
                raise LinkLost(error.errno, f"the link is lost: {error}") from error
            incoming.fds += _descriptors(ancillary)
            incoming.is_truncated |= bool(flags & socket.MSG_CTRUNC)
            if not data:
                incoming.close()
                where = "in the middle of a message" if incoming.began else "between messages"
                raise LinkLost(errno.ECONNRESET, f"the other process has closed the link {where}")
            incoming.add(data)
        self._incoming = Incoming()
        try:
            return incoming.frame()
        finally:
            incoming.close()  # an error's traceback would keep it

    def _limit(self, deadline: float | None) -> None:
        self._sock.settimeout(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def _release_in_child(self) -> None:
        self._closed = True
        close_in_child(self._sock.fileno(), *self._pidfds, *self._incoming.fds)


def close_in_child(*fds: int) -> None:
    """Close descriptors of the parent in a forked child. The numbers stay in use, as their objects will close them. Not
    by the sockets' methods: gevent's use the parent's event loop.

    :param fds: the descriptors; -1 is ignored.
    """
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for fd in fds:
            if fd >= 0:
                os.dup2(null, fd, inheritable=False)
        os.close(null)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) // fds.itemsize * fds.itemsize])
    if not _FLAGS:
        for fd in fds:
            os.set_inheritable(fd, False)
    return list(fds)


_links: weakref.WeakSet[Link] = weakref.WeakSet()


def _after_fork() -> None:
    for link in list(_links):
        link._release_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
