"""The keeper's own upgrade: the next process takes the listener, the lock and all clients of the running one.

::

    next process                             running keeper
    {"op": "replace"}                  ->
                                       <-    {"op": "listener"}, with the listener, the lock and a lifeline
    {"op": "ready"}                    ->
                                             stops accepting
                                       <-    {"op": "yours"}
    accepts: it is the keeper now            sends its clients in batches, as a worker that stops does
                                             sends a report over the lifeline, and exits

The keeper changes at one point, when ``yours`` is sent. Before that the running process stays the keeper, whatever
fails. After that it accepts again only if the next process has *ended*; if that process only does not answer, it keeps
serving the clients that it has, and connects to it again. Both have the listener and the lock, which are one open file
of the system: the socket's path is never without a listener, and the lock is never free.
"""

from __future__ import annotations

import enum
import logging
import socket
import time
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from ..locks import Once
from ..text import escape
from .exporting import Exporter
from .framing import Frame, Link
from .lifeline import Lifeline
from .listening import Listener
from .notify import notify, reloading

__all__ = ["TRANSITIONS", "HandOver", "Inheritance", "Running", "Step", "UpgradeError", "take_over"]

logger = logging.getLogger("ssesync.keeper")

#: Seconds for each answer until the keeper has changed.
_ANSWER = 10.0
#: Seconds after which clients are ended if no more of them can be moved: the next process refuses them.
_NO_PROGRESS = 30.0
#: Seconds until clients that can't be moved yet are frozen again, as a log is being read for them.
_SOON = 0.02
#: Seconds until a process that does not answer is connected to again.
_AGAIN = 1.0
#: Clients of the first batch and, of later ones, the fewest and the most. The clients of a batch are sent nothing while
#: it is moved, 2 ms and 0.15 ms for each of them, so its size follows from the time that the last one took, in seconds.
_FIRST, _FEWEST, _MOST, _BATCH = 32, 8, 100, 0.012


class UpgradeError(RuntimeError):
    """The keeper that runs can't be replaced now. It goes on."""


class Step(enum.Enum):
    """How far the running keeper is in being replaced."""

    KEEPER = "keeper"
    """Nothing replaces it, or nothing did so successfully."""
    OFFERED = "offered"
    """It has sent the listener and the lock. It still accepts."""
    MOVING = "moving"
    """The next process is the keeper. This one moves its clients to it."""
    REPLACED = "replaced"
    """All clients are moved. The process ends."""


#: Which steps may follow a step.
TRANSITIONS: Mapping[Step, frozenset[Step]] = {
    Step.KEEPER: frozenset((Step.OFFERED,)),
    Step.OFFERED: frozenset((Step.KEEPER, Step.MOVING)),
    Step.MOVING: frozenset((Step.KEEPER, Step.REPLACED)),
    Step.REPLACED: frozenset(),
}


class Running(Protocol):
    """What the running keeper lets an upgrade do. On the thread of the next process's link."""

    def handles(self) -> tuple[int, int]:
        """Get the descriptors of the listener and of the lock."""
        ...

    def stop_accepting(self) -> None:
        """Accept no more links, and cancel those of workers, which then connect to the next process. The descriptors
        stay open, and the path exists: another process has them as well."""

    def accept(self) -> None:
        """Accept links, as before. Also called if the keeper has not stopped.

        :raises OSError: that is not possible.
        """

    def open_links(self) -> int:
        """Get the number of links of others over which clients may still come."""
        ...

    def connect(self) -> Link:
        """Connect to the process that accepts, as a keeper that stops.

        :raises OSError: it does not answer.
        :raises ValueError: it refuses.
        """
        ...

    def exporter(self, link: Link) -> Exporter:
        """Make what moves clients over a link."""
        ...

    def finish(self, *, spread: bool) -> None:
        """End the process with exit code 0. Its path and its lock are another process's now.

        :param spread: end the clients that are left as at SIGTERM.
        """


