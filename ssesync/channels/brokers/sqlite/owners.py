"""The owners of runs in an SQLite file: other processes notice at once that one has ended, however it was ended.

Each owner locks a byte of a file beside the database. The system unlocks it when the process ends. Where there are no
such locks, or the file was replaced, an owner is gone when its lease is over. An owner that holds its byte but has not
renewed its lease is gone, too: it is halted, and the clients of its runs are not to wait for ever.

The locks are those of ``fcntl``: a forked child does not have those of its parent, and a process loses all of its locks
in a file as soon as it closes *any* descriptor of that file. So a process has one descriptor of each such file, in
which the locks of all its brokers are, and never closes it. A lock of one's own process is never in the way: so
a process must know the bytes that it has locked.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from . import runs
from .file import Handle

__all__ = ["LockFile", "OwnerLocks", "lock_file"]

# Names that are remembered to be spent. A process takes a new one, and does not ask for the one before again.
_SPENT = 100
# Seconds by which two processes may see the clock differ.
_SLACK = 1.0


class LockFile:
    """The file with the locked bytes, in this process.

    :param descriptor: of the file.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.pid = os.getpid()
        #: Its inode, as text: an owner's row has it.
        self.id = str(os.fstat(descriptor).st_ino)
        self._locked: set[int] = set()

    def lock(self, number: int) -> bool:
        """Lock a byte, or make sure that it is locked.

        :param number: its position.
        :return: whether it is locked.
        """
        import fcntl

        self._locked.add(number)  # before others can find it locked
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except OSError:  # a file system without such locks
            self._locked.discard(number)
            return False
        return True

    def unlock(self, number: int) -> None:
        """Unlock a byte of this process.

        :param number: its position.
        """
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, number)
        self._locked.discard(number)

    def is_free(self, number: int) -> bool:
        """Whether no process has locked a byte.

        :param number: its position.
        :return: whether it is known that none has.
        """
        import fcntl

        if number in self._locked:
            return False
        try:
            # Shared: two processes that try at the same time are not in each other's way.
            fcntl.lockf(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, number)
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, number)
        except OSError:
            return False
        return True

    def reopened(self) -> LockFile:
        """The same file in a forked child, which has locked nothing.

        :return: the object for this process.
        """
        return LockFile(self._descriptor)


# One for each path. See the module for why none is closed.
_files: dict[Path, LockFile] = {}


def lock_file(database: Path) -> LockFile | None:
    """Open the file with the locked bytes. It is made if it does not exist.

    :param database: the database's path.
    :return: the file; ``None`` if there are no such locks, or it can't be opened.
    """
    path = database.with_name(f"{database.name}-owners")
    try:
        import fcntl  # noqa: F401 - not on all systems
    except ImportError:
        return None
    known = _files.get(path)
    try:
        if known is not None and known.id == str(path.stat().st_ino):
            if known.pid != os.getpid():
                known = _files[path] = known.reopened()
            return known
    except FileNotFoundError:
        pass
    try:
        opened = LockFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, database.stat().st_mode & 0o666))
    except OSError:
        return None
    if known is None:
        # Another thread may have been faster. Then this descriptor stays open, too.
        return _files.setdefault(path, opened)
    _files[path] = opened
    return opened


class OwnerLocks:
    """The owners of a broker, and how it finds that others are gone.

    :param database: the database's path.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._added: dict[str, int] = {}  # by their names, the numbers of those that were added here
        self._held: dict[int, LockFile] = {}  # the locked bytes
        self._spent: deque[str] = deque(maxlen=_SPENT)  # names that are not added again

    def renew(self, handle: Handle, owner: str, lease: float) -> bool:
        """See :class:`ssesync.channels.backend.Backend`.

        :param handle: the connection that writes.
        """
        if owner in self._spent:
            return False
        if owner not in self._added:
            self._add(handle, owner, lease)
            return True
        with handle.transaction(write=True) as connection:
            number = runs.renew_owner(connection, owner, lease, time.monotonic())
        if number and number in self._held:  # if other code has closed a descriptor of the file, it has unlocked it
            self._held[number].lock(number)
        if not number:
            self._spent.append(owner)
            self._unlock(self._added.pop(owner))
        return number > 0

    def _add(self, handle: Handle, owner: str, lease: float) -> None:
        number = 0
        try:
            with handle.transaction(write=True) as connection:
                file = lock_file(self._database)  # here, as the database is there now
                now = time.monotonic()
                number = runs.renew_owner(connection, owner, lease, now)  # if another broker has added it
                if number:
                    self._added[owner] = number
                    return
                number = runs.add_owner(connection, owner, lease, now)
                if file is not None and file.lock(number):
                    self._held[number] = file
                    runs.set_file(connection, number, file.id)
        except BaseException:
            self._unlock(number)  # it is not used, and another owner may get it
            raise
        self._added[owner] = number

    def _unlock(self, number: int) -> None:
        file = self._held.pop(number, None)
        if file is not None:
            file.unlock(number)

    def gone(self, owners: Iterable[runs.Owner]) -> list[runs.Owner]:
        """Find the owners that are gone. One of this broker never is.

        :param owners: all owners.
        :return: those that are gone.
        """
        others = [each for each in owners if each.owner not in self._added]
        file = lock_file(self._database) if others else None
        return [each for each in others if not self._has_lease(each) or self._has_ended(each, file)]

    def release(self) -> None:
        """Unlock all bytes. Any number of times, perhaps by a signal handler."""
        for number in list(self._held):
            self._unlock(number)

    @staticmethod
    def _has_lease(owner: runs.Owner) -> bool:
        # After a restart of the machine its clock may be before what it has shown when the lease was renewed.
        return time.monotonic() <= owner.until <= time.monotonic() + owner.lease + _SLACK

    @staticmethod
    def _has_ended(owner: runs.Owner, file: LockFile | None) -> bool:
        return file is not None and owner.file == file.id and file.is_free(owner.number)
