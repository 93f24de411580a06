"""The file of the SQLite broker: opened, checked and closed so that no fork, crash or deletion corrupts it.

SQLite blocks every greenlet while it waits for a lock, so this module waits in its place. A connection that is open
during a fork breaks the locking of both processes: so connections are closed before a fork.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from ....errors import BrokerDamaged, BrokerError, BrokerUnavailable
from ....locks import is_owned
from ..connection import ExclusiveConnection
from .schema import is_current, make_tables

__all__ = ["Handle"]

T = TypeVar("T")

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Handle(ExclusiveConnection):
    """One connection to the file.

    :param path: the file. It is made if it does not exist; its directory is not.
    :param busy_timeout: seconds to wait for other processes' locks.
    :param existed: set as soon as the file exists, by any of the handles that share it. A file that does not exist
        after that was deleted.
    """

    def __init__(self, path: Path, busy_timeout: float, existed: threading.Event) -> None:
        super().__init__()
        self._path = path
        self._busy_timeout = busy_timeout
        self._existed = existed
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None  # device and inode
        self._state: tuple[int, int] | None = None  # when the file itself was last written, and its size

    @contextlib.contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """A transaction: committed at the end, rolled back on any error.

        :param write: it writes: wait for the lock at the beginning.
        :return: a context manager that gives the connection.
        :raises BrokerError: the transaction failed and was rolled back.
        """
        began = time.monotonic()
        # The thread that has the connection may wait for another process, and this one waits as well: the two waits
        # together may take busy_timeout seconds.
        with self._exclusively(self._busy_timeout if write else -1):
            connection = self._current()
            try:
                self.retry_while_busy(lambda: connection.execute("BEGIN IMMEDIATE" if write else "BEGIN"), began)
                yield connection
                connection.execute("COMMIT")
            except BaseException as error:
                with contextlib.suppress(sqlite3.Error):
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                if not isinstance(error, sqlite3.Error):
                    raise
                translated = self._translated(error)
                if isinstance(translated, BrokerDamaged):
                    self._disconnect()
                raise translated from error

    def data_version(self) -> tuple[object, ...]:
        """Read a version of the file's content.

        :return: a value that changes when another connection has written to the file, or the file was replaced.
        :raises BrokerError: the file can't be read.
        """
        with self._exclusively(-1):
            try:
                row = self._current().execute("PRAGMA data_version").fetchone()
            except sqlite3.Error as error:
                raise self._translated(error) from error
            return (row[0], self._file)

    def before_fork(self) -> Callable[[], str]:
        """Close the connection, and keep it closed until the process has forked.

        :return: a function to be called after the fork; it returns an error to be logged, or ``""``.
        """
        # A signal handler that forks may have interrupted this thread while it held the lock.
        if is_owned(self._lock) or not self._lock.acquire(timeout=5):
            return lambda: f"{self._path} is open while the process forks: both processes may corrupt it"
        self._disconnect()

        def release() -> str:
            self._lock.release()
            return ""

        return release

    def _current(self) -> sqlite3.Connection:
        """The connection to the file that the path leads to now."""
        status = file = None
        with contextlib.suppress(OSError):
            status = self._path.stat()
            file = (status.st_dev, status.st_ino)
        if self._connection is not None and status is not None and file == self._file:
            if _state_of(status) != self._state:
                self._check_header()
                self._state = _state_of(status)
                # SQLite's cache may be outdated. Without it SQLite reads the file again, and reports its errors.
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("PRAGMA shrink_memory")
            return self._connection
        self._disconnect()
        if file is None and self._existed.is_set():
            raise BrokerDamaged(
                f"{self._path} was deleted while it was in use: restart the processes that use it, to make a new one"
            )
        try:
            self._check_header()
            self._connection = self._opened()
            status = self._path.stat()
        except sqlite3.Error as error:
            raise self._translated(error) from error
        except OSError as error:
            raise BrokerUnavailable(f"can't open {self._path}: {error}") from error
        self._file, self._state = (status.st_dev, status.st_ino), _state_of(status)
        self._existed.set()
        return self._connection

    def _check_header(self) -> None:
        """Check that the file is still a database.

        SQLite appends events to the file's -wal, and writes the file itself only at a checkpoint, after a thousand
        pages or so. If another program has overwritten the file, SQLite does not notice as long as it finds the pages
        that it needs in its cache or in the -wal. So an immutable connection reads the file's header. A connection of
        SQLite's is needed, since closing any other descriptor of the file releases the locks of all of them
        (https://www.sqlite.org/howtocorrupt.html, section 2.2).
        """
        try:
            uri = f"{self._path.as_uri()}?mode=ro&immutable=1"
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=0)) as connection:
                connection.execute("PRAGMA schema_version").fetchone()
            wal = self._path.with_name(f"{self._path.name}-wal")
            if self._path.stat().st_size or not wal.stat().st_size:
                return
            text = "file is empty"
        except (sqlite3.Error, OSError) as error:
            text = str(error)
            if "not a database" not in text:
                return  # for example a page that is being written now; a real error is reported at the next use
        self._disconnect()
        raise self._translated(sqlite3.DatabaseError(text))

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._file = None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _opened(self) -> sqlite3.Connection:
        with _directory_lock(self._path.parent, self._busy_timeout):
            if not self._path.exists():
                # Of a file that was deleted: SQLite would use them for the new one.
                for suffix in ("-wal", "-shm"):
                    self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            connection = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
            try:
                mode = self.retry_while_busy(lambda: connection.execute("PRAGMA journal_mode=WAL").fetchone())
                if mode != ("wal",):
                    raise BrokerUnavailable(f"{self._path} can't be opened by several processes: not on a local disk?")
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.execute("PRAGMA journal_size_limit=4194304")
                self._make_tables(connection)
            except BaseException:
                connection.close()
                raise
            return connection

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else None
        if is_current(connection, boot):
            return
        self.retry_while_busy(lambda: connection.execute("BEGIN IMMEDIATE"))
        make_tables(connection, boot)
        connection.execute("COMMIT")

    def retry_while_busy(self, action: Callable[[], T], since: float | None = None) -> T:
        """Call a function until it succeeds, while another process holds SQLite's lock.

        :param action: the function.
        :param since: when the wait began, on the monotonic clock; ``None``: now.
        :return: the function's result.
        :raises sqlite3.Error: what the function raises.
        """
        deadline = (time.monotonic() if since is None else since) + self._busy_timeout
        pause = 0.0005
        while True:
            try:
                return action()
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() >= deadline:
                    raise
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, 0.02)

    def _in_use(self, timeout: float) -> BrokerUnavailable:
        return BrokerUnavailable(f"{self._path} has been locked by another process for {self._busy_timeout} s")

    def _translated(self, error: sqlite3.Error) -> BrokerError:
        """The library's error in place of SQLite's."""
        text = str(error)
        if _is_busy(error):
            return self._in_use(self._busy_timeout)
        if "full" in text:
            return BrokerUnavailable(f"the disk that {self._path} is on is full: nothing was published ({text})")
        if "unable to open" in text:
            hint = "" if self._path.parent.is_dir() else ": there is no such directory"
            return BrokerUnavailable(f"can't open {self._path}{hint} ({text})")
        if "readonly" in text:
            return BrokerUnavailable(f"can't write to {self._path} or to the directory it is in ({text})")
        if isinstance(error, sqlite3.OperationalError) and "no such" not in text and "malformed" not in text:
            return BrokerUnavailable(f"{self._path} can't be read or written: {text}")
        return BrokerDamaged(
            f"{self._path} is corrupt or no log of ssesync ({text}): stop the processes that use it, delete it "
            "together with its -wal and -shm, and start them again; subscribers then get a reset event"
        )


def _state_of(status: os.stat_result) -> tuple[int, int]:
    return status.st_mtime_ns, status.st_size


def _is_busy(error: Exception) -> bool:
    return "locked" in str(error) or "busy" in str(error)


@contextlib.contextmanager
def _directory_lock(directory: Path, timeout: float) -> Iterator[None]:
    """Prevent other processes from opening a file in a directory, so that only one of them makes it."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    try:
        fd = os.open(directory, os.O_RDONLY)
    except OSError:
        yield  # SQLite's own error is clearer
        return
    try:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.005)
            except OSError:
                break  # a file system without such locks
        yield
    finally:
        os.close(fd)