class HandOver:
    """The side of the keeper that runs: see the module.

    :param keeper: the keeper.
    :param predecessor: the lifeline of the process that it has replaced itself; it is not replaced before that process
        has moved all clients, or has ended.
    """

    def __init__(self, keeper: Running, predecessor: Lifeline | None = None) -> None:
        self._keeper = keeper
        self._predecessor = predecessor
        self._turn = Once()
        self.step = Step.KEEPER

    @property
    def is_alone(self) -> bool:
        """Whether no other process has the listener and the lock."""
        return self.step is Step.KEEPER and (self._predecessor is None or self._predecessor.is_over)

    def _set(self, step: Step) -> None:
        assert step in TRANSITIONS[self.step], f"{self.step} -> {step}"
        self.step = step

    def replace(self, link: Link, frame: Frame) -> Mapping[str, Any] | None:
        """Handle the op ``replace``. Returns when the upgrade is over.

        :param link: the next process's.
        :param frame: its request.
        :return: an error, if this process is not to be replaced.
        """
        why = self._refusal(link)
        if not why and not self._turn():
            why = "another process is replacing it"
        if why:
            return {"op": "error", "why": why}
        self._set(Step.OFFERED)
        try:
            lifeline, other = Lifeline.pair()
            try:
                if self._offer(link, other):
                    self._move_all(link, lifeline)
            finally:
                lifeline.report(result="kept")  # unless another report was sent
        finally:
            if self.step is not Step.REPLACED:
                self._take_back()
        return None

    def _refusal(self, link: Link) -> str:
        """Why the process is not to replace this one; ``""``: it may."""
        if link.peer.get("role") != "keeper":
            return f"a {link.peer.get('role')} can't replace a keeper"
        if self._predecessor is not None and not self._predecessor.is_over:
            return "it has not got all clients of the process before it yet"
        return ""

    def _offer(self, link: Link, other: socket.socket) -> bool:
        """Make the next process the keeper. The result: whether it is."""
        reloading()
        try:
            with other:
                link.send({"op": "listener"}, fds=[*self._keeper.handles(), other.fileno()])
            _receive(link, "ready").close()
            self._keeper.stop_accepting()
            link.send({"op": "yours"})
        except (OSError, ValueError) as error:
            logger.warning("the keeper was not replaced, and goes on: %s", escape(error))
            link.cancel()
            return False
        self._set(Step.MOVING)
        return True

    def _move_all(self, link: Link, lifeline: Lifeline) -> None:
        """Move all clients to the next process, until they are moved or that process has ended."""
        mover = _Mover(self._keeper, link)
        while not mover.is_done:
            if lifeline.wait(mover.move()) is not None:
                logger.error("the next keeper has ended before it had all clients: this process is the keeper again")
                mover.close()
                return
        self._set(Step.REPLACED)
        logger.info(
            "%d clients moved to the next keeper in %.2f s, at most %.0f ms for one",
            mover.total,
            mover.seconds,
            mover.worst * 1000,
        )
        # The service manager is notified last: it ends the service when the main process ends, and until now this one
        # could have gone on without the next.
        notify(f"MAINPID={link.pid}")
        lifeline.report(
            result="done", moved=mover.total, seconds=round(mover.seconds, 3), worst=round(mover.worst, 4)
        )  # fmt: skip
        mover.close()
        self._keeper.finish(spread=mover.is_refused)

    def _take_back(self) -> None:
        """Be the keeper again."""
        self._set(Step.KEEPER)
        try:
            self._keeper.accept()
        except OSError as error:
            logger.error("this keeper can't accept workers any more, start another one: %s", escape(error))
        self._turn = Once()
        notify("READY=1")


class _Mover:
    """Moves all clients of a keeper to the next one, over one connection after the other if that is needed."""

    def __init__(self, keeper: Running, link: Link) -> None:
        self._keeper = keeper
        self._link: Link | None = link
        self._exporter = keeper.exporter(link)
        self._begun = self._progress = time.monotonic()
        self._size = _FIRST
        self.total = 0
        #: Seconds for which a client was not served, at most.
        self.worst = 0.0
        self.is_done = False
        #: Whether clients are left that the next process does not take.
        self.is_refused = False

    @property
    def seconds(self) -> float:
        """Seconds since the first batch."""
        return time.monotonic() - self._begun

    def close(self) -> None:
        """Close the connection."""
        self._exporter.close()
        if self._link is not None:
            self._link.close()
            self._link = None

    def move(self) -> float:
        """Move a batch, and find out whether it was the last.

        :return: seconds to wait until the next one.
        """
        try:
            if self._link is None:
                self._link = self._keeper.connect()
                self._exporter = self._keeper.exporter(self._link)
            begun = time.monotonic()
            links = self._keeper.open_links()  # before the clients are counted, as a link may bring some, and end
            moved = self._exporter.move(self._size)
            seconds = time.monotonic() - begun
        except (OSError, ValueError) as error:
            if self._link is not None:
                logger.warning("the connection to the next keeper is lost: %s", escape(error))
            self.close()
            return _AGAIN
        except Exception:
            logger.exception("clients can't be moved to the next keeper, and are ended")
            self.is_done = self.is_refused = True
            return 0.0
        self.total += moved.moved
        self.worst = max(self.worst, self._exporter.worst)
        if moved.moved:
            self._progress = time.monotonic()
            self._size = next_size(self._size, moved.moved, seconds)
        elif time.monotonic() - self._progress > _NO_PROGRESS:
            logger.error("the next keeper refuses %d clients, which are ended", moved.left)
            self.is_refused = True
        self.is_done = self.is_refused or not (moved.left or links)
        if moved.moved or self.is_done:
            return 0.0
        return _AGAIN if moved.refused else _SOON


