"""The file of the SQLite broker: opened, watched and let go of so that no fork, crash or deletion corrupts it.

SQLite's own way of waiting for a lock blocks every greenlet, so waiting is done here. A connection that is carried
over a fork breaks the locking of both processes: so none is open while a process forks.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from ....errors import BrokerDamaged, BrokerError, BrokerUnavailable
from ....locks import make_lock
from ...reentry import entered, entered_or_inside, is_inside

__all__ = ["SCHEMA", "Handle"]

T = TypeVar("T")

SCHEMA = """
CREATE TABLE IF NOT EXISTS ssesync_meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ssesync_channel (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, events INTEGER NOT NULL, bytes INTEGER NOT NULL,
    trimmed INTEGER NOT NULL, tail INTEGER NOT NULL, at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS ssesync_channel_tail ON ssesync_channel (tail);
CREATE TABLE IF NOT EXISTS ssesync_event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, channel INTEGER NOT NULL, at REAL NOT NULL, body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS ssesync_event_channel ON ssesync_event (channel, seq);
CREATE TABLE IF NOT EXISTS ssesync_presence (
    channel TEXT NOT NULL, process TEXT NOT NULL, subscribers INTEGER NOT NULL, seen REAL NOT NULL,
    PRIMARY KEY (channel, process)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ssesync_claim (name TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
"""
# After a crash of the machine the last transactions may be gone, and their numbers must not be given out again: by so
# much they go on higher.
_LEAP = 10**9
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Handle:
    """One connection to the file, used by one thread at a time, opened when it is first used.

    On a thread that was interrupted in the middle of a transaction, its own or another handle's, all but :meth:`close`
    raise :class:`ssesync.BrokerBusy`.

    :param path: the file. It is made if it is not there, with the directory it is in being there.
    :param patience: seconds to wait for other processes' locks.
    :param was_there: set as soon as there is a file, by any of the handles that share it. If it is not there after
        that, it was deleted.
    """

    def __init__(self, path: Path, patience: float, was_there: threading.Event) -> None:
        self._path = path
        self._patience = patience
        self._was_there = was_there
        self._lock = make_lock("channels.file")
        self._holder: int | None = None
        self._to_be_closed = False
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._state: tuple[int, int] | None = None  # when the file itself was last written, and its size

    @contextlib.contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """A transaction, with the connection to do it on: committed at the end, rolled back on any error.

        :raises BrokerError: it could not be done, and nothing of it was.
        """
        began = time.monotonic()
        with self._turn(write):
            connection = self._current()
            try:
                self.patiently(lambda: connection.execute("BEGIN IMMEDIATE" if write else "BEGIN"), began)
                yield connection
                connection.execute("COMMIT")
            except BaseException as error:
                with contextlib.suppress(sqlite3.Error):
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                if not isinstance(error, sqlite3.Error):
                    raise
                told = self._told(error)
                if isinstance(told, BrokerDamaged):
                    self._let_go()
                raise told from error

    @contextlib.contextmanager
    def _turn(self, write: bool) -> Iterator[None]:
        try:
            with entered():
                # Who waits behind one that waits for another process waits for that process too: no longer than the
                # first.
                if not self._lock.acquire(timeout=self._patience if write else -1):
                    raise BrokerUnavailable(self._locked())
                try:
                    self._holder = threading.get_ident()
                    yield
                finally:
                    self._holder = None
                    self._lock.release()
        finally:
            self._close_if_asked()

    def data_version(self) -> tuple[object, ...]:
        """Something that changes when another connection has written to the file, or the file is another one."""
        with self._turn(write=False):
            try:
                row = self._current().execute("PRAGMA data_version").fetchone()
            except sqlite3.Error as error:
                raise self._told(error) from error
            return (row[0], self._file)

    def close(self) -> None:
        """Close the connection. The next use opens it again. Any thread, any signal handler.

        It waits up to a second for a transaction of another thread. A signal handler that has interrupted its thread
        inside a broker waits for nothing. A connection that is still in use is closed after that.
        """
        self._to_be_closed = True
        if not is_inside():
            with entered():
                if self._lock.acquire(timeout=1):
                    self._lock.release()
        self._close_if_asked()

    def _close_if_asked(self) -> None:
        with entered_or_inside():
            while self._to_be_closed and self._lock.acquire(blocking=False):
                try:
                    self._to_be_closed = False
                    self._let_go()
                finally:
                    self._lock.release()

    def before_fork(self) -> Callable[[], str]:
        """Close the connection and keep it closed until the function that is returned is called. That one gives an
        error to be logged."""
        # A signal handler that forks may have interrupted the thread that holds the lock, which can't be waited for.
        if not self._lock.acquire(timeout=0 if self._holder == threading.get_ident() else 5):
            return lambda: f"{self._path} is open while the process forks: both processes may corrupt it"
        self._let_go()

        def release() -> str:
            self._lock.release()
            return ""

        return release

    def _current(self) -> sqlite3.Connection:
        """The connection to the file that has the name now."""
        try:
            status = self._path.stat()
            file = (status.st_dev, status.st_ino)
        except OSError:
            file = None
        if self._connection is not None and file == self._file:
            if _state_of(status) != self._state:
                self._look_at_header()
                self._state = _state_of(status)
                # What SQLite has in memory may be of before. It reads the file again, and finds what is wrong with it.
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("PRAGMA shrink_memory")
            return self._connection
        self._let_go()
        if file is None and self._was_there.is_set():
            raise BrokerDamaged(
                f"{self._path} was deleted while it was in use: restart what uses it, which makes a new one"
            )
        try:
            self._look_at_header()
            self._connection = self._opened()
            status = self._path.stat()
        except sqlite3.Error as error:
            raise self._told(error) from error
        except OSError as error:
            raise BrokerUnavailable(f"can't open {self._path}: {error}") from error
        self._file, self._state = (status.st_dev, status.st_ino), _state_of(status)
        self._was_there.set()
        return self._connection

    def _look_at_header(self) -> None:
        """Find out whether the file is a database still.

        Events are put into the -wal beside the file, and the file itself is written only when they are moved there,
        once in a thousand or so. If something else has written to it, SQLite does not notice for as long as it finds
        what it needs in its memory or in the -wal. A connection to the file alone, as if nothing could change it, reads
        the header. It is SQLite's, since any other descriptor of the file takes the locks of all of them along when it
        is closed (https://www.sqlite.org/howtocorrupt.html, section 2.2).
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
                return  # a page that is being written at this moment, say: what is used is found out when it is used
        self._let_go()
        raise self._told(sqlite3.DatabaseError(text))

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        self._file = None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _opened(self) -> sqlite3.Connection:
        with _alone_in(self._path.parent, self._patience):
            if not self._path.exists():
                # Left over from a file that was deleted: SQLite would take them for the new one's.
                for suffix in ("-wal", "-shm"):
                    self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            connection = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
            try:
                mode = self.patiently(lambda: connection.execute("PRAGMA journal_mode=WAL").fetchone())
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
        query = "SELECT value FROM ssesync_meta WHERE name = 'boot'"
        with contextlib.suppress(sqlite3.OperationalError):
            if connection.execute(query).fetchone() == (boot,):
                return
        self.patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
        for statement in SCHEMA.split(";\n"):
            connection.execute(statement)
        before = connection.execute(query).fetchone()
        put = "INSERT OR REPLACE INTO ssesync_meta VALUES (?, ?)"
        if before is None:
            connection.executemany(put, [("epoch", secrets.token_hex(4)), ("base", 0), ("lost", 0), ("leapt", 0)])
            connection.execute("INSERT INTO sqlite_sequence VALUES ('ssesync_event', 0)")
        elif before != (boot,):
            (head,) = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'ssesync_event'").fetchone()
            connection.execute("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'ssesync_event'", (_LEAP,))
            connection.executemany(put, [("lost", head), ("leapt", head + _LEAP)])
        connection.execute(put, ("boot", boot))
        connection.execute("COMMIT")

    def patiently(self, action: Callable[[], T], since: float | None = None) -> T:
        """Do it, again and again while another process holds the lock."""
        deadline = (time.monotonic() if since is None else since) + self._patience
        pause = 0.0005
        while True:
            try:
                return action()
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() >= deadline:
                    raise
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, 0.02)

    def _locked(self) -> str:
        return f"{self._path} has been locked by another process for {self._patience} s"

    def _told(self, error: sqlite3.Error) -> BrokerError:
        """The error, as ours."""
        text = str(error)
        if _is_busy(error):
            return BrokerUnavailable(self._locked())
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
            f"{self._path} is corrupt or no log of ours ({text}): stop what uses it, delete it together with its -wal "
            "and -shm, and start again; subscribers then get a reset event"
        )


def _state_of(status: os.stat_result) -> tuple[int, int]:
    return status.st_mtime_ns, status.st_size


def _is_busy(error: Exception) -> bool:
    return "locked" in str(error) or "busy" in str(error)


@contextlib.contextmanager
def _alone_in(directory: Path, patience: float) -> Iterator[None]:
    """Keep other processes from opening a file in a directory, so that one of them makes it."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    try:
        fd = os.open(directory, os.O_RDONLY)
    except OSError:
        yield  # SQLite tells better what is wrong
        return
    try:
        deadline = time.monotonic() + patience
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
