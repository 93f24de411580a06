"""Divides the numbers of file descriptors: detached streams' sockets have numbers above a floor, all other files of the
process have numbers below.

The kernel always chooses the lowest free number. So as long as detached sockets stay above the floor, the server can
accept clients, the application can open files, and code that uses ``select()`` has its descriptors below 1,024, however
many streams there are.

**The soft limit of open files is no limit for detached sockets.** A process may raise its soft limit up to the hard
one; services and shells usually begin with 1,024 of some 500,000. But all child processes of the application inherit a
raised limit, some of them use ``select()`` or close every number up to the limit, and :mod:`subprocess` runs no
at-fork hook that could lower it. The kernel checks the limit only when it chooses a number. So the limit is raised for
the single call that duplicates a detached socket, and lowered some microseconds later. The interpreter's lock is held
for all of that (``ctypes.PyDLL``, and ``map`` over functions that are written in C). So no other thread runs Python
code meanwhile, and the application and its children see the old limit. Two things can still happen in these
microseconds: a garbage collection up to CPython 3.11, and the start of a program, since :mod:`subprocess` releases the
lock for ``vfork()`` (seen on 3.11.7, 3.12 and 3.13, not on 3.10). That program then has the raised limit.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import select
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import SettingsError, excerpt

__all__ = ["REACH", "VARIABLE", "Division", "are_free", "capacity", "divide", "division", "duplicate", "reach"]

#: The default limit of the numbers of detached sockets, whatever the hard limit is. A client takes some 10 kB, most of
#: it the kernel's, so other limits of a process are reached before.
REACH = 65536
#: The environment variable that overrides ``REACH``. ``0`` keeps to the soft limit.
VARIABLE = "SSESYNC_OPEN_FILES"

# The limit in place of "unlimited": the kernel's default.
_UNLIMITED = 1024 * 1024
# Descriptors of the application's own: files, databases, upstreams.
_RESERVE = 64
# Descriptors that a thread uses for a moment while it hands a connection over or waits for a request.
_PER_THREAD = 4
# Open descriptors of a process if they can't be counted.
_IN_USE = 32


class Division(NamedTuple):
    """The division of this process's descriptors."""

    floor: int
    """The lowest number that a detached socket may have."""
    connections: int
    """How many connections fit below it, in addition to the open descriptors and the application's reserve."""


_division: Division | None = None


def divide(threads: int = 1, connections: int = 1) -> Division:
    """Divide this process's descriptors.

    :param threads: of the server.
    :param connections: that the server may have open at once.
    """
    global _division
    _division = _divided(threads, connections)
    return _division