def next_size(size: int, moved: int, seconds: float) -> int:
    """Choose how many clients the next batch has at most.

    :param size: the last one's limit.
    :param moved: how many it has moved.
    :param seconds: the time that it took.
    :return: the limit.
    """
    return max(_FEWEST, min(_MOST, 2 * size, int(moved * _BATCH / seconds)))


class Inheritance:
    """The side of the next process: what it has got from the keeper that runs.

    :param link: to that process.
    :param listener: the listener, which it does not use yet.
    :param predecessor: that process's lifeline.
    """

    def __init__(self, link: Link, listener: Listener, predecessor: Lifeline) -> None:
        self.link = link
        self.listener = listener
        self.predecessor = predecessor

    def enter(self) -> None:
        """Become the keeper: when it returns, this process has to accept, and to serve :attr:`link` as it serves those
        of workers. If the other process has ended meanwhile, this one is the keeper as well.

        :raises UpgradeError: the other process stays the keeper. The descriptors are closed.
        """
        try:
            self.link.send({"op": "ready"})
            _receive(self.link, "yours").close()
        except (OSError, ValueError) as error:
            # If that process has ended, its descriptors are closed one after the other.
            if self.predecessor.wait(_AGAIN) == {}:
                logger.warning("the keeper before this one has ended with all its clients: this process is the keeper")
                return
            self.close()
            raise UpgradeError(f"the running keeper was not replaced: {error}") from error

    def wait(self) -> dict[str, Any]:
        """Wait until the other process has moved all its clients, or has ended. On a thread of its own.

        :return: its report; empty if it has ended before.
        """
        report = self.predecessor.wait(None) or {}
        self.predecessor.close()
        if not report:
            logger.error("the keeper before this one has ended before it had moved all its clients")
        return report

    def close(self) -> None:
        """Close the descriptors. The other process has its own ones."""
        self.link.close()
        self.listener.close(remove=False)
        self.predecessor.close()


def take_over(path: str, link: Link, logs: Collection[str]) -> Inheritance:
    """Get what the running keeper hands over. It stays the keeper until :meth:`Inheritance.enter`.

    :param path: the socket's.
    :param link: to the running keeper. It is closed after an error.
    :param logs: the epochs of this process's logs.
    :return: the listener and the lifeline.
    :raises UpgradeError: the running keeper refuses, or does not answer.
    """
    try:
        if not set(logs) & set(link.peer.get("logs", ())):
            raise UpgradeError("the running keeper is on another log: do both have the same broker?")
        link.send({"op": "replace"})
        with _receive(link, "listener", 3) as frame:
            fd, lock, lifeline = frame.claim()
        predecessor = Lifeline(socket.socket(fileno=lifeline))
        try:
            return Inheritance(link, Listener.adopt(path, fd, lock), predecessor)
        except OSError:
            predecessor.close()
            raise
    except (OSError, ValueError) as error:
        link.close()
        raise UpgradeError(f"the running keeper was not replaced: {error}") from error
    except UpgradeError:
        link.close()
        raise


def _receive(link: Link, op: str, fds: int = 0) -> Frame:
    """Wait for a message.

    :raises ValueError: another one came.
    :raises UpgradeError: the other process has sent an error.
    """
    frame = link.receive(_ANSWER)
    if frame.op == op and len(frame.fds) == fds:
        return frame
    frame.close()
    if frame.op == "error":
        raise UpgradeError(f"the running keeper refuses to be replaced: {frame.head.get('why')}")
    raise ValueError(f"{op!r} was expected, and {frame.op!r} came with {len(frame.fds)} descriptors")
