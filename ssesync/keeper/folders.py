"""The folder in which the workers of one gunicorn master find each other's sockets.

It is ``ssesync-<user>/<master>-<start>`` in the first usable folder of ``XDG_RUNTIME_DIR``, ``/run/user/<user>`` and
those for temporary files: the numbers of the user and of the master's process, and the time when the master was
started, as a process number is used again. A socket is ``<age>-<process>.sock``: gunicorn counts its workers by age.

A process that can connect to a socket could give or take clients, so both folders have to be this user's alone, see
:func:`ssesync.keeper.peer.check_folder`. A worker may still be root when the folder is made: then it makes the folder
as the user that it will run as.

The last worker that exits removes the folder. The first worker of a master removes what killed masters have left: the
sockets whose lock is free. Process numbers are no evidence where containers share the folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .listening import Listener, check_folder, listen

__all__ = ["Sibling", "as_user", "listen_in", "make_folder", "siblings_in", "sweep"]

_SOCKET = re.compile(r"(\d+)-(\d+)\.sock")
# Bytes of a socket's path (``sun_path`` without its zero), and of a name with numbers of ten digits.
_MAX_PATH, _MAX_NAME = 107, 26
# Attempts to make a socket in a folder that other processes remove while it is empty.
_ATTEMPTS = 20


class Sibling(NamedTuple):
    """A worker of the same master."""

    age: int
    pid: int

    @property
    def name(self) -> str:
        """The name of its socket."""
        return f"{self.age}-{self.pid}.sock"


def make_folder(master: int) -> Path:
    """Make the folder of a master's workers, or check the one that is there.

    :param master: the master's process number.
    :return: the folder.
    :raises OSError: it can't be made, or is not this user's alone. The message says which.
    """
    name = f"{master}-{_started(master)}"
    for base in _bases():
        above = base / f"ssesync-{os.geteuid()}"
        folder = above / name
        if len(os.fsencode(folder)) + 1 + _MAX_NAME > _MAX_PATH or not _is_usable(base):
            continue
        check_folder(above)
        is_new = not folder.exists()
        check_folder(folder)
        if is_new:
            for other in above.iterdir():
                if other != folder:
                    sweep(other)
        return folder
    raise FileNotFoundError(errno.ENOENT, "there is no folder for them: set XDG_RUNTIME_DIR")


def listen_in(master: int, name: str) -> tuple[Path, Listener]:
    """Make the folder of a master's workers, and a socket in it.

    :param master: the master's process number.
    :param name: the socket's name.
    :return: the folder and the listener.
    :raises OSError: see :func:`make_folder` and :func:`ssesync.keeper.peer.listen`.
    """
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(FileNotFoundError):  # another process has removed the empty folder meanwhile
            return (folder := make_folder(master)), listen(folder / name)
    return (folder := make_folder(master)), listen(folder / name)


def siblings_in(folder: Path) -> list[Sibling]:
    """Find all workers that have a socket in a folder.

    :param folder: the folder.
    :return: the workers, the newest first.
    """
    try:
        found = [match for path in folder.iterdir() if (match := _SOCKET.fullmatch(path.name))]
    except OSError:  # another process has removed it
        return []
    return sorted((Sibling(int(match[1]), int(match[2])) for match in found), reverse=True)


def sweep(folder: Path) -> None:
    """Remove all sockets of a folder that no process listens at, and the folder if no other file is in it.

    :param folder: the folder. It is left as it is if it is not this user's alone.
    """
    with contextlib.suppress(OSError):
        check_folder(folder)
        for sibling in siblings_in(folder):
            with contextlib.suppress(OSError):  # the lock is taken
                listen(folder / sibling.name).close()
        folder.rmdir()


@contextlib.contextmanager
def as_user(uid: int, gid: int) -> Iterator[None]:
    """Act as another user, if this process is root: files belong to that user. The process must have one thread.

    :param uid: the user's number.
    :param gid: the number of the user's group.
    """
    if os.geteuid() != 0 or uid == 0:
        yield
        return
    group = os.getegid()
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)


def _bases() -> Iterator[Path]:
    if given := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(given)
    yield Path(f"/run/user/{os.geteuid()}")
    yield Path(tempfile.gettempdir())
    yield Path("/tmp")  # if the path of the other one is too long


def _is_usable(base: Path) -> bool:
    return base.is_absolute() and os.access(base, os.W_OK | os.X_OK, effective_ids=True)


def _started(pid: int) -> str:
    """When a process was started, in the system's ticks; ``"0"``: the system does not report it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "0"