def _divided(threads: int, connections: int) -> Division:
    soft, total = _soft(), reach()
    rest = _in_use() + _PER_THREAD * threads + _RESERVE
    # At most a quarter is reserved for other files than detached streams, or 128 if that is more, but at most a half.
    floor = min(rest + connections, max(min(128, total // 2), total // 4), soft)
    return Division(floor, max(threads, floor - rest))


def division() -> Division:
    """Get the division of this process's descriptors. Before :func:`divide` it is the one for an unknown server.

    :return: the division.
    """
    return _division or _divided(1, 1)


def capacity() -> int | None:
    """Count the numbers for detached sockets.

    :return: their count; ``None`` if a process has no such limit (Windows).
    """
    limits = _limits()
    return None if limits is None else max(1, _reach(limits) - division().floor)


def reach() -> int:
    """Get the limit for the numbers of detached sockets.

    :return: one more than the highest number.
    :raises SettingsError: the environment variable :data:`VARIABLE` is no number.
    """
    limits = _limits()
    return _UNLIMITED if limits is None else _reach(limits)


def _reach(limits: tuple[int, int]) -> int:
    soft, hard = limits
    if not hasattr(select, "epoll") or _native() is None:
        return soft  # poll() takes no more descriptors than the soft limit
    return max(soft, min(hard, _wanted(os.environ.get(VARIABLE, ""))))


def duplicate(fd: int) -> int:
    """Make another descriptor of the same socket, above the floor. Child processes don't inherit it.

    :param fd: the socket's descriptor.
    :return: the new one.
    :raises OSError: there is no free number above the floor.
    """
    try:
        import fcntl
        import resource
    except ImportError:  # not a POSIX system
        return os.dup(fd)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # once: each call of it is one of the system
    finite = _finite(soft), _finite(hard)
    native, floor, most = _native(), division().floor, _reach(finite)
    if native is None or most <= finite[0]:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, floor)
    limit, call, get_errno = resource.RLIMIT_NOFILE, native.fcntl, native.get_errno
    call_each: Callable[[Any], Any] = functools.partial.__call__
    steps: tuple[Callable[[], Any], ...] = (  # called by map(), in C alone
        functools.partial(resource.setrlimit, limit, (most, hard)),
        functools.partial(call, fd, fcntl.F_DUPFD_CLOEXEC, floor),
        functools.partial(get_errno),
        functools.partial(resource.setrlimit, limit, (soft, hard)),
    )
    try:
        _, made, number, _ = list(map(call_each, steps))
    except ValueError as error:  # the hard limit was lowered since it was read
        raise OSError(errno.EMFILE, f"the limit of open files can't be raised to {most}") from error
    if made < 0:
        raise OSError(number, os.strerror(number))
    return int(made)


def are_free(count: int, fd: int) -> bool:
    """Check whether so many descriptors are free. That takes some microseconds. The interpreter's lock is kept, as the
    thread would have to wait for it eight times while other threads compute.

    :param count: how many.
    :param fd: an open descriptor.
    :return: whether they are free.
    """
    native = _native()
    if native is None:
        return True
    made: list[int] = []
    while len(made) < count and (copy := native.fcntl(fd, native.command, 0)) >= 0:
        made.append(copy)
    for copy in made:
        native.close(copy)
    return len(made) == count


def _limits() -> tuple[int, int] | None:
    try:
        import resource
    except ImportError:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _finite(soft), _finite(hard)


def _finite(limit: int) -> int:
    """Get a limit as a number: the system's constant for "unlimited" is negative, or very large."""
    return limit if 0 <= limit < 1 << 62 else _UNLIMITED


def _soft() -> int:
    limits = _limits()
    return _UNLIMITED if limits is None else limits[0]


def _wanted(text: str) -> int:
    if not text:
        return REACH
    if not (text.isascii() and text.isdigit()):
        raise SettingsError(
            f"the environment variable {VARIABLE} takes a number of open files, or 0 for the soft limit, "
            f"got {excerpt(text)}"
        )
    return int(text)


def _in_use() -> int:
    for folder in (Path("/proc/self/fd"), Path("/dev/fd")):
        with contextlib.suppress(OSError):
            return sum(1 for _ in folder.iterdir())
    return _IN_USE


class _Native(NamedTuple):
    """The system's calls, without releasing the interpreter's lock."""

    fcntl: Callable[[int, int, int], int]
    close: Callable[[int], int]
    get_errno: Callable[[], int]
    command: int
    """``F_DUPFD_CLOEXEC``."""


@functools.cache
def _native() -> _Native | None:
    """Load the calls.

    :return: the calls; ``None`` if they are missing, or don't report errors.
    """
    try:
        import ctypes
        import fcntl

        library = ctypes.PyDLL(None, use_errno=True)
        call, close = library.fcntl, library.close
        call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int)
        close.argtypes = (ctypes.c_int,)
        call.restype = close.restype = ctypes.c_int
        works = call(-1, fcntl.F_GETFD, 0) == -1 and ctypes.get_errno() == errno.EBADF
    except (ImportError, OSError, AttributeError, TypeError):
        return None
    return _Native(call, close, ctypes.get_errno, fcntl.F_DUPFD_CLOEXEC) if works else None


def _after_fork() -> None:
    global _division
    _division = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
