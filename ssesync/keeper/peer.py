"""The processes of one user that link with each other: where one listens, and how both check each other.

The socket lies in a folder that only its owner can enter. Both processes compare the kernel's record of the other's
user (``SO_PEERCRED``) and exchange a *hello*, which has the versions of the protocol that they use, and the logs that
they have opened. Only Linux has all of that: on other systems, :func:`listen` and :func:`connect` raise.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import excerpt
from .framing import Link, LinkError, LinkLost
from .listening import Listener, check_folder, checked_path, listen

__all__ = [
    "HELLO_TIMEOUT",
    "OLDEST",
    "VERSION",
    "Listener",
    "PeerRefused",
    "accept",
    "accept_link",
    "check_folder",
    "connect",
    "greet",
    "listen",
    "make_hello",
    "refuse",
]

#: The version of the protocol, and the oldest one that this process can use.
VERSION, OLDEST = 1, 1
#: Seconds in which a process that has connected must have sent its hello.
HELLO_TIMEOUT = 5.0

# Clients that a process receives at once. A worker receives their descriptors below the floor of detached sockets,
# where 64 are the application's reserve (``server/descriptors.py``). A keeper has no application.
_MOST = {"keeper": 250, "worker": 50}
# Bytes of the kernel's buffer: if a batch fits, its sender does not wait. The system may allow less.
_BUFFER = 1024 * 1024
# Seconds between two attempts to connect to a socket with a full backlog.
_RETRY = 0.01
_CREDENTIALS = struct.Struct("3i")


class PeerRefused(OSError):
    """The other process can't be used, or has refused this one, because of its user, its version or its hello. The
    message has the reason."""


def make_hello(role: str, logs: Iterable[str], *, stopping: bool = False) -> dict[str, Any]:
    """Make the first message of a link.

    :param role: of this process: ``worker`` or ``keeper``.
    :param logs: the epochs of the logs that it has opened, see :meth:`Broker.position`.
    :param stopping: whether it is about to end, so that it takes no clients.
    :return: the message.
    """
    return {
        "op": "hello", "version": VERSION, "oldest": OLDEST, "role": role, "pid": os.getpid(), "logs": sorted(logs),
        "stopping": stopping, "most": _MOST[role],
    }  # fmt: skip


def connect(path: str | os.PathLike[str], timeout: float, hello: Mapping[str, Any]) -> Link:
    """Connect to a process that listens, and exchange hellos.

    :param path: the socket's.
    :param timeout: seconds for all of it. A process that loads its application sends its hello afterwards.
    :param hello: of this process, see :func:`make_hello`.
    :return: the link.
    :raises PeerRefused: the other process can't be used, or refuses this one.
    :raises LinkTimeout: no hello came in time.
    :raises OSError: no process listens there.
    """
    deadline = time.monotonic() + timeout
    name = checked_path(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        while True:
            sock.settimeout(max(0.0, deadline - time.monotonic()))
            try:
                sock.connect(name)
                break
            except BlockingIOError:  # the backlog is full
                if time.monotonic() >= deadline:
                    raise
            time.sleep(_RETRY)
    except BaseException:
        sock.close()
        raise
    link = _checked(sock)
    greet(link, hello, max(0.0, deadline - time.monotonic()))
    return link


def accept(listener: Listener, hello: Mapping[str, Any]) -> Link:
    """Wait for a process that connects, and exchange hellos.

    :param listener: where.
    :param hello: of this process, see :func:`make_hello`.
    :return: the link.
    :raises PeerRefused: that process can't be used; it is sent the reason.
    :raises OSError: see :meth:`Listener.accept`.
    """
    link = accept_link(listener)
    greet(link, hello)
    return link


def accept_link(listener: Listener) -> Link:
    """Wait for a process that connects, and check its user. The caller calls :func:`greet` next, on a thread that may
    wait.

    :param listener: where.
    :return: a link without a hello.
    :raises PeerRefused: it is another user's.
    :raises OSError: see :meth:`Listener.accept`.
    """
    return _checked(listener.accept())


def greet(link: Link, hello: Mapping[str, Any], timeout: float = HELLO_TIMEOUT) -> None:
    """Exchange hellos: then ``link.peer`` is the other's, and ``link.version`` the version that both can use. After an
    error the link is closed.

    :param link: a new link.
    :param hello: of this process, see :func:`make_hello`.
    :param timeout: seconds.
    :raises PeerRefused: the other process can't be used, or refuses this one.
    :raises LinkLost: the link is lost. :class:`LinkTimeout`: no hello came in time.
    """
    lost: LinkLost | None = None
    try:
        try:
            link.send(hello)
        except LinkLost as error:  # the other process may have sent its reason before it closed the link
            lost, timeout = error, 0.0
        with link.receive(timeout) as frame:
            if frame.op == "refused":
                raise PeerRefused(errno.EACCES, f"process {link.pid} refuses this one: {frame.head.get('why')}")
            if lost is not None:
                raise lost
            link.version = _common_version(frame.head)
            link.peer = frame.head
    except LinkError as error:
        refuse(link, str(error))
        raise PeerRefused(errno.EPROTO, f"process {link.pid} can't be used: {error}") from error
    except BaseException:
        link.close()
        raise
    if link.peer["pid"] != link.pid:
        # The socket is one that another process has made, or it is of another namespace: the descriptor is not of the
        # process that uses the link.
        link.set_pidfd(-1)


def refuse(link: Link, why: str) -> None:
    """Send the reason why a process is not served, and close the link. Raises nothing.

    :param link: the link.
    :param why: the reason.
    """
    with contextlib.suppress(LinkLost):
        link.send({"op": "refused", "why": why})
    link.close()


def _checked(sock: socket.socket) -> Link:
    """Make a link of a connection of this user's, or of root's."""
    link = Link(sock)
    try:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        pid, uid, _ = _CREDENTIALS.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )  # fmt: skip
        if uid not in (os.geteuid(), 0):
            why = f"process {pid} is user {uid}'s, and this one user {os.geteuid()}'s"
            refuse(link, why)
            raise PeerRefused(errno.EACCES, why)
    except BaseException:
        link.close()
        raise
    link.pid = pid
    with contextlib.suppress(OSError):  # it has ended, or the kernel is older than 5.3, or a filter forbids it
        link.set_pidfd(os.pidfd_open(pid))
    return link


def _common_version(hello: Mapping[str, Any]) -> int:
    """Check a hello, and choose the version."""
    kinds = {"version": int, "oldest": int, "role": str, "pid": int, "logs": list, "stopping": bool}
    wrong = [name for name, kind in kinds.items() if type(hello.get(name)) is not kind]
    if hello["op"] != "hello" or wrong or not all(isinstance(each, str) for each in hello["logs"]):
        raise LinkError(f"its hello is none: {excerpt(hello, 200)}")
    version: int = min(VERSION, hello["version"])
    if version < max(OLDEST, hello["oldest"]):
        raise LinkError(
            f"it uses the versions {hello['oldest']} to {hello['version']} of the protocol, and this process "
            f"{OLDEST} to {VERSION}: upgrade the older one"
        )
    return version
