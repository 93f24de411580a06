"""Where a process listens for others of the same user: a socket in a folder that only its owner can enter.

A lock decides which process listens at a path. It is on a file beside the socket, and lasts as long as a process has
the descriptor: the kernel releases it when the process ends, and it passes to another process with the descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
import weakref
from pathlib import Path

from ..locks import Once
from .framing import close_in_child

__all__ = ["Listener", "check_folder", "checked_path", "listen"]

_BACKLOG = 128
# Attempts to lock a file that other processes remove meanwhile.
_ATTEMPTS = 20
# Bytes of a socket's path: ``sun_path`` of Linux without its terminating zero.
_MAX_PATH = 107


class Listener:
    """A listening socket with its lock: while a process holds the lock, no other one listens at the path. A forked
    child has both closed. Made by :func:`listen` and :meth:`adopt`.

    :param path: the socket's.
    :param sock: the socket, which is bound to the path.
    :param lock: the descriptor of the locked file ``path + ".lock"``.
    :raises OSError: the path is gone, or there are no more descriptors.
    """

    def __init__(self, path: str, sock: socket.socket, lock: int) -> None:
        self.path = path
        self.socket = sock
        self.lock = lock
        self._identity = _identity(Path(path).stat())
        # Also where another process has called it: processes that connect get the last caller's credentials.
        sock.listen(_BACKLOG)
        sock.settimeout(0)
        self._closing, self._released = Once(), Once()
        self._calls: list[None] = []  # an item for each call of accept() in progress
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        _listeners.add(self)

    @classmethod
    def adopt(cls, path: str, fd: int, lock: int) -> Listener:
        """Continue with the descriptors of another process's listener. Processes that connect meanwhile wait.

        :param path: the socket's.
        :param fd: the socket. The listener owns it.
        :param lock: the locked file. The listener owns it.
        :return: the listener.
        :raises OSError: it does not listen there, or the path is gone. The descriptors are closed.
        """
        sock: socket.socket | None = None
        try:
            sock = socket.socket(fileno=fd)
            if sock.family != socket.AF_UNIX or sock.getsockname() != path:
                raise OSError(errno.EINVAL, f"the socket does not listen at {path}")
            return cls(path, sock, lock)
        except OSError:
            os.close(fd) if sock is None else sock.close()
            os.close(lock)
            raise

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closing.done

    def accept(self) -> socket.socket:
        """Wait for a process that connects. Several threads may wait.

        :return: its socket.
        :raises OSError: the listener is closed; or the connection can't be accepted (``EMFILE``): it waits.
        """
        self._calls.append(None)  # before the check, as close() makes its own after it has set the flag
        try:
            poll = select.poll()
            while not self._closing.done:
                with contextlib.suppress(BlockingIOError, ConnectionAbortedError):  # another process has accepted it
                    return self.socket.accept()[0]
                poll.register(self.socket.fileno(), select.POLLIN)
                poll.register(self._wakeup, select.POLLIN)
                poll.poll()
            raise OSError(errno.EBADF, f"the listener at {self.path} is closed")
        finally:
            self._calls.pop()
            if self._closing.done and not self._calls:
                self._release()

    def close(self, *, remove: bool = True) -> None:
        """Stop listening. Calls of :meth:`accept` raise, and the last of them releases the descriptors. Any thread, any
        signal handler, any number of times.

        :param remove: remove the files of the socket and of the lock. Not if another process continues with the
            descriptors.
        """
        if not self._closing():
            return
        if remove:
            # While the lock is held. Another process that has opened the lock's file finds that it is gone.
            with contextlib.suppress(OSError):
                if _identity(Path(self.path).stat()) == self._identity:
                    Path(self.path).unlink()
                    _lock_of(self.path).unlink()
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wakeup, 1)
        if not self._calls:
            self._release()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _release(self) -> None:
        if self._released():
            self.socket.close()
            os.close(self.lock)
            os.close(self._wakeup)

    def _release_in_child(self) -> None:
        if not self._released.done:
            close_in_child(self.socket.fileno(), self.lock, self._wakeup)


def listen(path: str | os.PathLike[str]) -> Listener:
    """Listen at a path, in a folder that only this user can enter. The folder is made if it is missing. A socket that
    an earlier process has left there is removed.

    :param path: the socket's.
    :return: the listener.
    :raises BlockingIOError: another process listens there.
    :raises PermissionError: the folder is another user's, or others can enter it.
    :raises OSError: the system can't do that.
    """
    import fcntl

    name = checked_path(path)
    check_folder(Path(name).parent)
    with contextlib.ExitStack() as undo:
        for _ in range(_ATTEMPTS):
            lock = os.open(_lock_of(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            undo.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _identity(os.fstat(lock)) == _identity(_lock_of(name).stat()):
                    break
            except BlockingIOError as error:
                raise BlockingIOError(errno.EADDRINUSE, f"another process listens at {name}") from error
            except FileNotFoundError:
                pass
            undo.close()  # the file was removed by its last owner
        else:
            raise BlockingIOError(errno.EADDRINUSE, f"{_lock_of(name)} is removed again and again")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        undo.callback(sock.close)
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(Path(name).lstat().st_mode):
                raise FileExistsError(errno.EEXIST, f"{name} is no socket: choose another path, or remove it")
            Path(name).unlink()
        sock.bind(name)
        Path(name).chmod(0o600)
        listener = Listener(name, sock, lock)
        undo.pop_all()
    return listener


def check_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder that only this user can enter, or check that it is one. Its parent must exist.

    :param path: the folder's.
    :raises PermissionError: it is another user's, or others can enter it.
    :raises NotADirectoryError: it is no folder, or a symbolic link.
    :raises OSError: it can't be made.
    """
    folder = Path(path)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, f"{folder} is no folder, or a symbolic link")
    if found.st_uid != os.geteuid():
        raise PermissionError(errno.EACCES, f"the folder {folder} belongs to user {found.st_uid}, not to this one")
    if found.st_mode & 0o077:
        raise PermissionError(
            errno.EACCES,
            f"other users can enter the folder {folder}: its mode must be 0700 (RuntimeDirectoryMode=0700 of systemd)",
        )


def checked_path(path: str | os.PathLike[str]) -> str:
    """Check a socket's path.

    :param path: the path.
    :return: the absolute path.
    :raises OSError: no socket can have it, or the system has none.
    """
    name = os.path.abspath(path)  # noqa: PTH100 - Path.absolute() keeps ".."
    if not hasattr(socket, "SO_PEERCRED"):
        raise OSError(errno.ENOTSUP, "clients are passed to other processes only on Linux")
    if len(os.fsencode(name)) > _MAX_PATH:
        raise OSError(errno.ENAMETOOLONG, f"the path of a unix socket can have {_MAX_PATH} bytes: {name}")
    return name


def _lock_of(path: str) -> Path:
    return Path(path + ".lock")


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


_listeners: weakref.WeakSet[Listener] = weakref.WeakSet()


def _after_fork() -> None:
    for listener in list(_listeners):
        listener._release_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
